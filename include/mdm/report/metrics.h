/* metrics.jsonl: one JSON object a line, one line an event (CONTRACT, section 4). Rank 0 only.
 *
 *   mdm_metrics_begin(metrics, "epoch");
 *   mdm_metrics_text(metrics, "stage", "warmup");
 *   mdm_metrics_integer(metrics, "epoch", 3);
 *   mdm_metrics_number(metrics, "loss", 1.25);
 *   mdm_metrics_end(metrics);
 *
 * A line reaches the file in one write, so readers of a running job never see half of one. Logs never end a
 * run: when a line cannot be written (disk full) it is dropped, one warning is given, and the next line is
 * tried again. The process must ignore SIGXFSZ, or a file size limit kills it before write() can report it.
 */
#ifndef MDM_REPORT_METRICS_H
#define MDM_REPORT_METRICS_H

#include "mdm/base/status.h"
#include <stddef.h>
#include <stdint.h>

typedef struct mdm_metrics mdm_metrics;

enum { MDM_METRICS_APPEND = -1 };

/* Opens or creates the file. `length` is what it is cut back to first: 0 for a new run, the length stored in
 * the checkpoint on resume (events of the lost stretch go), MDM_METRICS_APPEND to keep everything. A last
 * line without its end (a kill in mid-write) is ended first, so every later line is whole. MDM_RESOURCE when
 * it cannot be opened. */
MDM_MUST_CHECK mdm_status mdm_metrics_open(const char *path, int64_t length, mdm_metrics **metrics);

/* Closes the file and frees; NULL is allowed. */
void mdm_metrics_close(mdm_metrics *metrics);

/* One event: begin, any number of fields, end. Fields and events of a NULL `metrics` are ignored, so that
 * ranks other than 0 may run the same code. Names are literals. Numbers that are not finite become null. */
void mdm_metrics_begin(mdm_metrics *metrics, const char *event);
void mdm_metrics_number(mdm_metrics *metrics, const char *name, double value);
void mdm_metrics_integer(mdm_metrics *metrics, const char *name, int64_t value);
void mdm_metrics_text(mdm_metrics *metrics, const char *name, const char *value);
void mdm_metrics_numbers(mdm_metrics *metrics, const char *name, const double *values, int64_t count);
void mdm_metrics_end(mdm_metrics *metrics);

/* Writes {"event":"warning","message":text}. Has the type of mdm_log_set_warning_hook()'s hook, with the
 * mdm_metrics as context; may be called between begin and end of another event, whose line follows. */
void mdm_metrics_warning(void *metrics, const char *text);

/* Called with every line that has reached the file, without its end; NULL for none. */
void mdm_metrics_set_observer(mdm_metrics *metrics,
                              void (*observer)(void *context, const char *line, size_t length),
                              void *context);

/* Bytes of whole lines in the file: what a checkpoint stores. 0 for NULL. */
int64_t mdm_metrics_length(const mdm_metrics *metrics);

/* Lines that could not be written. */
int64_t mdm_metrics_lost(const mdm_metrics *metrics);

/* Has the lines on disk (fsync), before a checkpoint that stores their length. A failure counts as a lost
 * line. */
void mdm_metrics_sync(mdm_metrics *metrics);

#endif

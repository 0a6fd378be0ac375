/* TensorBoard events: events.out.tfevents.* in the run folder, made of the lines of metrics.jsonl. Rank 0
 * only.
 *
 * One record an `epoch`, `divide` or `end` line, with a scalar for each of its numbers: tags train/..., for
 * warm-up and semi-supervised phase, pretrain/..., baseline_ce/..., divide/..., the field, and the network;
 * steps are epochs as in metrics.jsonl. After the lines of a division its histograms; at the end a few
 * pictures.
 *
 * Every start of a run writes a new file from what metrics.jsonl holds (on resume it was cut back to the
 * checkpoint), with the times of the old one, and removes that: steps that are done twice appear once. A
 * session-start record tells a TensorBoard that is looking on to drop what it has seen.
 *
 * The file is a log: what cannot be written is dropped with one warning.
 */
#ifndef MDM_REPORT_EVENTS_H
#define MDM_REPORT_EVENTS_H

#include "mdm/base/status.h"
#include "mdm/data/store.h"
#include <stddef.h>

typedef struct mdm_events mdm_events;

/* Starts the events of the run folder `run`; ended by mdm_events_close(). MDM_RESOURCE when the file cannot
 * be written; old files then stay. */
MDM_MUST_CHECK mdm_status mdm_events_open(const char *run, mdm_events **events);
void mdm_events_close(mdm_events *events);

/* Takes one whole line of metrics.jsonl; has the type of mdm_metrics_set_observer()'s hook. */
void mdm_events_take(void *events, const char *line, size_t length);

/* Adds the surest wrong labels and the strangest pictures by the run's labels.csv. NULL events or store:
 * nothing. */
void mdm_events_add_pictures(mdm_events *events, mdm_store *store);

/* Removes the events of an earlier run from the folder. */
void mdm_events_remove(const char *run);

#endif

/* The run folder: made, checked and locked at the door; names of its members (CONTRACT, section 4). Rank 0
 * only.
 *
 * One run at a time: `.lock` is held by flock() for as long as the folder is open, and tells who holds it.
 * The lock ends with the process, however that ends. A child process that inherits the descriptor keeps it.
 */
#ifndef MDM_REPORT_RUN_FOLDER_H
#define MDM_REPORT_RUN_FOLDER_H

#include "mdm/base/status.h"
#include <stddef.h>
#include <stdint.h>

typedef struct mdm_run_folder {
    char *path;
    int lock;   /* descriptor, -1 where locks are not supported */
    int is_new; /* 1: holds no run yet (neither config.yaml nor metrics.jsonl nor a checkpoint) */
} mdm_run_folder;

/* Creates what is missing of `path`, path/divisions and path/checkpoints, makes sure that files can be
 * written there, takes the lock, empties path/flight of the records of an earlier failure, and removes what a
 * kill left half written. MDM_RESOURCE, naming the cause: a file in the way, not writable, in use by another
 * run. */
MDM_MUST_CHECK mdm_status mdm_run_folder_open(const char *path, mdm_run_folder **folder);

/* Removes the divisions and what a run's end writes, which a run begun afresh may never write again: its own
 * report would show them. */
MDM_MUST_CHECK mdm_status mdm_run_folder_forget(const mdm_run_folder *folder);

/* Gives the lock back and frees; NULL is allowed. */
void mdm_run_folder_close(mdm_run_folder *folder);

/* For `status`: whether a run is alive in there, and who (text, cut to `size`; "" when not). Changes nothing.
 */
int mdm_run_folder_alive(const char *path, char *who, size_t size);

typedef enum mdm_run_member {
    MDM_RUN_CONFIG,      /* config.yaml */
    MDM_RUN_ENVIRONMENT, /* environment.json */
    MDM_RUN_METRICS,     /* metrics.jsonl */
    MDM_RUN_DIVISIONS,   /* divisions */
    MDM_RUN_CHECKPOINTS, /* checkpoints */
    MDM_RUN_MODEL_A,     /* model-a.safetensors */
    MDM_RUN_MODEL_B,
    MDM_RUN_BEST_A, /* best-a.safetensors, with data.validation */
    MDM_RUN_BEST_B,
    MDM_RUN_OOD_REFERENCE, /* ood-reference.safetensors */
    MDM_RUN_OOD_A,         /* ood-a.safetensors, with divide.ood_scores=first */
    MDM_RUN_OOD_B,
    MDM_RUN_LABELS,  /* labels.csv */
    MDM_RUN_REPORT,  /* report.html */
    MDM_RUN_SUMMARY, /* summary.json */
    MDM_RUN_LOCK,    /* .lock */
    MDM_RUN_FLIGHT   /* flight: what supervisors record of a failure */
} mdm_run_member;

/* The path of a member of the run folder `path` in a new string that the caller frees; NULL when out of
 * memory. */
char *mdm_run_folder_member(const char *path, mdm_run_member member);
/* Where the data set `file` of the run's settings lies, as it is or, where there is none, seen from the
 * folder in which the run was started (environment.json); `file` itself where it is found in neither. */
void mdm_run_folder_data(const char *path, const char *file, char *out, size_t size);
/* Warns where environment.json tells another fingerprint of the data set than that of `file`, the one that
 * the settings name. */
void mdm_run_folder_compare_data(const char *path, const char *file, uint64_t fingerprint);
/* divisions/epoch-NNNN.h5, or divisions/epoch-NNNN-a.safetensors with network 0 (-b with 1). */
char *mdm_run_folder_division(const char *path, int64_t epoch);
char *mdm_run_folder_division_weights(const char *path, int64_t epoch, int network);

#endif

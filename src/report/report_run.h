/* A run folder read back, as far as it is there: what the pages and the TensorBoard events are made of.
 * Internal to this room. */
#ifndef MDM_REPORT_RUN_INTERNAL_H
#define MDM_REPORT_RUN_INTERNAL_H

#include "mdm/base/config.h"
#include "mdm/data/store.h"
#include "mdm/report/division_file.h"
#include "mdm/report/labels_rows.h"
#include <jansson.h>

enum { REPORT_PRETRAIN, REPORT_WARMUP, REPORT_SEMI, REPORT_BASELINE_CE, REPORT_BASELINE_SCE, REPORT_STAGES };
extern const char *const report_stage_names[REPORT_STAGES]; /* as in metrics.jsonl */

enum { REPORT_PARTS = 6 };
extern const char *const report_part_names[REPORT_PARTS];

typedef struct report_epoch {
    int stage;
    int64_t epoch;
    char network; /* a, b, or e for what was measured on the test set */
    double loss, parts[REPORT_PARTS], images_per_s, seconds, top1, top5; /* NAN: not told */
} report_epoch;

typedef struct report_labels {
    int64_t count;
    mdm_labels_rows rows; /* ids are in here */
    int32_t *given, *suggested;
    float *clean, *ood, *certain, *wrong; /* NAN where the field is empty */
    uint8_t *verdict;
} report_labels;

typedef struct report_run {
    const char *folder;
    char name[256];
    mdm_config *config;                                 /* NULL without config.yaml */
    json_t *summary, *environment, *divides, *warnings; /* NULL, or an object, an object, lists */
    report_epoch *epochs;
    int64_t epoch_count;
    int restarts, ended;
    int is_twin; /* another run that it is compared with has its name */
    report_labels labels;
    int64_t *divisions; /* epochs that have a division file, ascending */
    int division_count;
    mdm_store *store;     /* borrowed; NULL: without pictures */
    const int32_t *truth; /* [labels.count] or NULL */
    int classes, networks;
    const char **class_names; /* [classes] */
    char *name_memory;
} report_run;

/* Reads what is there; MDM_INPUT when the folder holds no run at all. `store` may be NULL; one that does not
 * fit the run's labels is not used. Ended by report_run_free(), also after a failure. */
MDM_MUST_CHECK mdm_status report_run_read(const char *folder, mdm_store *store, report_run *run);
void report_run_free(report_run *run);

/* Names a run by the last `parts` components of its folder; after report_run_read() it is the last one. */
void report_name(report_run *run, int parts);

/* A number of summary.json by its dotted name ("auc_noise.a"); NAN when it is not there. */
double report_summary(const report_run *run, const char *name);
/* Sample's id, or "". */
const char *report_id(const report_run *run, int64_t sample);
/* 0 clean, 1 wrong label, 2 of no class, by the true labels. */
int report_truth(const report_run *run, int64_t sample);

/* A sample's picture as a PNG file, the longer side at most `side`; the caller frees the bytes. */
typedef struct report_picture {
    uint8_t *bytes;
    size_t count;
    int width, height;
} report_picture;
MDM_MUST_CHECK mdm_status report_picture_make(const report_run *run, int64_t sample, int side,
                                              report_picture *picture);
/* The samples of largest score, best first, among those with score > 0: how many were found. */
int64_t report_largest(const float *score, int64_t count, int64_t *index, int64_t most);
/* What galleries are ordered by: into score [labels.count]. */
void report_mislabelled_scores(const report_run *run, float *score);
void report_stranger_scores(const report_run *run, float *score);

#endif

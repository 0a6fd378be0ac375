/* summary.json (how the run ended) and environment.json (what it ran on). Rank 0 only; both are written
 * whole. */
#ifndef MDM_REPORT_SUMMARY_H
#define MDM_REPORT_SUMMARY_H

#include "mdm/base/status.h"
#include <stdint.h>

/* NAN stands for "not known" and is written as null. */
typedef struct mdm_summary {
    const char *name, *status;                /* of the run; "done" or "stopped" */
    int64_t epochs;                           /* done */
    double final_top1, final_top5, best_top1; /* of the ensemble on the test set, 0 to 1 */
    int64_t best_epoch;                       /* -1: none */
    double best_validation_top1;              /* NaN and -1: no validation set */
    int64_t best_validation_epoch;
    double before_semi_top1; /* of the ensemble at the end of warm-up: what the semi-supervised phase began
                                with */
    double baseline_ce_top1, baseline_sce_top1; /* of one network trained with that loss alone */
    double baseline_ce_best_validation_top1, baseline_sce_best_validation_top1; /* as the ensemble's */
    double auc_noise[2], auc_ood[2]; /* networks a and b, of the last division */
    double seconds, seconds_pretrain, seconds_warmup, seconds_semi, seconds_divide, seconds_evaluate,
        seconds_baseline;
    double images_per_s; /* global, over the training stages */
    int ranks;
    int networks; /* 1 or 2: entries used of the AUCs */
    const char *device, *precision;
} mdm_summary;

MDM_MUST_CHECK mdm_status mdm_summary_write(const char *path, const mdm_summary *summary);

typedef struct mdm_version {
    const char *name, *version; /* "HDF5", "1.10.8" */
} mdm_version;

/* What one rank says of itself; collected by the caller. */
typedef struct mdm_rank_place {
    const char *host, *device, *binding; /* binding: the cores, as "0-3" */
    int threads;
} mdm_rank_place;

typedef struct mdm_environment {
    const char *program_version;
    const mdm_version *versions; /* [version_count] of the libraries */
    int version_count;
    const mdm_rank_place *places; /* [ranks] */
    int ranks;
    const char *const *arguments; /* [argument_count] the command line */
    int argument_count;
    const char *folder;           /* working directory */
    const char *started;          /* ISO 8601, UTC */
    const char *data_fingerprint; /* of the data set; NULL: none */
} mdm_environment;

/* Adds the values of environment variables from a fixed list (threads, bindings, devices, the scheduler's
 * job); all others are left out, since they may hold secrets. */
MDM_MUST_CHECK mdm_status mdm_environment_write(const char *path, const mdm_environment *environment);

#endif

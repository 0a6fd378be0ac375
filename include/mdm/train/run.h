/* The run: pretraining, first removal, warm-up, divide, co-divided MixEMatch training, evaluation; with
 * checkpoints. */
#ifndef MDM_TRAIN_RUN_H
#define MDM_TRAIN_RUN_H

#include "mdm/base/config.h"
#include "mdm/base/status.h"
#include "mdm/comm/comm.h"
#include "mdm/device/device.h"

typedef struct mdm_run_options {
    int force;   /* start afresh in a folder that holds a run of other settings */
    int dry_run; /* check everything, run one step of every stage, write nothing */
    int argument_count;
    char **arguments; /* the command line, for environment.json */
} mdm_run_options;

/* Collective. Trains as `config` says (all ranks pass the same) and writes the run folder. MDM_STOPPED after
 * a signal, state saved. All ranks return the same status. */
MDM_MUST_CHECK mdm_status mdm_run(mdm_comm *comm, const mdm_config *config, const mdm_run_options *options);

/* Threads per rank by the affinity mask and the ranks that share it; `configured` > 0 overrides. Collective.
 * Tells in `text` what was chosen and why. Warns when one core would be shared. */
MDM_MUST_CHECK mdm_status mdm_choose_threads(mdm_comm *comm, int configured, int *threads, char *text,
                                             int size);

/* Collective. Opens the device that `device` asks for (auto: CUDA where every rank has one) and settles
 * train.precision, the same on all ranks. On CUDA the ranks of a node take the devices they see in turn;
 * MDM_RESOURCE when there are none and device=cuda, or when ranks would share one without run.oversubscribe.
 */
MDM_MUST_CHECK mdm_status mdm_choose_device(mdm_comm *comm, const mdm_config *config, int threads,
                                            mdm_device **device, mdm_precision *precision);

#endif

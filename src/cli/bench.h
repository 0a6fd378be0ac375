/* What the measurements of mdm-dist bench share: command_bench.c, bench_step.c for those of training, and
 * bench_ceilings.c. */
#ifndef MDM_CLI_BENCH_H
#define MDM_CLI_BENCH_H

#include "mdm/base/config.h"
#include "mdm/comm/comm.h"
#include "mdm/model/executor.h"
#include "mdm/train/recorder.h"

enum { WARM_UPS = 2, REPEATS = 7, MOST_TIMES = 16, CLASSES = 100, SIDE = 32, CHANNELS = 3 };

typedef struct bench {
    mdm_comm *comm;
    mdm_config *config;
    mdm_device *device;
    mdm_layout *layout;
    mdm_executor *executor;
    mdm_network *network;
    mdm_recorder *recorder;
    mdm_precision precision;
    int64_t first, count; /* this rank's rows of train.batch */
    int threads;
} bench;

/* Random floats in new memory of the device. */
MDM_MUST_CHECK mdm_status mdm_bench_send_random(bench *b, int64_t count, float **values);

/* What is measured. */
typedef mdm_status (*work)(bench *b, void *context);
/* Collective. One time of `run`, the slowest rank counting; several, behind some to warm up. */
MDM_MUST_CHECK mdm_status mdm_bench_time(bench *b, work run, void *context, double *seconds);
MDM_MUST_CHECK mdm_status mdm_bench_measure(bench *b, work run, void *context, double *times, int repeats);
/* Sorts the times. */
double mdm_bench_median(double *times, int count);
/* Rank 0 prints one line. `images` and `flop` are those of one measurement, over all ranks; `more`: further
 * fields, each with a comma before it. Sorts the times. */
void mdm_bench_report(const bench *b, const char *name, double *times, int count, double images, double flop,
                      const char *more);

/* Collective. What the device can do at best. */
MDM_MUST_CHECK mdm_status mdm_bench_ceilings(bench *b);
/* Collective. The steps of training. */
MDM_MUST_CHECK mdm_status mdm_bench_step(bench *b);
MDM_MUST_CHECK mdm_status mdm_bench_semi(bench *b);
MDM_MUST_CHECK mdm_status mdm_bench_pretrain(bench *b);

#endif

/* The configuration: every setting of a run, from YAML and key=value arguments to one checked struct.
 *
 * One table (src/base/config_table.c) lists every key with its type, default, allowed values, unit and
 * meaning. From it come the parser, the answers to mistakes, --help-config, the resolved config.yaml and
 * configs/template.yaml.
 *
 * Usual order: mdm_config_quickstart() or mdm_config_defaults() + mdm_config_read_yaml(), then
 * mdm_config_set() for every argument, mdm_config_check(), and once the data and the ranks are known
 * mdm_config_check_data() and mdm_config_check_ranks().
 *
 * Every failure is MDM_USAGE with one line that names the file and line or the argument, the key, the value
 * and what is allowed; an unknown key also names the nearest known one. Numbers are read and written with a
 * decimal point in every locale. Nothing here is collective; a struct holds no pointers and may be copied and
 * sent as bytes.
 */
#ifndef MDM_BASE_CONFIG_H
#define MDM_BASE_CONFIG_H

#include "mdm/base/status.h"
#include "mdm/base/text.h"
#include <stdint.h>
#include <stdio.h>

#define MDM_CONFIG_TEXT       1024      /* bytes of a text value with its end */
#define MDM_CONFIG_FILE_LIMIT (1 << 20) /* bytes of a configuration file */

/* Values of the keys that take one of a few words, in the table's order. */
enum { MDM_CONFIG_DEVICE_AUTO, MDM_CONFIG_DEVICE_CPU, MDM_CONFIG_DEVICE_CUDA };
enum { MDM_CONFIG_DETERMINISTIC_FALSE, MDM_CONFIG_DETERMINISTIC_TRUE, MDM_CONFIG_DETERMINISTIC_AUTO };
enum { MDM_CONFIG_BASELINE_NONE, MDM_CONFIG_BASELINE_CE, MDM_CONFIG_BASELINE_SCE, MDM_CONFIG_BASELINE_BOTH };
enum {
    MDM_CONFIG_RESIDENT_AUTO,
    MDM_CONFIG_RESIDENT_DEVICE,
    MDM_CONFIG_RESIDENT_HOST,
    MDM_CONFIG_RESIDENT_STREAM,
    MDM_CONFIG_SHUFFLE_FULL = 0,
    MDM_CONFIG_SHUFFLE_BLOCKS
};
enum {
    MDM_CONFIG_PREACT_RESNET10,
    MDM_CONFIG_PREACT_RESNET18,
    MDM_CONFIG_PREACT_RESNET34,
    MDM_CONFIG_PREACT_RESNET50,
    MDM_CONFIG_PREACT_RESNET101,
    MDM_CONFIG_RESNET18, /* with the ImageNet stem: 7x7 stride 2 and max pooling */
    MDM_CONFIG_RESNET50
};
enum { MDM_CONFIG_SCHEDULE_COSINE };
enum {
    MDM_CONFIG_PRECISION_AUTO,
    MDM_CONFIG_PRECISION_FP32,
    MDM_CONFIG_PRECISION_BF16,
    MDM_CONFIG_PRECISION_TF32,
    MDM_CONFIG_PRECISION_PREFER_BF16
};
enum { MDM_CONFIG_BATCHNORM_SYNC, MDM_CONFIG_BATCHNORM_LOCAL, MDM_CONFIG_BATCHNORM_FROZEN };
enum { MDM_CONFIG_METRIC_COSINE };
enum { MDM_CONFIG_OOD_SCORES_LATEST, MDM_CONFIG_OOD_SCORES_FIRST };
enum { MDM_CONFIG_OOD_NEIGHBOURS_ALL, MDM_CONFIG_OOD_NEIGHBOURS_CLEAN };
enum { MDM_CONFIG_SAVE_SCORES, MDM_CONFIG_SAVE_ALL };
enum { MDM_CONFIG_SUPERVISED_SCE, MDM_CONFIG_SUPERVISED_CE };
enum { MDM_CONFIG_VIEWS_STRONG, MDM_CONFIG_VIEWS_WEAK };

/* Fields are named as their keys; `run`, the run folder, is run.folder. Meanings: the table, or
 * --help-config. Texts that mean "none" are empty. Integers with a word ("auto") hold 0 for it. Batches are
 * global, over all ranks. */
typedef struct mdm_config {
    int64_t seed;
    int device;                   /* MDM_CONFIG_DEVICE_... */
    char resume[MDM_CONFIG_TEXT]; /* "auto", "never" or a path */
    int deterministic;            /* MDM_CONFIG_DETERMINISTIC_... */
    int baseline;                 /* MDM_CONFIG_BASELINE_... */
    int report, tensorboard;      /* 0 or 1 */
    struct {
        char folder[MDM_CONFIG_TEXT];
        int threads; /* per rank; 0: from the affinity mask */
        int oversubscribe;
    } run;
    struct {
        char train[MDM_CONFIG_TEXT];
        char test[MDM_CONFIG_TEXT];       /* "": the test set inside the training file */
        char validation[MDM_CONFIG_TEXT]; /* see mdm_config_validation() */
        int resident;                     /* MDM_CONFIG_RESIDENT_... */
        int shuffle;                      /* MDM_CONFIG_SHUFFLE_... */
    } data;
    struct {
        int arch; /* MDM_CONFIG_PREACT_RESNET18...; its name by mdm_config_get() */
        int width, projection, networks;
        char init[MDM_CONFIG_TEXT]; /* "": random weights */
        double ema;                 /* 0: off */
    } model;
    struct {
        int epochs, warmup, batch;
        int micro_batch; /* 0: as large as memory allows */
        int evaluate_every;
        int patience; /* epochs without a better validation accuracy; 0: never stop early */
        double lr_backbone, lr_head, momentum, weight_decay;
        double rce_weight;                  /* of the reverse cross entropy in warm-up */
        int schedule, precision, batchnorm; /* MDM_CONFIG_SCHEDULE_..., _PRECISION_..., _BATCHNORM_... */
        int crop_padding;                   /* pixels */
        int cuda_graph;
    } train;
    struct {
        int epochs; /* 0: no self-supervised start */
        int batch;
        double lr, momentum, weight_decay, temperature;
    } pretrain;
    struct {
        int interval, k, metric;
        int ood_scores, ood_neighbours;   /* MDM_CONFIG_OOD_SCORES_..., _OOD_NEIGHBOURS_... */
        double remove_first, remove_step; /* shares of the training samples */
        double loss_limit; /* multiple of log C at which losses are cut for the mixture; 0: not cut */
        double threshold;
        int gmm_iterations;
        double gmm_tolerance, gmm_floor;
        int save; /* MDM_CONFIG_SAVE_... */
    } divide;
    struct {
        double temperature, alpha, confidence;
        int rampup;     /* epochs; 0: full weight at once */
        int supervised; /* MDM_CONFIG_SUPERVISED_... */
        double rce_weight;
        int views; /* MDM_CONFIG_VIEWS_... */
        double lambda_x, lambda_u, lambda_xe, lambda_ue, lambda_c;
        double contrast_temperature;
    } semi;
    struct {
        int every;      /* epochs */
        double minutes; /* 0: by epochs only */
        int keep;
    } checkpoint;
} mdm_config;

/* Sets every key to its default. */
void mdm_config_defaults(mdm_config *config);

/* Sets `config` to the built-in run for a program started without arguments: configs/quickstart.yaml,
 * compiled in. */
MDM_MUST_CHECK mdm_status mdm_config_quickstart(mdm_config *config);

/* Sets the keys that the YAML file at `path` gives and leaves the others. Nested sections and dotted keys are
 * the same; anchors, aliases, tags, merge keys, lists and keys given twice are refused. A file that does not
 * say `run` sets it to runs/<name of the file without .yaml>. After a failure `config` is as before. */
MDM_MUST_CHECK mdm_status mdm_config_read_yaml(mdm_config *config, const char *path);

/* The same from `length` bytes of text; `path` is the name for messages and for the run folder. */
MDM_MUST_CHECK mdm_status mdm_config_read_text(mdm_config *config, const char *text, size_t length,
                                               const char *path);

/* Sets one key from an argument "key=value". */
MDM_MUST_CHECK mdm_status mdm_config_set(mdm_config *config, const char *argument);
/* Sets `key` to `value`; `source` is put in front of a message ("argument", "file:line"). */
MDM_MUST_CHECK mdm_status mdm_config_set_key(mdm_config *config, const char *source, const char *key,
                                             const char *value);

/* Writes the value of `key` as text to `out`; NULL when there is no such key, otherwise `out`. */
const char *mdm_config_get(const mdm_config *config, const char *key, char *out, size_t size);

/* Refuses settings that contradict each other, as far as no data are needed. */
MDM_MUST_CHECK mdm_status mdm_config_check(const mdm_config *config);
/* Refuses settings that do not fit a training set of `samples` pictures of `height` x `width` pixels in
 * `classes` classes. */
MDM_MUST_CHECK mdm_status mdm_config_check_data(const mdm_config *config, int64_t samples, int classes,
                                                int height, int width);
/* Refuses batches smaller than the number of ranks. */
MDM_MUST_CHECK mdm_status mdm_config_check_ranks(const mdm_config *config, int ranks);

typedef enum mdm_config_validation_kind {
    MDM_VALIDATION_NONE,
    MDM_VALIDATION_FRACTION, /* of the training samples, held out */
    MDM_VALIDATION_FILE      /* a data set file: data.validation */
} mdm_config_validation_kind;
/* What data.validation says; `fraction` (may be NULL) is 0 unless it is a fraction. */
mdm_config_validation_kind mdm_config_validation(const mdm_config *config, double *fraction);

/* Adds every key as YAML that mdm_config_read_yaml() takes and that gives the same struct (config.yaml,
 * --print-config). */
void mdm_config_write(const mdm_config *config, mdm_text *text);
/* Adds configs/template.yaml: every key with its default, and its meaning as a comment. */
void mdm_config_write_template(mdm_text *text);
/* Prints every key with its default, allowed values, unit and meaning (--help-config). */
void mdm_config_help(FILE *file);

/* XXH3 of the keys that change what is trained. Where a run writes, which device and how many threads it
 * uses, how often it saves and where the data lie do not count (the data themselves have
 * mdm_store_info.fingerprint). */
uint64_t mdm_config_hash(const mdm_config *config);
/* How many of these keys differ; the first three by name and values in `text`. */
int mdm_config_differences(const mdm_config *before, const mdm_config *now, char *text, size_t size);

/* The keys by number, 0 <= index < mdm_config_key_count(): for completion, the manual page and tests. */
typedef enum mdm_config_type {
    MDM_CONFIG_INTEGER,
    MDM_CONFIG_INTEGER64,
    MDM_CONFIG_REAL,
    MDM_CONFIG_BOOLEAN,
    MDM_CONFIG_WORD,
    MDM_CONFIG_STRING,
    MDM_CONFIG_FRACTION_OR_FILE
} mdm_config_type;
enum { MDM_CONFIG_OPEN_LOW = 1, MDM_CONFIG_OPEN_HIGH = 2, MDM_CONFIG_TRAINING = 4 };
typedef struct mdm_config_key {
    const char *name; /* dotted */
    mdm_config_type type;
    size_t offset;       /* of the field in mdm_config */
    const char *initial; /* the default, as text */
    double low, high;    /* range of a number */
    int flags; /* MDM_CONFIG_OPEN_...: the end of the range is not allowed; _TRAINING: part of the hash */
    const char *const
        *words;       /* MDM_CONFIG_WORD: the values, ended by NULL. Otherwise words[0] stands for 0 or "" */
    const char *unit; /* "" when none */
    const char *meaning; /* one line */
} mdm_config_key;
int mdm_config_key_count(void);
const mdm_config_key *mdm_config_key_at(int index);

#endif

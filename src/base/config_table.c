/* Every key of the configuration: the one list from which parser, help, config.yaml and template are made.
 *
 * To add a key: a field in mdm_config, a line here, and `ninja config_template`. Sections must stay together,
 * keys without a section come first. A new default is announced in the changelog, as users' scripts rely on
 * them.
 */
#include "config_internal.h"
#include <stddef.h>
#include <string.h>

#define WORDS(...)                                                                                           \
    ((const char *const[]){                                                                                  \
        __VA_ARGS__,                                                                                         \
        NULL,                                                                                                \
    })
#define LOW    MDM_CONFIG_OPEN_LOW
#define HIGH   MDM_CONFIG_OPEN_HIGH
#define HASHED MDM_CONFIG_TRAINING
#define KEY(name, type, field, initial, low, high, flags, words, unit, meaning)                              \
    { name, MDM_CONFIG_##type, offsetof(mdm_config, field), initial, low, high, flags, words, unit, meaning }
#define INTEGER(name, field, initial, low, high, flags, unit, meaning)                                       \
    KEY(name, INTEGER, field, initial, low, high, flags, NULL, unit, meaning)
#define REAL(name, field, initial, low, high, flags, unit, meaning)                                          \
    KEY(name, REAL, field, initial, low, high, flags, NULL, unit, meaning)
#define BOOLEAN(name, field, initial, flags, meaning)                                                        \
    KEY(name, BOOLEAN, field, initial, 0, 1, flags, NULL, "", meaning)
#define WORD(name, field, flags, meaning, first, ...)                                                        \
    KEY(name, WORD, field, first, 0, 0, flags, WORDS(__VA_ARGS__), "", meaning)
#define STRING(name, field, initial, flags, words, meaning)                                                  \
    KEY(name, STRING, field, initial, 0, 0, flags, words, "", meaning)

static const mdm_config_key keys[] = {
    STRING("run", run.folder, "runs/mdm-dist", 0, NULL,
           "folder of the run; without it runs/<name of the configuration file>"),
    KEY("seed", INTEGER64, seed, "1", 0, 0, HASHED, NULL, "",
        "start of all random numbers; the same seed gives the same run on any number of ranks"),
    WORD("device", device, 0, "where to compute; auto takes CUDA devices where there are any", "auto", "auto",
         "cpu", "cuda"),
    STRING("resume", resume, "auto", 0, NULL,
           "auto: go on where the run folder stopped; never: refuse a used folder; or a checkpoint's PATH"),
    WORD("baseline", baseline, HASHED,
         "train one more network by cross entropy (ce), symmetric (sce) or each (both) alone, to compare in "
         "summary.json",
         "none", "none", "ce", "sce", "both"),
    WORD("deterministic", deterministic, 0,
         "the same bits on 1, 2, 3, 4, 6 or 12 CPU ranks; steps take a fifth (slim networks) to twice as "
         "long; auto: where it can be had",
         "false", "false", "true", "auto"),
    BOOLEAN("report", report, "true", 0, "write report.html at the end"),
    BOOLEAN("tensorboard", tensorboard, "true", 0, "write TensorBoard events beside metrics.jsonl"),

    KEY("run.threads", INTEGER, run.threads, "auto", 1, 4096, 0, WORDS("auto"), "threads",
        "threads of a rank; auto: as many as the cores it may use"),
    BOOLEAN("run.oversubscribe", run.oversubscribe, "false", 0,
            "allow more threads than cores, and several ranks on one CUDA device"),

    STRING("data.train", data.train, "none", 0, WORDS("none"),
           "data set file (.h5) to train on; mdm-dist data import makes one"),
    STRING("data.test", data.test, "none", 0, WORDS("none"),
           "data set file to measure on; none: the test set inside data.train"),
    KEY("data.validation", FRACTION_OR_FILE, data.validation, "none", 0, 1, LOW | HIGH | HASHED,
        WORDS("none"), "",
        "clean data set file, or fraction of data.train held out; only with it is there a best model and "
        "early stopping"),
    WORD("data.resident", data.resident, 0,
         "where pictures are kept: in a CUDA device's memory, in the node's, or in the file (stream); auto: "
         "the "
         "first of them with room",
         "auto", "auto", "device", "host", "stream"),
    WORD("data.shuffle", data.shuffle, HASHED,
         "order of an epoch; blocks reads runs of neighbours in random order and mixes within 128 MiB: for "
         "data sets beyond memory",
         "full", "full", "blocks"),

    WORD("model.arch", model.arch, HASHED, "network; resnet18 and resnet50 have the ImageNet stem",
         "preact_resnet18", "preact_resnet10", "preact_resnet18", "preact_resnet34", "preact_resnet50",
         "preact_resnet101", "resnet18", "resnet50"),
    INTEGER("model.width", model.width, "64", 1, 1024, HASHED, "channels", "channels of the first stage"),
    INTEGER("model.projection", model.projection, "128", 1, 65536, HASHED, "numbers",
            "length of the contrastive projection"),
    INTEGER("model.networks", model.networks, "2", 1, 2, HASHED, "",
            "2: each network divides the data for the other; 1: for itself"),
    STRING("model.init", model.init, "none", HASHED, WORDS("none"),
           "safetensors file with an encoder to start from"),
    REAL("model.ema", model.ema, "0", 0, 1, HIGH | HASHED, "",
         "decay of averaged weights, which guess for the other network and are evaluated; 0: off"),

    INTEGER("train.epochs", train.epochs, "300", 1, 1000000, HASHED, "epochs",
            "all epochs, warm-up included"),
    INTEGER("train.warmup", train.warmup, "20", 0, 1000000, HASHED, "epochs",
            "supervised epochs before the first division"),
    INTEGER("train.batch", train.batch, "64", 1, 1048576, HASHED, "samples",
            "labelled samples of a step over all ranks; as many unlabelled ones join them"),
    BOOLEAN("train.cuda_graph", train.cuda_graph, "true", 0,
            "CUDA: steps are recorded as graphs and replayed; false: they are launched kernel by kernel"),
    KEY("train.micro_batch", INTEGER, train.micro_batch, "auto", 1, 1048576, 0, WORDS("auto"), "samples",
        "samples (of each view) a rank computes at once; auto: its whole share, or what memory allows"),
    INTEGER(
        "train.evaluate_every", train.evaluate_every, "1", 1, 1000000, 0, "epochs",
        "epochs between measurements on test and validation set; a stage's last epoch is always measured"),
    INTEGER(
        "train.patience", train.patience, "0", 0, 1000000, HASHED, "epochs",
        "with data.validation: training ends after so many epochs without a better accuracy there; 0: never"),
    REAL("train.lr_backbone", train.lr_backbone, "0.02", 0, 100, HASHED, "",
         "first learning rate of the encoder"),
    REAL("train.lr_head", train.lr_head, "0.05", 0, 100, LOW | HASHED, "",
         "first learning rate of classifier and projection"),
    REAL("train.momentum", train.momentum, "0.9", 0, 1, HIGH | HASHED, "", "momentum of SGD"),
    REAL("train.weight_decay", train.weight_decay, "0.0005", 0, 1, HASHED, "",
         "weight decay on all parameters"),
    REAL("train.rce_weight", train.rce_weight, "1", 0, 1000, HASHED, "",
         "weight of the reverse cross entropy in warm-up; less of it serves short runs and hard classes"),
    WORD("train.schedule", train.schedule, HASHED, "course of the learning rates, to 0 at the last epoch",
         "cosine", "cosine"),
    WORD("train.precision", train.precision, HASHED,
         "auto: fp32 on CPU, bf16 on CUDA; tf32: CUDA's fp32 with faster products; "
         "prefer_bf16: where all ranks have it, else fp32",
         "auto", "auto", "fp32", "bf16", "tf32", "prefer_bf16"),
    WORD("train.batchnorm", train.batchnorm, HASHED,
         "batch statistics over all ranks, over one rank, or frozen as the trained start left them", "sync",
         "sync", "local", "frozen"),
    INTEGER("train.crop_padding", train.crop_padding, "4", 0, 1024, HASHED, "pixels",
            "black border added before the random crop"),

    INTEGER("pretrain.epochs", pretrain.epochs, "0", 0, 1000000, HASHED, "epochs",
            "self-supervised (SimCLR) epochs before training; 0: none"),
    INTEGER("pretrain.batch", pretrain.batch, "256", 2, 1048576, HASHED, "samples",
            "samples of a pretraining step over all ranks, two views each"),
    REAL("pretrain.lr", pretrain.lr, "0.05", 0, 100, LOW | HASHED, "", "first learning rate of pretraining"),
    REAL("pretrain.momentum", pretrain.momentum, "0.9", 0, 1, HIGH | HASHED, "",
         "momentum of SGD in pretraining"),
    REAL("pretrain.weight_decay", pretrain.weight_decay, "0.0001", 0, 1, HASHED, "",
         "weight decay in pretraining"),
    REAL("pretrain.temperature", pretrain.temperature, "0.5", 0.001, 100, HASHED, "",
         "temperature of the contrastive loss in pretraining"),

    INTEGER("divide.interval", divide.interval, "10", 1, 1000000, HASHED, "epochs",
            "epochs from one division to the next"),
    INTEGER("divide.k", divide.k, "10", 1, 1000, HASHED, "neighbours",
            "nearest neighbours of the out-of-distribution score"),
    WORD("divide.metric", divide.metric, HASHED, "distance of the out-of-distribution score", "cosine",
         "cosine"),
    WORD("divide.ood_scores", divide.ood_scores, HASHED,
         "out-of-distribution scores that count: of the latest division, or of the first, before training "
         "fits strangers",
         "latest", "latest", "first"),
    WORD("divide.ood_neighbours", divide.ood_neighbours, HASHED,
         "nearest neighbours among all samples, or among those that the losses' mixture finds clean", "all",
         "all", "clean"),
    REAL("divide.remove_first", divide.remove_first, "0.1", 0, 1, HIGH | HASHED, "share",
         "share of the samples removed as out of distribution before warm-up; in all at most half"),
    REAL("divide.remove_step", divide.remove_step, "0.01", 0, 1, HIGH | HASHED, "share",
         "share removed in addition at every division"),
    REAL("divide.loss_limit", divide.loss_limit, "0", 0, 1e6, HASHED, "times log(classes)",
         "losses are cut here for the mixture, 1: a guess's; keeps hard classes from being taken for noise; "
         "0: off"),
    REAL("divide.threshold", divide.threshold, "0.3", 0, 1, LOW | HIGH | HASHED, "",
         "clean probability above which a sample keeps its label"),
    INTEGER("divide.gmm_iterations", divide.gmm_iterations, "20", 1, 100000, HASHED, "iterations",
            "most iterations of the mixture fit"),
    REAL("divide.gmm_tolerance", divide.gmm_tolerance, "0.01", 0, 1, HASHED, "nats",
         "gain in mean log-likelihood below which the fit stops"),
    REAL("divide.gmm_floor", divide.gmm_floor, "0.0005", 0, 1, LOW | HASHED, "",
         "added to the variances of the mixture, losses being scaled to [0, 1]"),
    WORD("divide.save", divide.save, 0,
         "what divisions/ keeps: scores, or also embeddings, logits and weights", "scores", "scores", "all"),

    REAL("semi.temperature", semi.temperature, "0.5", 0, 100, LOW | HASHED, "",
         "sharpening of guessed targets; smaller is sharper"),
    REAL("semi.alpha", semi.alpha, "4", 0, 1000, LOW | HASHED, "",
         "mixing weights are drawn from Beta(alpha, alpha)"),
    REAL("semi.confidence", semi.confidence, "0.9", 0, 1, HIGH | HASHED, "",
         "sharpened guesses below it do not count; 0: all do"),
    INTEGER("semi.rampup", semi.rampup, "16", 0, 1000000, HASHED, "epochs",
            "epochs after warm-up in which lambda_u and lambda_ue grow to full weight; 0: at once"),
    WORD("semi.supervised", semi.supervised, HASHED,
         "loss of the labelled part: symmetric or plain cross entropy", "sce", "sce", "ce"),
    REAL("semi.rce_weight", semi.rce_weight, "1", 0, 1000, HASHED, "",
         "weight of the reverse cross entropy in the labelled loss; the public code amounts to 0.11"),
    WORD("semi.views", semi.views, HASHED, "views that are mixed: with AutoAugment or crop and flip only",
         "strong", "strong", "weak"),
    REAL("semi.lambda_x", semi.lambda_x, "1", 0, 1e6, HASHED, "",
         "weight of the labelled loss, mixed pictures"),
    REAL("semi.lambda_u", semi.lambda_u, "25", 0, 1e6, HASHED, "",
         "weight of the unlabelled loss, mixed pictures; 0 is best at low noise"),
    REAL("semi.lambda_xe", semi.lambda_xe, "1", 0, 1e6, HASHED, "",
         "weight of the labelled loss, mixed embeddings"),
    REAL("semi.lambda_ue", semi.lambda_ue, "25", 0, 1e6, HASHED, "",
         "weight of the unlabelled loss, mixed embeddings"),
    REAL("semi.lambda_c", semi.lambda_c, "1", 0, 1e6, HASHED, "",
         "weight of the contrastive loss on unlabelled views"),
    REAL("semi.contrast_temperature", semi.contrast_temperature, "0.05", 0.001, 100, HASHED, "",
         "temperature of the contrastive loss"),

    INTEGER("checkpoint.every", checkpoint.every, "1", 1, 1000000, 0, "epochs", "epochs between checkpoints"),
    REAL("checkpoint.minutes", checkpoint.minutes, "15", 0, 1e6, 0, "minutes",
         "longest time between checkpoints; 0: by epochs only"),
    INTEGER("checkpoint.keep", checkpoint.keep, "2", 1, 1000000, 0, "files", "newest checkpoints kept"),
};

_Static_assert(sizeof keys / sizeof keys[0] <= MDM_CONFIG_MOST_KEYS, "more keys than there is room for");

int mdm_config_key_count(void) {
    return (int)(sizeof keys / sizeof keys[0]);
}

const mdm_config_key *mdm_config_key_at(int index) {
    return index >= 0 && index < mdm_config_key_count() ? &keys[index] : NULL;
}

const mdm_config_key *mdm_config_find(const char *name) {
    for (int i = 0; i < mdm_config_key_count(); i++)
        if (strcmp(keys[i].name, name) == 0) return &keys[i];
    return NULL;
}

/* Settings that are each allowed but do not go together, or do not fit the data or the ranks: found before
 * anything starts.
 *
 * Every message names both keys, their values and the way out.
 */
#include "config_internal.h"
#include <string.h>

/* Divisions of the whole run: at the end of warm-up, and in later epochs that the interval divides. */
static int64_t divisions(const mdm_config *config) {
    int warmup = config->train.warmup, last = config->train.epochs - 1, interval = config->divide.interval;
    return last >= warmup ? 1 + last / interval - warmup / interval : 0;
}

static mdm_status check_training(const mdm_config *config) {
    if (config->train.warmup > config->train.epochs)
        return mdm_fail(MDM_USAGE,
                        "train.warmup is %d and train.epochs is %d, which counts the warm-up too; allowed is "
                        "train.warmup <= train.epochs",
                        config->train.warmup, config->train.epochs);
    if (config->train.micro_batch > config->train.batch)
        return mdm_fail(MDM_USAGE,
                        "train.micro_batch is %d and train.batch is %d; allowed is train.micro_batch <= "
                        "train.batch, or auto",
                        config->train.micro_batch, config->train.batch);
    if (config->train.batchnorm == MDM_CONFIG_BATCHNORM_FROZEN && config->pretrain.epochs == 0 &&
        config->model.init[0] == '\0')
        return mdm_fail(MDM_USAGE,
                        "train.batchnorm is frozen, but nothing gives it statistics to freeze; set "
                        "pretrain.epochs above 0 or model.init to a file, or train.batchnorm to sync");
    if (config->data.resident == MDM_CONFIG_RESIDENT_DEVICE && config->device == MDM_CONFIG_DEVICE_CPU)
        return mdm_fail(MDM_USAGE,
                        "data.resident is device and device is cpu; allowed is data.resident auto, host or "
                        "stream there");
    return MDM_OK;
}

static mdm_status check_division(const mdm_config *config) {
    int64_t count = divisions(config);
    double removed = config->divide.remove_first + (double)count * config->divide.remove_step;
    if (removed >= 1)
        return mdm_fail(MDM_USAGE,
                        "divide.remove_first is %g and divide.remove_step is %g, which over %lld divisions "
                        "removes every sample; allowed is a sum below 1",
                        config->divide.remove_first, config->divide.remove_step, (long long)count);
    const double sum = config->semi.lambda_x + config->semi.lambda_u + config->semi.lambda_xe +
                       config->semi.lambda_ue + config->semi.lambda_c;
    if (count > 0 && sum == 0)
        return mdm_fail(
            MDM_USAGE, "semi.lambda_x, _u, _xe, _ue and _c are all 0, so that nothing would be learned after "
                       "train.warmup; set one above 0");
    return MDM_OK;
}

mdm_status mdm_config_check(const mdm_config *config) {
    if (config->data.train[0] == '\0')
        return mdm_fail(
            MDM_USAGE,
            "data.train is none, so that there is nothing to train on; name a data set file, as in "
            "data.train=FILE.h5 (mdm-dist data import makes one)");
    if (strcmp(config->data.validation, config->data.train) == 0)
        return mdm_fail(
            MDM_USAGE,
            "data.validation and data.train are both '%s'; allowed is another file, or a fraction "
            "of the training file such as 0.1",
            config->data.train);
    MDM_TRY(check_training(config));
    return check_division(config);
}

/* Training samples left when data.validation holds out a fraction. */
static int64_t training_samples(const mdm_config *config, int64_t samples) {
    double fraction = 0;
    mdm_config_validation(config, &fraction);
    return samples - (int64_t)((double)samples * fraction);
}

mdm_status mdm_config_check_data(const mdm_config *config, int64_t samples, int classes, int height,
                                 int width) {
    int64_t count = training_samples(config, samples);
    const char *kept = count < samples ? " after data.validation took its part" : "";
    if (classes < 2)
        return mdm_fail(MDM_USAGE, "data.train '%s' has %d class; allowed are 2 or more", config->data.train,
                        classes);
    if (config->train.batch > count)
        return mdm_fail(MDM_USAGE,
                        "train.batch is %d, but data.train has %lld samples%s; allowed is at most that many",
                        config->train.batch, (long long)count, kept);
    if (config->pretrain.epochs > 0 && config->pretrain.batch > count)
        return mdm_fail(
            MDM_USAGE,
            "pretrain.batch is %d, but data.train has %lld samples%s; allowed is at most that many",
            config->pretrain.batch, (long long)count, kept);
    if (config->divide.k >= count)
        return mdm_fail(MDM_USAGE,
                        "divide.k is %d, but data.train has %lld samples%s; allowed is less than that",
                        config->divide.k, (long long)count, kept);
    int stem = config->model.arch == MDM_CONFIG_RESNET18 || config->model.arch == MDM_CONFIG_RESNET50;
    int least = stem ? 32 : 8, side = height < width ? height : width;
    if (side < least) {
        char arch[64];
        return mdm_fail(
            MDM_USAGE, "model.arch %s needs pictures of at least %dx%d pixels; those of data.train are %dx%d",
            mdm_config_get(config, "model.arch", arch, sizeof arch), least, least, height, width);
    }
    if (config->train.crop_padding > side)
        return mdm_fail(
            MDM_USAGE,
            "train.crop_padding is %d, but pictures are %dx%d; allowed is at most the shorter side",
            config->train.crop_padding, height, width);
    return MDM_OK;
}

mdm_status mdm_config_check_ranks(const mdm_config *config, int ranks) {
    if (config->train.batch < ranks)
        return mdm_fail(MDM_USAGE,
                        "train.batch is %d over all ranks, but there are %d ranks; allowed is at least one "
                        "sample a rank: raise train.batch or start fewer ranks",
                        config->train.batch, ranks);
    if (config->pretrain.epochs > 0 && config->pretrain.batch < ranks)
        return mdm_fail(
            MDM_USAGE,
            "pretrain.batch is %d over all ranks, but there are %d ranks; allowed is at least one "
            "sample a rank: raise pretrain.batch or start fewer ranks",
            config->pretrain.batch, ranks);
    return MDM_OK;
}

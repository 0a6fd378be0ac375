/* The configuration: every key through every way in and out, and what does not go together. */
#include "config_test.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Another allowed value of `key` than its default. */
static void other_value(const mdm_config_key *key, char out[64]) {
    switch (key->type) {
    case MDM_CONFIG_INTEGER:
        snprintf(out, 64, "%d", atoi(key->initial) == 2 ? 1 : 2);
        break;
    case MDM_CONFIG_INTEGER64:
        snprintf(out, 64, "9223372036854775807");
        break;
    case MDM_CONFIG_REAL:
        snprintf(out, 64, "0.12345678901234567");
        break;
    case MDM_CONFIG_BOOLEAN:
        snprintf(out, 64, "%s", strcmp(key->initial, "true") == 0 ? "false" : "true");
        break;
    case MDM_CONFIG_WORD: {
        int last = 0;
        while (key->words[last + 1] != NULL) last++;
        snprintf(out, 64, "%s", key->words[last]);
        break;
    }
    default:
        snprintf(out, 64, "%s", "it's a: 'name' # with\"all\\ {of} [it], \xC3\xA9");
        break;
    }
}

/* ---- values ---- */

static void the_defaults_are_those_of_the_contract(void **state) {
    (void)state;
    static mdm_config config;
    mdm_config_defaults(&config);
    assert_int_equal(config.seed, 1);
    assert_int_equal(config.model.arch, MDM_CONFIG_PREACT_RESNET18);
    assert_int_equal(config.model.width, 64);
    assert_int_equal(config.model.projection, 128);
    assert_int_equal(config.model.networks, 2);
    assert_int_equal(config.train.epochs, 300);
    assert_int_equal(config.train.warmup, 20);
    assert_int_equal(config.train.batch, 64);
    assert_int_equal(config.train.micro_batch, 0);
    assert_true(config.train.weight_decay == 5e-4);
    assert_true(config.train.momentum == 0.9);
    assert_int_equal(config.train.batchnorm, MDM_CONFIG_BATCHNORM_SYNC);
    assert_int_equal(config.divide.interval, 10);
    assert_int_equal(config.divide.k, 10);
    assert_true(config.divide.remove_first == 0.1 && config.divide.remove_step == 0.01);
    assert_true(config.divide.threshold == 0.3 && config.divide.gmm_tolerance == 1e-2);
    assert_int_equal(config.divide.gmm_iterations, 20);
    assert_true(config.semi.temperature == 0.5 && config.semi.alpha == 4 && config.semi.confidence == 0.9);
    assert_int_equal(config.semi.rampup, 16);
    assert_int_equal(config.semi.supervised, MDM_CONFIG_SUPERVISED_SCE);
    assert_int_equal(config.semi.views, MDM_CONFIG_VIEWS_STRONG);
    assert_true(config.semi.contrast_temperature == 0.05);
    assert_int_equal(config.checkpoint.keep, 2);
    assert_true(config.checkpoint.minutes == 15);
    assert_true(config.report == 1 && config.tensorboard == 1);
    assert_string_equal(config.resume, "auto");
    assert_string_equal(config.data.test, "");
    assert_string_equal(config.model.init, "");
}

static void every_default_comes_back_through_yaml(void **state) {
    (void)state;
    static mdm_config config;
    mdm_config_defaults(&config);
    assert_round_trip(&config);
}

static void numbers_with_an_exponent_are_written_with_a_point(void **state) {
    (void)state;
    static mdm_config config;
    char got[MDM_CONFIG_TEXT];
    mdm_config_defaults(&config);
    assert_int_equal(mdm_config_set(&config, "divide.gmm_floor=0.00002"), MDM_OK);
    assert_string_equal(mdm_config_get(&config, "divide.gmm_floor", got, sizeof got), "2.0e-05");
    assert_round_trip(&config); /* YAML 1.1 takes 2e-05 for a text */
}

static void every_other_value_comes_back_through_yaml_and_touches_one_key(void **state) {
    (void)state;
    static mdm_config config, plain;
    char value[64], argument[256], got[MDM_CONFIG_TEXT];
    mdm_config_defaults(&plain);
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        other_value(key, value);
        snprintf(argument, sizeof argument, "%s=%s", key->name, value);
        mdm_config_defaults(&config);
        if (mdm_config_set(&config, argument) != MDM_OK) fail_msg("%s", mdm_last_message());
        assert_non_null(mdm_config_get(&config, key->name, got, sizeof got));
        if (key->type != MDM_CONFIG_REAL) assert_string_equal(got, value);
        int changed = 0;
        for (int j = 0; j < mdm_config_key_count(); j++) {
            char a[MDM_CONFIG_TEXT], b[MDM_CONFIG_TEXT];
            const char *name = mdm_config_key_at(j)->name;
            changed += strcmp(mdm_config_get(&config, name, a, sizeof a),
                              mdm_config_get(&plain, name, b, sizeof b)) != 0;
        }
        int only_value = key->type == MDM_CONFIG_WORD && key->words[1] == NULL;
        assert_int_equal(changed, only_value ? 0 : 1);
        assert_round_trip(&config);
    }
}

static void words_and_the_struct_enumerations_agree(void **state) {
    (void)state;
    static mdm_config config;
    mdm_config_defaults(&config);
    static const struct {
        const char *argument;
        size_t offset;
        int value;
    } cases[] = {
        {"device=cuda", offsetof(mdm_config, device), MDM_CONFIG_DEVICE_CUDA},
        {"baseline=sce", offsetof(mdm_config, baseline), MDM_CONFIG_BASELINE_SCE},
        {"data.resident=stream", offsetof(mdm_config, data.resident), MDM_CONFIG_RESIDENT_STREAM},
        {"data.shuffle=blocks", offsetof(mdm_config, data.shuffle), MDM_CONFIG_SHUFFLE_BLOCKS},
        {"model.arch=preact_resnet10", offsetof(mdm_config, model.arch), MDM_CONFIG_PREACT_RESNET10},
        {"model.arch=preact_resnet34", offsetof(mdm_config, model.arch), MDM_CONFIG_PREACT_RESNET34},
        {"model.arch=preact_resnet50", offsetof(mdm_config, model.arch), MDM_CONFIG_PREACT_RESNET50},
        {"model.arch=preact_resnet101", offsetof(mdm_config, model.arch), MDM_CONFIG_PREACT_RESNET101},
        {"model.arch=resnet18", offsetof(mdm_config, model.arch), MDM_CONFIG_RESNET18},
        {"model.arch=resnet50", offsetof(mdm_config, model.arch), MDM_CONFIG_RESNET50},
        {"train.precision=bf16", offsetof(mdm_config, train.precision), MDM_CONFIG_PRECISION_BF16},
        {"train.batchnorm=local", offsetof(mdm_config, train.batchnorm), MDM_CONFIG_BATCHNORM_LOCAL},
        {"train.batchnorm=frozen", offsetof(mdm_config, train.batchnorm), MDM_CONFIG_BATCHNORM_FROZEN},
        {"divide.save=all", offsetof(mdm_config, divide.save), MDM_CONFIG_SAVE_ALL},
        {"semi.supervised=ce", offsetof(mdm_config, semi.supervised), MDM_CONFIG_SUPERVISED_CE},
        {"semi.views=weak", offsetof(mdm_config, semi.views), MDM_CONFIG_VIEWS_WEAK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int value = -1;
        assert_int_equal(mdm_config_set(&config, cases[i].argument), MDM_OK);
        memcpy(&value, (char *)&config + cases[i].offset, sizeof value);
        assert_int_equal(value, cases[i].value);
    }
}

static void every_number_refuses_what_is_outside_its_range_or_no_number(void **state) {
    (void)state;
    static const char *const garbage[] = {"",
                                          "nan",
                                          "inf",
                                          "-inf",
                                          "1e400",
                                          "1e-400",
                                          "-0",
                                          "abc",
                                          "1 ",
                                          " 1",
                                          "0x10",
                                          "1_000",
                                          "1,5",
                                          "--1",
                                          "1e",
                                          ".",
                                          "+",
                                          "1.2.3",
                                          "true",
                                          "null",
                                          "~",
                                          "9223372036854775808",
                                          "-9223372036854775809"};
    char argument[256];
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        int whole = key->type == MDM_CONFIG_INTEGER || key->type == MDM_CONFIG_INTEGER64;
        if (!whole && key->type != MDM_CONFIG_REAL) continue;
        for (size_t g = 0; g < sizeof garbage / sizeof garbage[0]; g++) {
            snprintf(argument, sizeof argument, "%s=%s", key->name, garbage[g]);
            assert_argument_refused(argument, key->name);
        }
        if (whole) {
            snprintf(argument, sizeof argument, "%s=1.5", key->name);
            assert_argument_refused(argument, "not a whole number");
            snprintf(argument, sizeof argument, "%s=010", key->name); /* eight or ten? */
            assert_argument_refused(argument, "not a whole number");
        }
        if (key->type == MDM_CONFIG_INTEGER64) continue;
        double step = whole ? 1 : 1e-3;
        int open_low = key->flags & MDM_CONFIG_OPEN_LOW, open_high = key->flags & MDM_CONFIG_OPEN_HIGH;
        int zero_has_a_word = key->words != NULL;
        assert_true(key->low < key->high);
        if (!(zero_has_a_word && key->low - step == 0)) {
            snprintf(argument, sizeof argument, "%s=%.17g", key->name, open_low ? key->low : key->low - step);
            assert_argument_refused(argument, "out of range");
        }
        snprintf(argument, sizeof argument, "%s=%.17g", key->name, open_high ? key->high : key->high + step);
        assert_argument_refused(argument, "out of range");
        static mdm_config config;
        mdm_config_defaults(&config);
        snprintf(argument, sizeof argument, "%s=%.17g", key->name, open_low ? key->low + step : key->low);
        assert_int_equal(mdm_config_set(&config, argument), MDM_OK);
        snprintf(argument, sizeof argument, "%s=%.17g", key->name, open_high ? key->high - step : key->high);
        assert_int_equal(mdm_config_set(&config, argument), MDM_OK);
    }
}

static void words_switches_and_names_refuse_what_they_do_not_know(void **state) {
    (void)state;
    char argument[MDM_CONFIG_TEXT * 2];
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        if (key->type == MDM_CONFIG_WORD || key->type == MDM_CONFIG_BOOLEAN) {
            snprintf(argument, sizeof argument, "%s=Rubbish", key->name);
            assert_argument_refused(argument, key->type == MDM_CONFIG_WORD ? key->words[0] : "true or false");
        }
        if (key->type != MDM_CONFIG_STRING && key->type != MDM_CONFIG_FRACTION_OR_FILE) continue;
        snprintf(argument, sizeof argument, "%s=", key->name);
        assert_argument_refused(argument, "empty");
        snprintf(argument, sizeof argument, "%s=a\nb", key->name);
        assert_argument_refused(argument, "unprintable");
        snprintf(argument, sizeof argument, "%s=\xC3(", key->name);
        assert_argument_refused(argument, "unprintable");
        size_t start = (size_t)snprintf(argument, sizeof argument, "%s=", key->name);
        memset(argument + start, 'x', MDM_CONFIG_TEXT);
        argument[start + MDM_CONFIG_TEXT] = '\0';
        assert_argument_refused(argument, "too long");
        static mdm_config config;
        mdm_config_defaults(&config);
        argument[start + MDM_CONFIG_TEXT - 1] = '\0'; /* the longest that fits */
        assert_int_equal(mdm_config_set(&config, argument), MDM_OK);
        assert_round_trip(&config);
    }
    assert_argument_refused("report=yes", "true or false");
    assert_argument_refused("semi.views=medium", "strong or weak");
    assert_argument_refused("divide.threshold=1", "above 0 and below 1");
}

static void a_message_names_argument_key_value_and_what_is_allowed(void **state) {
    (void)state;
    assert_argument_refused("train.epochs=many", "argument 'train.epochs=many'");
    assert_argument_refused("train.epochs=many", "train.epochs is 'many'");
    assert_argument_refused("train.epochs=many", "a whole number from 1 to 1000000");
    assert_argument_refused("divide.remove_first=1.5", "a number from 0 to below 1");
    assert_argument_refused("semi.contrast_temperature=1e-40", "a number from 0.001 to 100");
    assert_argument_refused("pretrain.temperature=1e-40", "a number from 0.001 to 100");
    assert_argument_refused("run.threads=0", "auto, or a whole number from 1");
    assert_refused("seed: 1\ntrain:\n  epochs: many\n", "some/test.yaml:3: train.epochs is 'many'");
}

static void validation_is_none_a_fraction_or_a_file(void **state) {
    (void)state;
    static mdm_config config;
    double fraction = -1;
    mdm_config_defaults(&config);
    assert_int_equal(mdm_config_validation(&config, &fraction), MDM_VALIDATION_NONE);
    assert_true(fraction == 0);
    assert_int_equal(mdm_config_set(&config, "data.validation=0.1"), MDM_OK);
    assert_int_equal(mdm_config_validation(&config, &fraction), MDM_VALIDATION_FRACTION);
    assert_true(fraction == 0.1);
    assert_int_equal(mdm_config_set(&config, "data.validation=clean.h5"), MDM_OK);
    assert_int_equal(mdm_config_validation(&config, NULL), MDM_VALIDATION_FILE);
    assert_int_equal(mdm_config_set(&config, "data.validation=none"), MDM_OK);
    assert_string_equal(config.data.validation, "");
    assert_argument_refused("data.validation=1.5", "out of range");
    assert_argument_refused("data.validation=0", "out of range");
    assert_argument_refused("data.validation=-0.1", "out of range");
}
static void every_file_in_configs_reads_and_checks(void **state) {
    (void)state;
    static mdm_config config;
    DIR *folder = opendir(MDM_CONFIGS_FOLDER);
    assert_non_null(folder);
    int files = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[1024], run[600];
        if (strstr(entry->d_name, ".yaml") == NULL) continue;
        snprintf(path, sizeof path, "%s/%s", MDM_CONFIGS_FOLDER, entry->d_name);
        mdm_config_defaults(&config);
        if (mdm_config_read_yaml(&config, path) != MDM_OK || mdm_config_check(&config) != MDM_OK)
            fail_msg("%s: %s", path, mdm_last_message());
        assert_memory_equal(config.data.train, "datasets/", 9);
        snprintf(run, sizeof run, "runs/%.*s", (int)strlen(entry->d_name) - 5, entry->d_name);
        assert_string_equal(config.run.folder, run);
        assert_int_equal(mdm_config_check_data(&config, 50000, 10, 32, 32), MDM_OK);
        assert_int_equal(mdm_config_check_ranks(&config, 8), MDM_OK);
        assert_round_trip(&config);
        files++;
    }
    closedir(folder);
    assert_true(files >= 5);
}

static void the_built_in_run_is_configs_quickstart(void **state) {
    (void)state;
    static mdm_config built_in, file;
    assert_int_equal(mdm_config_quickstart(&built_in), MDM_OK);
    mdm_config_defaults(&file);
    assert_int_equal(mdm_config_read_yaml(&file, MDM_CONFIGS_FOLDER "/quickstart.yaml"), MDM_OK);
    assert_same(&built_in, &file);
    assert_string_equal(built_in.run.folder, "runs/quickstart");
    assert_int_equal(mdm_config_check(&built_in), MDM_OK);
}

static void the_template_is_the_one_the_table_gives(void **state) {
    (void)state;
    static mdm_config config, plain;
    char *content = NULL;
    size_t bytes = 0;
    mdm_text text = {0};
    mdm_config_write_template(&text);
    assert_false(text.failed);
    assert_int_equal(mdm_read_file(MDM_CONFIGS_FOLDER "/template.yaml", 1 << 20, &content, &bytes), MDM_OK);
    if (bytes != text.length || memcmp(content, text.data, bytes) != 0)
        fail_msg("configs/template.yaml is out of date: build the target config_template");
    mdm_config_defaults(&config);
    plain = config;
    assert_int_equal(mdm_config_read_text(&config, content, bytes, "mdm-dist.yaml"), MDM_OK);
    assert_int_equal(mdm_config_set(&plain, "data.train=datasets/my-data.h5"), MDM_OK);
    assert_same(&config, &plain);
    free(content);
    free(text.data);
}

static void the_help_names_every_key_with_default_and_meaning(void **state) {
    (void)state;
    char *text = NULL, line[256];
    size_t length = 0;
    FILE *file = open_memstream(&text, &length);
    assert_non_null(file);
    mdm_config_help(file);
    fclose(file);
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        snprintf(line, sizeof line, "\n%s [%s]\n    %.20s", key->name, key->initial, key->meaning);
        if (strstr(text, line) == NULL) fail_msg("the help lacks %s", key->name);
    }
    for (const char *start = text, *end; (end = strchr(start, '\n')) != NULL; start = end + 1)
        assert_true(end - start <= 120);
    free(text);
}

/* ---- combinations, hash ---- */

typedef struct combination {
    const char *arguments[5];
    const char *first, *second; /* the keys the message must name */
} combination;

static void apply(mdm_config *config, const combination *c) {
    mdm_config_defaults(config);
    assert_int_equal(mdm_config_set(config, "data.train=x.h5"), MDM_OK);
    for (int i = 0; i < 5 && c->arguments[i] != NULL; i++)
        if (mdm_config_set(config, c->arguments[i]) != MDM_OK) fail_msg("%s", mdm_last_message());
}

static void settings_that_contradict_each_other_are_refused_naming_both(void **state) {
    (void)state;
    static mdm_config config;
    static const combination cases[] = {
        {{"data.train=none"}, "data.train", "FILE.h5"},
        {{"data.validation=x.h5"}, "data.validation", "data.train"},
        {{"train.epochs=5", "train.warmup=6"}, "train.warmup", "train.epochs"},
        {{"train.batch=64", "train.micro_batch=65"}, "train.micro_batch", "train.batch"},
        {{"train.batchnorm=frozen"}, "train.batchnorm", "pretrain.epochs"},
        {{"data.resident=device", "device=cpu"}, "data.resident", "device"},
        {{"divide.remove_first=0.5", "divide.interval=1", "divide.remove_step=0.002"},
         "divide.remove_first",
         "divide.remove_step"},
        {{"divide.remove_first=0.5", "divide.remove_step=0.26", "train.warmup=9",
          "train.epochs=11"}, /* at 9, 10 */
         "divide.remove_first",
         "2 divisions"},
        {{"semi.lambda_x=0", "semi.lambda_u=0", "semi.lambda_xe=0", "semi.lambda_ue=0", "semi.lambda_c=0"},
         "semi.lambda_x",
         "train.warmup"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        apply(&config, &cases[i]);
        if (mdm_config_check(&config) != MDM_USAGE) fail_msg("case %zu was accepted", i);
        assert_message_has(cases[i].first);
        assert_message_has(cases[i].second);
    }
    static const combination good[] = {
        {{"train.epochs=5", "train.warmup=5"}, NULL, NULL},
        {{"train.batchnorm=frozen", "pretrain.epochs=1"}, NULL, NULL},
        {{"train.batchnorm=frozen", "model.init=a.safetensors"}, NULL, NULL},
        {{"divide.remove_step=0.03"}, NULL, NULL}, /* 0.1 + 28 x 0.03 = 0.94 */
        {{"baseline=both", "divide.remove_step=0.02"}, NULL, NULL},
        {{"divide.remove_first=0.5", "divide.remove_step=0.26", "train.warmup=9", "train.epochs=10"},
         NULL,
         NULL},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        apply(&config, &good[i]);
        if (mdm_config_check(&config) != MDM_OK) fail_msg("case %zu: %s", i, mdm_last_message());
    }
}

static void settings_that_do_not_fit_the_data_or_the_ranks_are_refused(void **state) {
    (void)state;
    static mdm_config config;
    apply(&config, &(combination){{"divide.k=99", "pretrain.batch=100", "pretrain.epochs=1"}, NULL, NULL});
    assert_int_equal(mdm_config_check_data(&config, 100, 2, 8, 8), MDM_OK);
    assert_int_equal(mdm_config_check_data(&config, 99, 2, 8, 8), MDM_USAGE);
    assert_message_has("pretrain.batch");
    config.pretrain.epochs = 0;
    assert_int_equal(mdm_config_check_data(&config, 99, 2, 8, 8), MDM_USAGE);
    assert_message_has("divide.k");
    assert_int_equal(mdm_config_check_data(&config, 63, 2, 8, 8), MDM_USAGE);
    assert_message_has("train.batch");
    assert_int_equal(mdm_config_check_data(&config, 100, 1, 8, 8), MDM_USAGE);
    assert_message_has("class");
    assert_int_equal(mdm_config_check_data(&config, 100, 2, 8, 7), MDM_USAGE);
    assert_message_has("8x7");
    assert_int_equal(mdm_config_set(&config, "model.arch=resnet50"), MDM_OK);
    assert_int_equal(mdm_config_check_data(&config, 100, 2, 31, 64), MDM_USAGE);
    assert_message_has("resnet50");
    assert_int_equal(mdm_config_set(&config, "train.crop_padding=33"), MDM_OK);
    assert_int_equal(mdm_config_check_data(&config, 100, 2, 32, 64), MDM_USAGE);
    assert_message_has("train.crop_padding");
    apply(&config, &(combination){{"data.validation=0.5"}, NULL, NULL});
    assert_int_equal(mdm_config_check_data(&config, 128, 2, 8, 8), MDM_OK);
    assert_int_equal(mdm_config_check_data(&config, 127, 2, 8, 8), MDM_OK); /* 63 held out, 64 left */
    assert_int_equal(mdm_config_check_data(&config, 126, 2, 8, 8), MDM_USAGE);
    assert_message_has("data.validation");
    assert_int_equal(mdm_config_check_ranks(&config, 64), MDM_OK);
    assert_int_equal(mdm_config_check_ranks(&config, 65), MDM_USAGE);
    assert_message_has("65 ranks");
    apply(&config, &(combination){{"train.batch=64", "pretrain.batch=32", "pretrain.epochs=1"}, NULL, NULL});
    assert_int_equal(mdm_config_check_ranks(&config, 33), MDM_USAGE);
    assert_message_has("pretrain.batch is 32");
}

static void the_hash_follows_the_keys_that_change_the_training_and_no_other(void **state) {
    (void)state;
    static mdm_config config;
    char value[64];
    mdm_config_defaults(&config);
    uint64_t plain = mdm_config_hash(&config);
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        if (key->type == MDM_CONFIG_WORD && key->words[1] == NULL) continue;
        mdm_config_defaults(&config);
        other_value(key, value);
        assert_int_equal(mdm_config_set_key(&config, "test", key->name, value), MDM_OK);
        int differs = mdm_config_hash(&config) != plain;
        if (differs != ((key->flags & MDM_CONFIG_TRAINING) != 0)) fail_msg("%s", key->name);
    }
    static const char *const free_keys[] = {"run",         "device",     "resume",           "run.threads",
                                            "data.train",  "report",     "checkpoint.every", "data.resident",
                                            "divide.save", "tensorboard"};
    for (size_t i = 0; i < sizeof free_keys / sizeof free_keys[0]; i++)
        for (int j = 0; j < mdm_config_key_count(); j++)
            if (strcmp(mdm_config_key_at(j)->name, free_keys[i]) == 0)
                assert_false(mdm_config_key_at(j)->flags & MDM_CONFIG_TRAINING);
}

static void every_key_has_a_field_of_its_own_and_a_line_of_meaning(void **state) {
    (void)state;
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        assert_true(strlen(key->meaning) > 10 && strlen(key->meaning) < 130);
        assert_true(key->offset < sizeof(mdm_config));
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(key->name, mdm_config_key_at(j)->name);
            assert_int_not_equal(key->offset, mdm_config_key_at(j)->offset);
        }
    }
    assert_null(mdm_config_key_at(-1));
    assert_null(mdm_config_key_at(mdm_config_key_count()));
}

static int write_template(const char *path) {
    mdm_text text = {0};
    mdm_config_write_template(&text);
    mdm_status status = text.failed ? MDM_RESOURCE : mdm_write_file(path, text.data, text.length);
    free(text.data);
    return (int)status;
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--write-template") == 0) return write_template(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_defaults_are_those_of_the_contract),
        cmocka_unit_test(every_default_comes_back_through_yaml),
        cmocka_unit_test(numbers_with_an_exponent_are_written_with_a_point),
        cmocka_unit_test(every_other_value_comes_back_through_yaml_and_touches_one_key),
        cmocka_unit_test(words_and_the_struct_enumerations_agree),
        cmocka_unit_test(every_number_refuses_what_is_outside_its_range_or_no_number),
        cmocka_unit_test(words_switches_and_names_refuse_what_they_do_not_know),
        cmocka_unit_test(a_message_names_argument_key_value_and_what_is_allowed),
        cmocka_unit_test(validation_is_none_a_fraction_or_a_file),
        cmocka_unit_test(every_file_in_configs_reads_and_checks),
        cmocka_unit_test(the_built_in_run_is_configs_quickstart),
        cmocka_unit_test(the_template_is_the_one_the_table_gives),
        cmocka_unit_test(the_help_names_every_key_with_default_and_meaning),
        cmocka_unit_test(settings_that_contradict_each_other_are_refused_naming_both),
        cmocka_unit_test(settings_that_do_not_fit_the_data_or_the_ranks_are_refused),
        cmocka_unit_test(the_hash_follows_the_keys_that_change_the_training_and_no_other),
        cmocka_unit_test(every_key_has_a_field_of_its_own_and_a_line_of_meaning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

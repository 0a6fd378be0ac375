/* Configurations as files: names, sections, and files that mean harm. */
#include "config_test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- names ---- */

static void an_unknown_key_is_answered_with_the_nearest_known_one(void **state) {
    (void)state;
    assert_argument_refused("train.epohcs=3",
                            "unknown key 'train.epohcs'; the nearest known key is train.epochs ");
    assert_argument_refused("epochs=3", "train.epochs or pretrain.epochs");
    assert_argument_refused("warmup=3", "train.warmup");
    assert_argument_refused("warmpu=3", "train.warmup");
    assert_argument_refused("devcie=cpu", "is device ");
    assert_argument_refused("semi.lambda_ux=1", "semi.lambda_u");
    assert_argument_refused("train.epochs.x=1", "train.epochs ");
    assert_argument_refused("=3", "neither");
    assert_argument_refused("train.epochs", "neither");
    assert_argument_refused("TRAIN.EPOCHS=3", "unknown key");
    assert_refused("train:\n  wramup: 3\n",
                   "some/test.yaml:2: unknown key 'train.wramup'; the nearest known key is train.warmup");
    assert_refused("trian:\n  warmup: 3\n",
                   "some/test.yaml:1: unknown section 'trian'; the nearest known one is 'train'");
    char argument[4096];
    memset(argument, 'k', sizeof argument);
    memcpy(argument + sizeof argument - 3, "=1", 3);
    assert_argument_refused(argument, "unknown key 'kkk");
    assert_argument_refused("a\x1B[31mb=1", "\\x1b[31m");
}

/* ---- YAML ---- */

static void sections_and_dotted_keys_are_the_same(void **state) {
    (void)state;
    static mdm_config nested, dotted, flow;
    mdm_config_defaults(&nested);
    dotted = flow = nested;
    assert_int_equal(read_text(&nested, "train:\n  epochs: 7\n  warmup: 2\nseed: 4\nrun.threads: 3\n"),
                     MDM_OK);
    assert_int_equal(
        read_text(&dotted, "train.epochs: 7\r\ntrain.warmup: '2'\r\nseed: 4\r\nrun.threads: 3\r\n"), MDM_OK);
    assert_int_equal(read_text(&flow, "\xEF\xBB\xBF{\"train\": {\"epochs\": 7, \"warmup\": 2}, \"seed\": 4, "
                                      "\"run\": {\"threads\": 3}}"),
                     MDM_OK);
    assert_int_equal(nested.train.epochs, 7);
    assert_int_equal(nested.run.threads, 3);
    assert_string_equal(nested.run.folder, "runs/test");
    assert_same(&nested, &dotted);
    assert_same(&nested, &flow);
}

static void a_file_leaves_the_keys_it_does_not_name(void **state) {
    (void)state;
    static mdm_config config;
    mdm_config_defaults(&config);
    assert_int_equal(mdm_config_set(&config, "seed=99"), MDM_OK);
    assert_int_equal(read_text(&config, "run: 'my runs/one'\ntrain.epochs: 7\n"), MDM_OK);
    assert_int_equal(config.seed, 99);
    assert_string_equal(config.run.folder, "my runs/one");
    assert_int_equal(read_text(&config, ""), MDM_OK);
    assert_int_equal(read_text(&config, "# nothing\n"), MDM_OK);
    assert_int_equal(read_text(&config, "---\n...\n"), MDM_OK);
    assert_int_equal(config.train.epochs, 7);
}

static void a_key_or_section_given_twice_is_refused_with_both_lines(void **state) {
    (void)state;
    assert_refused("seed: 1\n\nseed: 1\n", "some/test.yaml:3: seed is given twice, first in line 1");
    assert_refused("train:\n  epochs: 1\ntrain.epochs: 1\n",
                   "some/test.yaml:3: train.epochs is given twice, first in line 2");
    assert_refused("train:\n  epochs: 1\nseed: 2\ntrain:\n  warmup: 1\n",
                   "some/test.yaml:4: train is given twice, first in line 1");
    assert_refused("run: a\nrun:\n  threads: 1\n", "run is given twice");
}

static void what_stands_in_the_wrong_place_is_told(void **state) {
    (void)state;
    assert_refused("train: 5\n", "train is a section");
    assert_refused("train:\n", "train is a section");
    assert_refused("seed:\n  epochs: 1\n", "seed is a key");
    assert_refused("train:\n  epochs:\n    a: 1\n", "some/test.yaml:2: train.epochs is a key");
    assert_refused("seed:\n", "some/test.yaml:1: seed is '', which is empty");
    assert_refused("just words\n", "not a list of 'key: value'");
    assert_refused("- seed\n- train\n", "some/test.yaml:1: lists");
    assert_refused("train.epochs: [1, 2]\n", "lists");
    assert_refused("? {a: b}\n: 1\n", "a mapping stands where a key");
    assert_refused("? [a]\n: 1\n", "lists");
    assert_refused("seed: 1\n---\nseed: 2\n", "some/test.yaml:2: a second document");
    assert_refused("seed: 1\ntrain:\n\tepochs: 1\n", "some/test.yaml:3");
    assert_refused("seed: '1\n", "not valid YAML");
    assert_refused("\"\": 1\n", "unknown key ''");
}

static void hostile_yaml_is_refused_at_once(void **state) {
    (void)state;
    assert_refused("seed: 1\na: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n",
                   "some/test.yaml:2: lists");
    assert_refused("train: &t\n  epochs: 1\npretrain: *t\n", "anchors");
    assert_refused("seed: &s 1\n", "some/test.yaml:1: anchors");
    assert_refused("seed: *s\n", "aliases");
    assert_refused("&k seed: 1\n", "anchors");
    assert_refused("*k : 1\n", "aliases");
    assert_refused("seed: !!int 1\n", "tags");
    assert_refused("train: !!python/object:os.system {epochs: 1}\n", "tags");
    assert_refused("%TAG !e! tag:example.com,2000:\n---\nseed: 1\n", "directives");
    assert_refused("train:\n  <<: {epochs: 1}\n", "some/test.yaml:2: merge keys");
    assert_refused("<<: 1\n", "merge keys");
    assert_refused("seed: \"1\\0\"\n", "zero byte");
    assert_refused("\"se\\0ed\": 1\n", "zero byte");
    assert_refused("data.train: \"a\\eb\"\n", "unprintable");
    assert_refused("data.train: |\n  a\n  b\n", "unprintable");
    assert_refused("seed: 1\nrun: \x01\n", "some/test.yaml:2");
    assert_refused("seed: 1\n\nrun: \xFF\xFE\n", "some/test.yaml:3");
    char binary[512];
    for (size_t i = 0; i < sizeof binary; i++) binary[i] = (char)(i * 167 + 13);
    static mdm_config config;
    mdm_config_defaults(&config);
    assert_int_equal(mdm_config_read_text(&config, binary, sizeof binary, "b"), MDM_USAGE);
    assert_int_equal(mdm_config_read_text(&config, "seed: 1\0\0", 9, "b"), MDM_USAGE);
}

/* `count` times `part`, between `before` and `after`. The caller frees. */
static char *repeated(const char *before, const char *part, size_t count, const char *after) {
    size_t length = strlen(part), start = strlen(before);
    char *text = malloc(start + count * length + strlen(after) + 1);
    assert_non_null(text);
    memcpy(text, before, start);
    for (size_t i = 0; i < count; i++) memcpy(text + start + i * length, part, length);
    strcpy(text + start + count * length, after);
    return text;
}

static void deep_and_huge_yaml_is_refused_at_once(void **state) {
    (void)state;
    static const struct {
        const char *before, *part;
        size_t count;
        const char *after, *message;
    } cases[] = {
        {"", "[", 100000, "", "lists"},
        {"seed: ", "[", 100000, "", "lists"},
        {"", "{a: ", 100000, "", "unknown section"},
        {"train: ", "{train: ", 100000, "", "train.train"},
        {"", "? ", 100000, "", "mapping"},
        {"data.train: ", "x", 1000000, "\n", "bytes long"},
        {"data.train: \"", "x\\n", 300000, "\"\n", "bytes long"},
        {"", "k", 1000, ": 1\n", "bytes long"},
        {"", "k", 1000000, ": 1\n", ""},
        {"", "# comment\n", 104858, "", "larger than"},
        {"", "seed: 1\n", 100000, "", "twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *yaml = repeated(cases[i].before, cases[i].part, cases[i].count, cases[i].after);
        assert_refused(yaml, cases[i].message);
        free(yaml);
    }
}

static void every_cut_and_every_changed_byte_of_a_file_is_taken_or_refused_whole(void **state) {
    (void)state;
    static mdm_config config, before;
    mdm_text text = {0};
    mdm_config_defaults(&config);
    before = config;
    mdm_config_write(&config, &text);
    assert_false(text.failed);
    for (size_t length = 0; length < text.length; length++) {
        char *cut = malloc(length + 1); /* of that very size, so that a sanitizer sees a read beyond it */
        assert_non_null(cut);
        memcpy(cut, text.data, length);
        mdm_status status = mdm_config_read_text(&config, cut, length, "cut.yaml");
        assert_true(status == MDM_OK || status == MDM_USAGE);
        if (status != MDM_OK) assert_memory_equal(&config, &before, sizeof config);
        before = config;
        free(cut);
    }
    for (size_t i = 0; i < text.length; i++) {
        char kept = text.data[i];
        text.data[i] = (char)(kept ^ (1 << (i % 8)));
        mdm_status status = mdm_config_read_text(&config, text.data, text.length, "changed.yaml");
        assert_true(status == MDM_OK || status == MDM_USAGE);
        text.data[i] = kept;
    }
    free(text.data);
}

/* ---- files ---- */

static void a_file_that_is_no_regular_file_is_refused_without_waiting(void **state) {
    (void)state;
    static mdm_config config;
    char folder[] = "/tmp/mdm-config-XXXXXX", path[256];
    mdm_config_defaults(&config);
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/fifo.yaml", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(mdm_config_read_yaml(&config, path), MDM_USAGE);
    assert_message_has("not a regular file");
    unlink(path);
    assert_int_equal(mdm_config_read_yaml(&config, folder), MDM_USAGE);
    assert_message_has("not a regular file");
    assert_int_equal(mdm_config_read_yaml(&config, "/dev/zero"), MDM_USAGE);
    assert_int_equal(mdm_config_read_yaml(&config, path), MDM_USAGE);
    assert_message_has(path);
    snprintf(path, sizeof path, "%s/large.yaml", folder);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), 1ll << 32), 0);
    fclose(file);
    assert_int_equal(mdm_config_read_yaml(&config, path), MDM_USAGE);
    assert_message_has("larger than");
    unlink(path);
    rmdir(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_key_is_answered_with_the_nearest_known_one),
        cmocka_unit_test(sections_and_dotted_keys_are_the_same),
        cmocka_unit_test(a_file_leaves_the_keys_it_does_not_name),
        cmocka_unit_test(a_key_or_section_given_twice_is_refused_with_both_lines),
        cmocka_unit_test(what_stands_in_the_wrong_place_is_told),
        cmocka_unit_test(hostile_yaml_is_refused_at_once),
        cmocka_unit_test(deep_and_huge_yaml_is_refused_at_once),
        cmocka_unit_test(every_cut_and_every_changed_byte_of_a_file_is_taken_or_refused_whole),
        cmocka_unit_test(a_file_that_is_no_regular_file_is_refused_without_waiting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

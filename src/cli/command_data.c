/* mdm-dist data import | noise | info: makes data set files and looks at them. */
#include "commands.h"
#include "manual.h"
#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include "mdm/data/import.h"
#include "mdm/data/noise.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_HELD_OUT = 64 };

static mdm_status read_hold_out(const char *text, int classes[MOST_HELD_OUT], int *count) {
    for (const char *at = text; *at;) {
        char *end;
        long value = strtol(at, &end, 10);
        if (end == at || (*end && *end != ',') || value < 0 || value > 1000000 || *count == MOST_HELD_OUT)
            return mdm_fail(
                MDM_USAGE, "--hold-out %s: expected class numbers with commas between them, as in 8,9", text);
        classes[(*count)++] = (int)value;
        at = *end ? end + 1 : end;
    }
    return MDM_OK;
}

static int is_given(const mdm_arguments *a, const char *option) {
    return mdm_arguments_get(a, option) != NULL;
}

/* The format of that name; MDM_IMPORT_AUTO for NULL. */
static mdm_import_format format_of(const char *name) {
    static const char *const names[] = {"idx", "cifar10", "cifar100", "folder", "list", "metadata"};
    for (int i = 0; name && i < 6; i++)
        if (strcmp(name, names[i]) == 0) return (mdm_import_format)(i + 1);
    return MDM_IMPORT_AUTO;
}

/* Before the work, not after it. `path` may be NULL. */
static mdm_status refuse_existing(const char *path, int force) {
    struct stat state;
    if (force || !path || stat(path, &state) != 0) return MDM_OK;
    if (S_ISFIFO(state.st_mode) || S_ISCHR(state.st_mode)) return MDM_OK; /* refused where it is written */
    return mdm_fail(MDM_USAGE, "%s exists; --force replaces it", path);
}

static mdm_status run_import(const mdm_arguments *a) {
    const char *on_error = mdm_arguments_get(a, "--on-error"), *out = a->words[1];
    int force = is_given(a, "--force");
    long long size, threads;
    mdm_dataset *d;
    MDM_TRY(mdm_arguments_integer(a, "--size", 1, 4096, 0, &size));
    MDM_TRY(mdm_arguments_integer(a, "--threads", 1, 64, 0, &threads));
    const mdm_import_options options = {.format = format_of(mdm_arguments_get(a, "--format")),
                                        .root = mdm_arguments_get(a, "--root"),
                                        .labels = mdm_arguments_get(a, "--labels"),
                                        .test = mdm_arguments_get(a, "--test"),
                                        .test_list = mdm_arguments_get(a, "--test-list"),
                                        .test_root = mdm_arguments_get(a, "--test-root"),
                                        .test_labels = mdm_arguments_get(a, "--test-labels"),
                                        .classes = mdm_arguments_get(a, "--classes"),
                                        .file_column = mdm_arguments_get(a, "--file-column"),
                                        .label_column = mdm_arguments_get(a, "--label-column"),
                                        .number_names = is_given(a, "--numbers-are-names"),
                                        .size = (int)size,
                                        .keep_encoded = is_given(a, "--keep-encoded"),
                                        .skip_errors = on_error && strcmp(on_error, "skip") == 0,
                                        .threads = (int)threads,
                                        .work = out};
    MDM_TRY(refuse_existing(out, force));
    MDM_TRY(mdm_import(a->words[0], &options, &d));
    mdm_status status = mdm_dataset_write(out, d, force);
    if (status == MDM_OK) mdm_import_finish(d);
    if (status == MDM_OK)
        mdm_info("%s: %lld training and %lld test pictures of %dx%dx%d, %d classes", out,
                 (long long)d->train_count, (long long)d->test_count, d->height, d->width, d->channels,
                 d->classes);
    mdm_dataset_destroy(d);
    return status;
}

static mdm_status write_noisy(const mdm_arguments *a, const mdm_dataset *noisy, const mdm_noise_counts *c) {
    const char *labels = mdm_arguments_get(a, "--write-noise-file");
    MDM_TRY(mdm_dataset_write(a->words[1], noisy, is_given(a, "--force")));
    if (labels) MDM_TRY(mdm_noise_write_labels(labels, noisy));
    if (is_given(a, "--json"))
        printf("{\"samples\":%lld,\"symmetric\":%lld,\"asymmetric\":%lld,\"out_of_distribution\":%lld,"
               "\"wrong_labels\":%lld,"
               "\"classes\":%d}\n",
               (long long)c->samples, (long long)c->symmetric, (long long)c->asymmetric, (long long)c->ood,
               (long long)c->wrong, noisy->classes);
    else
        mdm_info("%s: %lld samples, %lld labels drawn anew, %lld moved (%lld wrong in all), %lld out of "
                 "distribution, %d "
                 "classes",
                 a->words[1], (long long)c->samples, (long long)c->symmetric, (long long)c->asymmetric,
                 (long long)c->wrong, (long long)c->ood, noisy->classes);
    return MDM_OK;
}

static mdm_status run_noise(const mdm_arguments *a) {
    int held_out[MOST_HELD_OUT];
    long long samples, seed;
    mdm_noise_options options = {.exclude_own = is_given(a, "--exclude-own"),
                                 .transition_matrix = mdm_arguments_get(a, "--transition-matrix"),
                                 .hold_out = held_out,
                                 .labels_from = mdm_arguments_get(a, "--noise-file")};
    const char *foreign_path = mdm_arguments_get(a, "--ood-from"),
               *classes = mdm_arguments_get(a, "--hold-out");
    mdm_dataset *source = NULL, *foreign = NULL, *noisy = NULL;
    mdm_noise_counts counts;
    MDM_TRY(mdm_arguments_number(a, "--symmetric", 0, &options.symmetric));
    MDM_TRY(mdm_arguments_number(a, "--asymmetric", 0, &options.asymmetric));
    MDM_TRY(mdm_arguments_number(a, "--ood", 0, &options.ood));
    MDM_TRY(mdm_arguments_integer(a, "--samples", 0, UINT32_MAX, 0, &samples));
    MDM_TRY(mdm_arguments_integer(a, "--seed", 0, INT64_MAX, 1, &seed));
    if (classes) MDM_TRY(read_hold_out(classes, held_out, &options.hold_out_count));
    options.samples = samples;
    options.seed = (uint64_t)seed;
    MDM_TRY(refuse_existing(a->words[1], is_given(a, "--force")));
    MDM_TRY(refuse_existing(mdm_arguments_get(a, "--write-noise-file"), is_given(a, "--force")));
    mdm_status status = mdm_dataset_read(a->words[0], &source);
    if (status == MDM_OK && foreign_path) status = mdm_dataset_read(foreign_path, &foreign);
    options.ood_from = foreign;
    if (status == MDM_OK) status = mdm_noise_make(source, &options, &noisy, &counts);
    if (status == MDM_OK) status = write_noisy(a, noisy, &counts);
    mdm_dataset_destroy(source);
    mdm_dataset_destroy(foreign);
    mdm_dataset_destroy(noisy);
    return status;
}

typedef struct census {
    int64_t given, truth, test;
} census;

static void print_info(const mdm_dataset *d, const char *path, const census *classes, int64_t wrong,
                       int64_t ood) {
    printf(
        "%s\n  training  %lld pictures of %dx%d, %d channel%s\n  test      %lld pictures\n  classes   %d\n",
        path, (long long)d->train_count, d->height, d->width, d->channels, d->channels > 1 ? "s" : "",
        (long long)d->test_count, d->classes);
    printf("  mean     ");
    for (int c = 0; c < d->channels; c++) printf(" %.4f", d->mean[c]);
    printf("\n  std      ");
    for (int c = 0; c < d->channels; c++) printf(" %.4f", d->std[c]);
    printf("\n");
    char key[256], text[4096]; /* a file's texts are a stranger's: no control characters on the terminal */
    for (int i = 0; i < d->note_count; i++)
        if (!strchr(d->notes[i].value, '\n'))
            printf("  %-9s %s\n", mdm_printable(d->notes[i].key, key, sizeof key),
                   mdm_printable(d->notes[i].value, text, sizeof text));
    if (d->true_labels)
        printf("  truth     known: %lld of %lld labels are wrong (%.1f %%), and %lld samples are out of "
               "distribution (%.1f %%)\n",
               (long long)wrong, (long long)d->train_count, 100.0 * (double)wrong / (double)d->train_count,
               (long long)ood, 100.0 * (double)ood / (double)d->train_count);
    printf("  class  given%s   test  name\n", d->true_labels ? "    true" : "");
    for (int c = 0; c < d->classes; c++) {
        printf("  %5d %6lld", c, (long long)classes[c].given);
        if (d->true_labels) printf("  %6lld", (long long)classes[c].truth);
        printf(" %6lld  %s\n", (long long)classes[c].test,
               d->class_names ? mdm_printable(d->class_names[c], text, sizeof text) : "");
    }
    printf("  the file is sound\n");
}

static mdm_status print_info_json(const mdm_dataset *d, const char *path, const census *classes,
                                  int64_t wrong, int64_t ood) {
    mdm_text t = {0};
    mdm_text_add(&t, "{\"file\":");
    mdm_text_add_json_string(&t, path);
    mdm_text_add(&t,
                 ",\"sound\":true,\"train\":%lld,\"test\":%lld,\"height\":%d,\"width\":%d,\"channels\":%d,"
                 "\"classes\":[",
                 (long long)d->train_count, (long long)d->test_count, d->height, d->width, d->channels);
    for (int c = 0; c < d->classes; c++) {
        mdm_text_add(&t, "%s{\"given\":%lld,\"true\":%lld,\"test\":%lld,\"name\":", c ? "," : "",
                     (long long)classes[c].given, (long long)classes[c].truth, (long long)classes[c].test);
        mdm_text_add_json_string(&t, d->class_names ? d->class_names[c] : "");
        mdm_text_add(&t, "}");
    }
    for (int part = 0; part < 2; part++) {
        mdm_text_add(&t, part ? "],\"std\":[" : "],\"mean\":[");
        for (int c = 0; c < d->channels; c++) {
            if (c) mdm_text_add(&t, ",");
            mdm_text_add_json_number(&t, part ? d->std[c] : d->mean[c]);
        }
    }
    mdm_text_add(
        &t, "],\"truth_known\":%s,\"wrong_labels\":%lld,\"out_of_distribution\":%lld,\"ids\":%s,\"notes\":{",
        d->true_labels ? "true" : "false", (long long)wrong, (long long)ood, d->ids ? "true" : "false");
    for (int i = 0; i < d->note_count; i++) {
        if (i) mdm_text_add(&t, ",");
        mdm_text_add_json_string(&t, d->notes[i].key);
        mdm_text_add(&t, ":");
        mdm_text_add_json_string(&t, d->notes[i].value);
    }
    mdm_text_add(&t, "}}");
    if (t.failed) return mdm_fail(MDM_RESOURCE, "out of memory");
    puts(t.data);
    free(t.data);
    return MDM_OK;
}

static mdm_status run_info(const mdm_arguments *a) {
    mdm_dataset *d;
    census *classes;
    int64_t wrong = 0, ood = 0;
    MDM_TRY(mdm_dataset_read_labels(a->words[0], &d));
    mdm_status status = MDM_ALLOCATE(classes, d->classes, "the classes");
    if (status == MDM_OK) {
        for (int64_t i = 0; i < d->train_count; i++) {
            classes[d->train_labels[i]].given++;
            if (!d->true_labels) continue;
            if (d->true_labels[i] >= 0) classes[d->true_labels[i]].truth++;
            ood += d->true_labels[i] < 0;
            wrong += d->true_labels[i] >= 0 && d->true_labels[i] != d->train_labels[i];
        }
        for (int64_t i = 0; i < d->test_count; i++) classes[d->test_labels[i]].test++;
        if (is_given(a, "--json"))
            status = print_info_json(d, a->words[0], classes, wrong, ood);
        else
            print_info(d, a->words[0], classes, wrong, ood);
        free(classes);
    }
    mdm_dataset_destroy(d);
    return status;
}

/* Everything is read, piece by piece; labels and names were checked by then. */
static mdm_status run_verify(const mdm_arguments *a) {
    mdm_dataset *d;
    uint8_t *pixels = NULL;
    MDM_TRY(mdm_dataset_read_labels(a->words[0], &d));
    int64_t bytes = (int64_t)d->height * d->width * d->channels, piece = ((int64_t)64 << 20) / bytes + 1;
    mdm_status status = mdm_allocate((void **)&pixels, piece, bytes, "pictures");
    for (int split = 0; split < 2; split++) {
        int64_t count = split ? d->test_count : d->train_count;
        for (int64_t first = 0; status == MDM_OK && first < count; first += piece)
            status = mdm_dataset_read_images(a->words[0], d, split, first,
                                             count - first < piece ? count - first : piece, pixels);
    }
    if (status == MDM_OK && is_given(a, "--json"))
        printf("{\"sound\":true,\"pictures\":%lld}\n", (long long)(d->train_count + d->test_count));
    else if (status == MDM_OK)
        printf("%s: all %lld pictures can be read\n", a->words[0],
               (long long)(d->train_count + d->test_count));
    free(pixels);
    mdm_dataset_destroy(d);
    return status;
}

mdm_status mdm_command_data(int argc, char **argv) {
    static const struct {
        const char *verb, *needs;
        int words;
        mdm_status (*run)(const mdm_arguments *a);
    } verbs[] = {{"import", "SOURCE and OUT.h5", 2, run_import},
                 {"noise", "IN.h5 and OUT.h5", 2, run_noise},
                 {"info", "FILE.h5", 1, run_info},
                 {"verify", "FILE.h5", 1, run_verify}};
    enum { VERBS = sizeof verbs / sizeof *verbs };
    const char *names[VERBS];
    mdm_arguments a;
    char command[32];
    if (argc < 2)
        return mdm_fail(MDM_USAGE, "data needs import, noise, info or verify; mdm-dist data --help");
    for (int i = 0; i < VERBS; i++) {
        names[i] = verbs[i].verb;
        if (strcmp(argv[1], verbs[i].verb) != 0) continue;
        snprintf(command, sizeof command, "data %s", argv[1]);
        MDM_TRY(mdm_arguments_read(command, argc - 1, argv + 1, &a));
        if (a.word_count > verbs[i].words)
            return mdm_fail(MDM_USAGE, "%s: '%s' is one name too many", command, a.words[verbs[i].words]);
        if (a.word_count < verbs[i].words)
            return mdm_fail(MDM_USAGE, "%s needs %s; mdm-dist %s --help", command, verbs[i].needs, command);
        return verbs[i].run(&a);
    }
    const char *near = mdm_nearest_name(argv[1], names, VERBS);
    return mdm_fail(MDM_USAGE, "data %s is not known%s%s; there are import, noise, info and verify", argv[1],
                    near ? "; did you mean " : "", near ? near : "");
}

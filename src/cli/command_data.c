/* mdm-dist data import | noise | info: makes data set files and looks at them. */
#include "commands.h"
#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include "mdm/data/import.h"
#include "mdm/data/noise.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct arguments {
    const char *places[2];
    int place_count;
    const char *format, *ood_from, *write_noise_file;
    mdm_import_options import;
    mdm_noise_options noise;
    int hold_out[64];
    int force, json;
} arguments;

static mdm_status read_number(const char *option, const char *text, double *value) {
    char *end;
    errno = 0;
    *value = strtod(text, &end);
    if (errno || end == text || *end) return mdm_fail(MDM_USAGE, "%s %s: expected a number", option, text);
    return MDM_OK;
}

static mdm_status read_integer(const char *option, const char *text, int64_t *value) {
    char *end;
    errno = 0;
    *value = strtoll(text, &end, 10);
    if (errno || end == text || *end || *value < 0)
        return mdm_fail(MDM_USAGE, "%s %s: expected a whole number of at least 0", option, text);
    return MDM_OK;
}

static mdm_status read_hold_out(arguments *a, const char *text) {
    for (const char *at = text; *at;) {
        char *end;
        long value = strtol(at, &end, 10);
        if (end == at || (*end && *end != ',') || value < 0 || value > 1000000 ||
            a->noise.hold_out_count == 64)
            return mdm_fail(
                MDM_USAGE, "--hold-out %s: expected class numbers with commas between them, as in 8,9", text);
        a->hold_out[a->noise.hold_out_count++] = (int)value;
        at = *end ? end + 1 : end;
    }
    return MDM_OK;
}

static mdm_status read_value(arguments *a, const char *option, const char *value) {
    int64_t number;
    if (strcmp(option, "--format") == 0)
        a->format = value;
    else if (strcmp(option, "--root") == 0)
        a->import.root = value;
    else if (strcmp(option, "--test") == 0)
        a->import.test = value;
    else if (strcmp(option, "--test-list") == 0)
        a->import.test_list = value;
    else if (strcmp(option, "--labels") == 0)
        a->import.labels = value;
    else if (strcmp(option, "--test-root") == 0)
        a->import.test_root = value;
    else if (strcmp(option, "--test-labels") == 0)
        a->import.test_labels = value;
    else if (strcmp(option, "--classes") == 0)
        a->import.classes = value;
    else if (strcmp(option, "--file-column") == 0)
        a->import.file_column = value;
    else if (strcmp(option, "--label-column") == 0)
        a->import.label_column = value;
    else if (strcmp(option, "--on-error") == 0) {
        a->import.skip_errors = strcmp(value, "skip") == 0;
        if (!a->import.skip_errors && strcmp(value, "fail") != 0)
            return mdm_fail(MDM_USAGE, "--on-error %s: expected fail or skip", value);
    } else if (strcmp(option, "--size") == 0 || strcmp(option, "--threads") == 0) {
        int most = strcmp(option, "--size") == 0 ? 4096 : 64;
        MDM_TRY(read_integer(option, value, &number));
        if (number < 1 || number > most)
            return mdm_fail(MDM_USAGE, "%s %s: expected 1 to %d", option, value, most);
        *(most == 64 ? &a->import.threads : &a->import.size) = (int)number;
    } else if (strcmp(option, "--samples") == 0)
        return read_integer(option, value, &a->noise.samples);
    else if (strcmp(option, "--symmetric") == 0)
        return read_number(option, value, &a->noise.symmetric);
    else if (strcmp(option, "--asymmetric") == 0)
        return read_number(option, value, &a->noise.asymmetric);
    else if (strcmp(option, "--ood") == 0)
        return read_number(option, value, &a->noise.ood);
    else if (strcmp(option, "--transition-matrix") == 0)
        a->noise.transition_matrix = value;
    else if (strcmp(option, "--hold-out") == 0)
        return read_hold_out(a, value);
    else if (strcmp(option, "--ood-from") == 0)
        a->ood_from = value;
    else if (strcmp(option, "--noise-file") == 0)
        a->noise.labels_from = value;
    else if (strcmp(option, "--write-noise-file") == 0)
        a->write_noise_file = value;
    else {
        MDM_TRY(read_integer(option, value, &number));
        a->noise.seed = (uint64_t)number;
    }
    return MDM_OK;
}

/* Options of each subcommand; those that take a value come first. */
static const char *const value_options[] = {"--format",
                                            "--root",
                                            "--test",
                                            "--test-list",
                                            "--labels",
                                            "--test-root",
                                            "--test-labels",
                                            "--classes",
                                            "--file-column",
                                            "--label-column",
                                            "--on-error",
                                            "--size",
                                            "--threads",
                                            "--samples",
                                            "--symmetric",
                                            "--asymmetric",
                                            "--ood",
                                            "--seed",
                                            "--hold-out",
                                            "--transition-matrix",
                                            "--ood-from",
                                            "--noise-file",
                                            "--write-noise-file"};
static const char *const switches[] = {"--force",        "--json", "--exclude-own",
                                       "--keep-encoded", "--help", "--numbers-are-names"};
enum { VALUES = sizeof value_options / sizeof *value_options, SWITCHES = sizeof switches / sizeof *switches };

static int is_one_of(const char *name, const char *const *names, int count) {
    for (int i = 0; i < count; i++)
        if (strcmp(name, names[i]) == 0) return 1;
    return 0;
}

static mdm_status refuse_option(const char *option) {
    const char *all[VALUES + SWITCHES];
    for (int i = 0; i < VALUES; i++) all[i] = value_options[i];
    for (int i = 0; i < SWITCHES; i++) all[VALUES + i] = switches[i];
    const char *near = mdm_nearest_name(option, all, VALUES + SWITCHES);
    return mdm_fail(MDM_USAGE, "there is no option %s%s%s; mdm-dist data --help lists them", option,
                    near ? "; did you mean " : "", near ? near : "");
}

/* Which options belong to `verb`. */
static int fits(const char *verb, const char *option) {
    static const char *const import[] = {
        "--format",    "--root",        "--test",         "--test-list",    "--labels",
        "--test-root", "--test-labels", "--classes",      "--label-column", "--on-error",
        "--size",      "--threads",     "--keep-encoded", "--file-column",  "--numbers-are-names"};
    int looks = strcmp(verb, "info") == 0 || strcmp(verb, "verify") == 0;
    if (strcmp(option, "--force") == 0) return !looks;
    if (strcmp(option, "--json") == 0) return strcmp(verb, "import") != 0;
    if (is_one_of(option, import, sizeof import / sizeof *import)) return strcmp(verb, "import") == 0;
    return strcmp(verb, "noise") == 0;
}

static mdm_status read_arguments(const char *verb, int argc, char **argv, arguments *a) {
    memset(a, 0, sizeof *a);
    a->noise.seed = 1;
    a->noise.hold_out = a->hold_out;
    for (int i = 0; i < argc; i++) {
        const char *word = argv[i];
        if (word[0] != '-') {
            if (a->place_count == 2)
                return mdm_fail(MDM_USAGE, "data %s: '%s' is one name too many", verb, word);
            a->places[a->place_count++] = word;
            continue;
        }
        int takes_value = is_one_of(word, value_options, VALUES);
        if (!takes_value && !is_one_of(word, switches, SWITCHES)) return refuse_option(word);
        if (!fits(verb, word))
            return mdm_fail(MDM_USAGE, "%s is not for data %s; mdm-dist data --help", word, verb);
        if (strcmp(word, "--force") == 0) a->force = 1;
        if (strcmp(word, "--json") == 0) a->json = 1;
        if (strcmp(word, "--keep-encoded") == 0) a->import.keep_encoded = 1;
        if (strcmp(word, "--numbers-are-names") == 0) a->import.number_names = 1;
        if (strcmp(word, "--exclude-own") == 0) a->noise.exclude_own = 1;
        if (!takes_value) continue;
        if (i + 1 == argc) return mdm_fail(MDM_USAGE, "%s needs a value", word);
        MDM_TRY(read_value(a, word, argv[++i]));
    }
    int wanted = strcmp(verb, "info") == 0 || strcmp(verb, "verify") == 0 ? 1 : 2;
    if (a->place_count != wanted)
        return mdm_fail(MDM_USAGE, "data %s needs %s; mdm-dist data --help", verb,
                        wanted == 1                   ? "FILE.h5"
                        : strcmp(verb, "import") == 0 ? "SOURCE and OUT.h5"
                                                      : "IN.h5 and OUT.h5");
    return MDM_OK;
}

static mdm_status run_import(const arguments *a) {
    static const char *const names[] = {"idx", "cifar10", "cifar100", "folder", "list", "metadata"};
    mdm_import_options options = a->import;
    mdm_dataset *d;
    for (int i = 0; a->format && i < 6; i++)
        if (strcmp(a->format, names[i]) == 0) options.format = (mdm_import_format)(i + 1);
    if (a->format && options.format == MDM_IMPORT_AUTO)
        return mdm_fail(MDM_USAGE, "--format %s: expected idx, cifar10, cifar100, folder, list or metadata",
                        a->format);
    if (!a->force && access(a->places[1], F_OK) == 0) /* before the work, not after it */
        return mdm_fail(MDM_USAGE, "%s exists; --force replaces it", a->places[1]);
    options.work = a->places[1];
    MDM_TRY(mdm_import(a->places[0], &options, &d));
    mdm_status status = mdm_dataset_write(a->places[1], d, a->force);
    if (status == MDM_OK) mdm_import_finish(d);
    if (status == MDM_OK)
        mdm_info("%s: %lld training and %lld test pictures of %dx%dx%d, %d classes", a->places[1],
                 (long long)d->train_count, (long long)d->test_count, d->height, d->width, d->channels,
                 d->classes);
    mdm_dataset_destroy(d);
    return status;
}

static mdm_status write_noisy(const arguments *a, const mdm_dataset *noisy, const mdm_noise_counts *c) {
    MDM_TRY(mdm_dataset_write(a->places[1], noisy, a->force));
    if (a->write_noise_file) MDM_TRY(mdm_noise_write_labels(a->write_noise_file, noisy));
    if (a->json)
        printf("{\"samples\":%lld,\"symmetric\":%lld,\"asymmetric\":%lld,\"out_of_distribution\":%lld,"
               "\"wrong_labels\":%lld,"
               "\"classes\":%d}\n",
               (long long)c->samples, (long long)c->symmetric, (long long)c->asymmetric, (long long)c->ood,
               (long long)c->wrong, noisy->classes);
    else
        mdm_info("%s: %lld samples, %lld labels drawn anew, %lld moved (%lld wrong in all), %lld out of "
                 "distribution, %d "
                 "classes",
                 a->places[1], (long long)c->samples, (long long)c->symmetric, (long long)c->asymmetric,
                 (long long)c->wrong, (long long)c->ood, noisy->classes);
    return MDM_OK;
}

static mdm_status run_noise(arguments *a) {
    mdm_dataset *source = NULL, *foreign = NULL, *noisy = NULL;
    mdm_noise_counts counts;
    mdm_status status = mdm_dataset_read(a->places[0], &source);
    if (status == MDM_OK && a->ood_from) status = mdm_dataset_read(a->ood_from, &foreign);
    a->noise.ood_from = foreign;
    if (status == MDM_OK) status = mdm_noise_make(source, &a->noise, &noisy, &counts);
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
        printf("  truth     known: %lld of %lld labels are wrong (%.1f %%), %lld samples are out of "
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

static mdm_status run_info(const arguments *a) {
    mdm_dataset *d;
    census *classes;
    int64_t wrong = 0, ood = 0;
    MDM_TRY(mdm_dataset_read_labels(a->places[0], &d));
    mdm_status status = MDM_ALLOCATE(classes, d->classes, "the classes");
    if (status == MDM_OK) {
        for (int64_t i = 0; i < d->train_count; i++) {
            classes[d->train_labels[i]].given++;
            if (!d->true_labels) continue;
            if (d->true_labels[i] >= 0) classes[d->true_labels[i]].truth++;
            ood += d->true_labels[i] < 0;
            wrong += d->true_labels[i] != d->train_labels[i];
        }
        for (int64_t i = 0; i < d->test_count; i++) classes[d->test_labels[i]].test++;
        if (a->json)
            status = print_info_json(d, a->places[0], classes, wrong, ood);
        else
            print_info(d, a->places[0], classes, wrong, ood);
        free(classes);
    }
    mdm_dataset_destroy(d);
    return status;
}

/* Everything is read, piece by piece; labels and names were checked by then. */
static mdm_status run_verify(const arguments *a) {
    mdm_dataset *d;
    uint8_t *pixels = NULL;
    MDM_TRY(mdm_dataset_read_labels(a->places[0], &d));
    int64_t bytes = (int64_t)d->height * d->width * d->channels, piece = ((int64_t)64 << 20) / bytes + 1;
    mdm_status status = mdm_allocate((void **)&pixels, piece, bytes, "pictures");
    for (int split = 0; split < 2; split++) {
        int64_t count = split ? d->test_count : d->train_count;
        for (int64_t first = 0; status == MDM_OK && first < count; first += piece)
            status = mdm_dataset_read_images(a->places[0], d, split, first,
                                             count - first < piece ? count - first : piece, pixels);
    }
    if (status == MDM_OK && a->json)
        printf("{\"sound\":true,\"pictures\":%lld}\n", (long long)(d->train_count + d->test_count));
    else if (status == MDM_OK)
        printf("%s: all %lld pictures can be read\n", a->places[0],
               (long long)(d->train_count + d->test_count));
    free(pixels);
    mdm_dataset_destroy(d);
    return status;
}

mdm_status mdm_command_data(int argc, char **argv) {
    static const char *const verbs[] = {"import", "noise", "info", "verify"};
    arguments a;
    if (argc < 2)
        return mdm_fail(MDM_USAGE, "data needs import, noise, info or verify; mdm-dist data --help");
    if (!is_one_of(argv[1], verbs, 4)) {
        const char *near = mdm_nearest_name(argv[1], verbs, 4);
        return mdm_fail(MDM_USAGE, "data %s is not known%s%s; there are import, noise, info and verify",
                        argv[1], near ? "; did you mean " : "", near ? near : "");
    }
    MDM_TRY(read_arguments(argv[1], argc - 2, argv + 2, &a));
    if (strcmp(argv[1], "import") == 0) return run_import(&a);
    if (strcmp(argv[1], "noise") == 0) return run_noise(&a);
    if (strcmp(argv[1], "verify") == 0) return run_verify(&a);
    return run_info(&a);
}

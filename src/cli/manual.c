/* From the table of commands to help on the terminal and to what a command line says. */
#include "manual.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char exit_codes[] =
    "Exit codes: 0 done, 2 usage or config, 3 bad input file, 4 resource, 5 numbers went bad, 6 a rank was "
    "lost,\n75 stopped by a signal with the state saved, 130 by a second Ctrl-C.\n";

/* Lines of at most 100 characters, the later ones indented. */
static void print_wrapped(FILE *out, const char *text, int column, int indent) {
    enum { WIDTH = 100 };
    for (const char *word = text; *word;) {
        int length = (int)strcspn(word, " ");
        if (column > indent && column + 1 + length > WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", length, word);
        column += length;
        word += length;
        while (*word == ' ') word++;
    }
    fputc('\n', out);
}

void mdm_manual_print_overview(FILE *out) {
    fprintf(out, "mdm-dist %s: learning from badly labelled pictures (Manifold DivideMix)\n\n", MDM_VERSION);
    fprintf(out,
            "  mdm-dist [CONFIG.yaml] [key=value ...]     train; without CONFIG the built-in quickstart\n");
    for (int i = 0; i < mdm_manual_count(); i++)
        if (!mdm_manual_at(i)->hidden)
            fprintf(out, "  mdm-dist %-12s %s\n", mdm_manual_at(i)->name, mdm_manual_at(i)->summary);
    fprintf(out, "\n  --help, COMMAND --help, --version, train --help-config\n\n"
                 "Examples:\n"
                 "  mdm-dist data import /usr/share/datasets/fashion-mnist fashion.h5\n"
                 "  mdm-dist data noise fashion.h5 noisy.h5 --symmetric 0.4 --seed 1\n"
                 "  mpirun -np 4 mdm-dist configs/template.yaml data.train=noisy.h5 train.epochs=50\n"
                 "  mdm-dist status runs/quickstart\n\n");
    fputs(exit_codes, out);
}

void mdm_manual_print(FILE *out, const mdm_manual *page) {
    int is_train = strcmp(page->name, "train") == 0;
    fprintf(out, "usage: mdm-dist %s %s\n\n", is_train ? "[train]" : page->name, page->usage);
    print_wrapped(out, page->text[0] ? page->text : page->summary, 0, 0);
    if (page->choices) {
        fprintf(out, "\n  one of ");
        for (const char *c = page->choices; *c; c++) fputs(*c == '|' ? ", " : (char[2]){*c, 0}, out);
        fputc('\n', out);
    }
    fputc('\n', out);
    for (int i = 0; i < MDM_MANUAL_MOST_OPTIONS && page->options[i].name; i++) {
        const mdm_option *o = &page->options[i];
        int column = fprintf(out, "  %s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
        if (column < 26) column += fprintf(out, "%*s", 26 - column, "");
        fputc(' ', out);
        print_wrapped(out, o->meaning, column + 1, column + 1);
    }
    fprintf(out, "  %-24s this page\n\nExamples:\n", "--help");
    for (int i = 0; i < MDM_MANUAL_MOST_EXAMPLES && page->examples[i]; i++)
        fprintf(out, "  %s\n", page->examples[i]);
}

void mdm_manual_print_group(FILE *out, const char *group) {
    size_t length = strlen(group);
    int printed = 0;
    for (int i = 0; i < mdm_manual_count(); i++) {
        const mdm_manual *page = mdm_manual_at(i);
        if (strncmp(page->name, group, length) != 0 || page->name[length] != ' ') continue;
        if (printed++) fputc('\n', out);
        mdm_manual_print(out, page);
    }
}

static int option_index(const mdm_manual *page, const char *name) {
    for (int i = 0; i < MDM_MANUAL_MOST_OPTIONS && page->options[i].name; i++)
        if (strcmp(page->options[i].name, name) == 0) return i;
    return -1;
}

/* Whether `value` is one of the words "a|b|c"; any text where the table names no choice. */
static int is_allowed(const char *choices, const char *value) {
    size_t length = strlen(value);
    if (!strchr(choices, '|')) return 1;
    for (const char *word = choices; *word;) {
        size_t size = strcspn(word, "|");
        if (size == length && strncmp(word, value, size) == 0) return 1;
        word += size + (word[size] == '|');
    }
    return 0;
}

mdm_status mdm_arguments_read(const char *command, int argc, char **argv, mdm_arguments *a) {
    int group;
    memset(a, 0, sizeof *a);
    a->page = mdm_manual_find(command, NULL, &group);
    if (!a->page) return mdm_fail(MDM_LOST, "internal: there is no page for the command %s", command);
    for (int i = 1; i < argc; i++) {
        char name[64];
        const char *equals = argv[i][0] == '-' ? strchr(argv[i], '=') : NULL;
        if (argv[i][0] != '-') {
            if (a->word_count == MDM_MOST_WORDS)
                return mdm_fail(MDM_USAGE, "%s: more than %d words are too many", command, MDM_MOST_WORDS);
            a->words[a->word_count++] = argv[i];
            continue;
        }
        snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - argv[i]) : 63, argv[i]);
        int option = option_index(a->page, name);
        if (option < 0) return mdm_manual_refuse_option(command, name);
        const mdm_option *o = &a->page->options[option];
        if (!o->value && equals) return mdm_fail(MDM_USAGE, "%s takes no value", name);
        if (o->value && !equals && i + 1 == argc) return mdm_fail(MDM_USAGE, "%s needs a value", name);
        a->values[option] = !o->value ? "" : equals ? equals + 1 : argv[++i];
        if (o->value && !is_allowed(o->value, a->values[option]))
            return mdm_fail(MDM_USAGE, "%s %s: expected one of %s", name, a->values[option], o->value);
    }
    return MDM_OK;
}

const char *mdm_arguments_get(const mdm_arguments *a, const char *option) {
    int index = option_index(a->page, option);
    return index < 0 ? NULL : a->values[index];
}

mdm_status mdm_arguments_integer(const mdm_arguments *a, const char *option, long long low, long long high,
                                 long long initial, long long *value) {
    const char *text = mdm_arguments_get(a, option);
    char *end;
    *value = initial;
    if (!text) return MDM_OK;
    errno = 0;
    *value = strtoll(text, &end, 10);
    if (errno || end == text || *end || *value < low || *value > high)
        return mdm_fail(MDM_USAGE, "%s %s: expected a whole number from %lld to %lld", option, text, low,
                        high);
    return MDM_OK;
}

mdm_status mdm_arguments_number(const mdm_arguments *a, const char *option, double initial, double *value) {
    const char *text = mdm_arguments_get(a, option);
    char *end;
    *value = initial;
    if (!text) return MDM_OK;
    errno = 0;
    *value = strtod(text, &end);
    if (errno || end == text || *end || isnan(*value))
        return mdm_fail(MDM_USAGE, "%s %s: expected a number", option, text);
    return MDM_OK;
}

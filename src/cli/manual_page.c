/* mdm-dist man [COMMAND]: from the table of commands to pages in the language of man(7). */
#include "commands.h"
#include "manual.h"
#include "mdm/base/config.h"
#include <stdio.h>
#include <string.h>

/* Backslashes and a leading dot or quote mean something in troff, and a plain hyphen is no minus sign. */
static void put(const char *text) {
    if (*text == '.' || *text == '\'') fputs("\\&", stdout);
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
    }
}

static void put_line(const char *before, const char *text, const char *after) {
    fputs(before, stdout);
    put(text);
    fputs(after, stdout);
}

static void put_examples(const mdm_manual *page) {
    fputs(".SH EXAMPLES\n.nf\n", stdout);
    for (int i = 0; i < MDM_MANUAL_MOST_EXAMPLES && page->examples[i]; i++)
        put_line("", page->examples[i], "\n");
    fputs(".fi\n", stdout);
}

static void put_options(const mdm_manual *page) {
    fputs(".SH OPTIONS\n", stdout);
    for (int i = 0; i < MDM_MANUAL_MOST_OPTIONS && page->options[i].name; i++) {
        const mdm_option *o = &page->options[i];
        put_line(".TP\n\\fB", o->name, "\\fR");
        if (o->value) put_line(" \\fI", o->value, "\\fR");
        put_line("\n", o->meaning, "\n");
    }
    fputs(".TP\n\\fB\\-\\-help\\fR\nprint a short form of this page\n", stdout);
}

static void put_keys(void) {
    fputs(".SH KEYS\nEvery key may stand in the config file or be given as key=value.\n", stdout);
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        put_line(".TP\n\\fB", key->name, "\\fR [");
        put_line("", key->initial[0] ? key->initial : "none", "]");
        if (key->unit[0]) put_line(", ", key->unit, "");
        put_line("\n", key->meaning, "\n");
    }
}

static void put_title(const char *name) {
    fputs(".TH \"", stdout);
    for (const char *c = name; *c; c++) putchar(*c == ' ' ? '-' : *c >= 'a' && *c <= 'z' ? *c - 32 : *c);
    fputs("\" 1 \"\" \"mdm\\-dist " MDM_VERSION "\" \"mdm\\-dist\"\n", stdout);
}

static void put_page(const mdm_manual *page) {
    char name[64];
    snprintf(name, sizeof name, "mdm-dist-%s", page->name);
    for (char *c = name; *c; c++)
        if (*c == ' ') *c = '-';
    put_title(name);
    put_line(".SH NAME\n", name, " \\- ");
    put_line("", page->summary, "\n");
    put_line(".SH SYNOPSIS\n.B mdm\\-dist ", page->name, "\n");
    put_line("", page->usage, "\n");
    put_line(".SH DESCRIPTION\n", page->text[0] ? page->text : page->summary, "\n");
    if (page->choices) put_line(".PP\nOne of: ", page->choices, ".\n");
    put_options(page);
    if (strcmp(page->name, "train") == 0) put_keys();
    put_examples(page);
    fputs(".SH SEE ALSO\nmdm\\-dist(1)\n", stdout);
}

static void put_overview(void) {
    static const char *const codes[] = {"0",   "done",
                                        "2",   "bad usage or settings",
                                        "3",   "bad input file (data, weights, checkpoint)",
                                        "4",   "missing or exhausted resource (device, memory, disk)",
                                        "5",   "numbers went bad",
                                        "6",   "a rank or a link was lost",
                                        "75",  "stopped by a signal, state saved; start again to go on",
                                        "130", "a second Ctrl-C"};
    put_title("mdm-dist");
    fputs(
        ".SH NAME\nmdm\\-dist \\- learning from badly labelled pictures\n"
        ".SH SYNOPSIS\n.B mdm\\-dist\n[CONFIG.yaml] [key=value ...]\n.br\n.B mdm\\-dist\nCOMMAND ...\n"
        ".SH DESCRIPTION\nTrains two networks on a data set in which many labels are wrong and some pictures "
        "belong to no class (Manifold DivideMix), and tells afterwards which ones they were. Alone, or under "
        "mpirun or srun.\n.SH COMMANDS\n",
        stdout);
    for (int i = 0; i < mdm_manual_count(); i++) {
        const mdm_manual *page = mdm_manual_at(i);
        if (page->hidden) continue;
        put_line(".TP\n\\fB", page->name, "\\fR\n");
        put_line("", page->summary, "\n");
    }
    fputs(".SH EXIT STATUS\n", stdout);
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i += 2) {
        put_line(".TP\n\\fB", codes[i], "\\fR\n");
        put_line("", codes[i + 1], "\n");
    }
    fputs(".SH SIGNALS\nUSR1, TERM and INT finish the step, save and end with 75; USR2 saves and goes on. "
          "mpirun of "
          "Open MPI 4.1 kills one second after it passes TERM on, so send it USR1.\n",
          stdout);
}

mdm_status mdm_command_man(int argc, char **argv) {
    mdm_arguments a;
    int group;
    MDM_TRY(mdm_arguments_read("man", argc, argv, &a));
    if (mdm_arguments_get(&a, "--list")) {
        for (int i = 0; i < mdm_manual_count(); i++)
            if (!mdm_manual_at(i)->hidden) puts(mdm_manual_at(i)->name);
        return MDM_OK;
    }
    if (a.word_count == 0) {
        put_overview();
        return MDM_OK;
    }
    const mdm_manual *page = mdm_manual_find(a.words[0], a.word_count > 1 ? a.words[1] : NULL, &group);
    if (page) {
        put_page(page);
        return MDM_OK;
    }
    if (group)
        return mdm_fail(MDM_USAGE, "%s has several pages; name one, as in mdm-dist man data noise",
                        a.words[0]);
    return mdm_manual_refuse_command(a.words[0]);
}

/* What the commands are called and take, in one table: the help, the man pages, the shell completions and the
 * answers to mistyped names all come from it. */
#ifndef MDM_CLI_MANUAL_H
#define MDM_CLI_MANUAL_H

#include "mdm/base/status.h"
#include <stdio.h>

typedef struct mdm_option {
    const char *name;  /* "--seed" */
    const char *value; /* "S", "FILE", or words to choose from as "pmix|mpirun"; NULL: takes none */
    const char *meaning;
} mdm_option;

/* What the words of a command that are no options may be: how a shell completes them. */
enum {
    MDM_WORD_FILE = 1,   /* any file */
    MDM_WORD_RUN = 2,    /* a run folder */
    MDM_WORD_CONFIG = 4, /* a YAML file */
    MDM_WORD_KEY = 8     /* key=value */
};

enum { MDM_MANUAL_MOST_OPTIONS = 24, MDM_MANUAL_MOST_EXAMPLES = 4 };
typedef struct mdm_manual {
    const char *name;    /* "train", "data noise" */
    const char *summary; /* one line */
    const char *usage;   /* what follows the name */
    const char *text;    /* a paragraph; "" when the summary says it all */
    int words;           /* sum of MDM_WORD_... */
    const char *choices; /* words to choose from, as "bash|zsh|fish", or NULL */
    int hidden;          /* not in the overview */
    mdm_option options[MDM_MANUAL_MOST_OPTIONS];
    const char *examples[MDM_MANUAL_MOST_EXAMPLES]; /* whole command lines */
} mdm_manual;

int mdm_manual_count(void);
const mdm_manual *mdm_manual_at(int index);
/* The page of the command that the first words name ("data", "noise"), or NULL. A command with subcommands
 * has no page of its own: *group tells that `first` is one. */
const mdm_manual *mdm_manual_find(const char *first, const char *second, int *group);

/* The overview; one command's page; the pages of a command with subcommands. */
void mdm_manual_print_overview(FILE *out);
void mdm_manual_print(FILE *out, const mdm_manual *page);
void mdm_manual_print_group(FILE *out, const char *group);

/* MDM_USAGE, naming the nearest command or option of that command. */
MDM_MUST_CHECK mdm_status mdm_manual_refuse_command(const char *word);
MDM_MUST_CHECK mdm_status mdm_manual_refuse_option(const char *command, const char *option);

/* What a command line says, by the table: options with their values, and other words. Borrowed from argv. */
enum { MDM_MOST_WORDS = 64 };
typedef struct mdm_arguments {
    const mdm_manual *page;
    const char *values[MDM_MANUAL_MOST_OPTIONS]; /* NULL: not given; "" for an option without a value */
    const char *words[MDM_MOST_WORDS];
    int word_count;
} mdm_arguments;
/* argv[1 ..]; MDM_USAGE for an unknown option, a missing value or too many words. */
MDM_MUST_CHECK mdm_status mdm_arguments_read(const char *command, int argc, char **argv,
                                             mdm_arguments *arguments);
/* The option's value, "" for a switch that is on, NULL when it was not given. */
const char *mdm_arguments_get(const mdm_arguments *arguments, const char *option);
/* The option as a whole number within [low, high], `initial` when it was not given. */
MDM_MUST_CHECK mdm_status mdm_arguments_integer(const mdm_arguments *arguments, const char *option,
                                                long long low, long long high, long long initial,
                                                long long *value);
/* The same of any number. */
MDM_MUST_CHECK mdm_status mdm_arguments_number(const mdm_arguments *arguments, const char *option,
                                               double initial, double *value);

#endif

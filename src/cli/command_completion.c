/* mdm-dist completion bash|zsh|fish: from the tables of commands and keys to a script for a shell. */
#include "commands.h"
#include "manual.h"
#include "mdm/base/config.h"
#include <stdio.h>
#include <string.h>

/* The words of a choice "a|b|c", separated by spaces. */
static void put_choices(const char *choices) {
    for (; *choices; choices++) putchar(*choices == '|' ? ' ' : *choices);
}

/* Every command by its first word, and the second words of `group` where one is given. */
static void put_names(const char *group) {
    const char *before = "";
    for (int i = 0; i < mdm_manual_count(); i++) {
        const mdm_manual *page = mdm_manual_at(i);
        size_t length = strcspn(page->name, " ");
        if (page->hidden) continue;
        if (group) {
            if (strncmp(page->name, group, length) == 0 && page->name[length])
                printf(" %s", page->name + length + 1);
        } else if (strncmp(before, page->name, length) != 0 || before[length] != ' ')
            printf(" %.*s", (int)length, page->name);
        before = page->name;
    }
}

static void put_keys(void) {
    for (int i = 0; i < mdm_config_key_count(); i++) printf(" %s=", mdm_config_key_at(i)->name);
}

static void put_options(const mdm_manual *page) {
    for (int i = 0; i < MDM_MANUAL_MOST_OPTIONS && page->options[i].name; i++)
        printf(" %s", page->options[i].name);
    printf(" --help");
}

/* Values after the key= of keys that take one of a few words, and of those that take a path. */
static void put_key_values(void) {
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        int path = key->type == MDM_CONFIG_STRING || key->type == MDM_CONFIG_FRACTION_OR_FILE;
        if (!path && key->type != MDM_CONFIG_WORD && key->type != MDM_CONFIG_BOOLEAN) continue;
        printf("        %s=*) words='", key->name);
        if (key->type == MDM_CONFIG_BOOLEAN) printf("true false");
        for (int w = 0; key->type == MDM_CONFIG_WORD && key->words[w]; w++)
            printf("%s%s", w ? " " : "", key->words[w]);
        printf("'; prefix=%s= files=%s ;;\n", key->name, path ? "any" : "none");
    }
}

/* One case a page: what may come at its place. Shared by bash and zsh, which differ in how they show it. */
static void put_cases(void) {
    for (int i = 0; i < mdm_manual_count(); i++) {
        const mdm_manual *page = mdm_manual_at(i);
        if (page->hidden) continue;
        printf("    '%s')\n        words='", page->name);
        if (page->choices) {
            put_choices(page->choices);
            putchar(' ');
        }
        put_options(page);
        if (page->words & MDM_WORD_KEY) put_keys();
        printf("'\n        files=%s ;;\n", page->words & (MDM_WORD_FILE | MDM_WORD_CONFIG) ? "any"
                                           : page->words & MDM_WORD_RUN                    ? "folders"
                                                                                           : "none");
    }
}

static void put_option_values(void) {
    for (int i = 0; i < mdm_manual_count(); i++) {
        const mdm_manual *page = mdm_manual_at(i);
        for (int o = 0; o < MDM_MANUAL_MOST_OPTIONS && page->options[o].name; o++) {
            const mdm_option *option = &page->options[o];
            if (!option->value || page->hidden) continue;
            printf("    '%s %s')", page->name, option->name);
            if (strchr(option->value, '|')) {
                printf(" words='");
                put_choices(option->value);
                printf("'; files=none ;;\n");
            } else
                printf(" words=; files=%s ;;\n", strncmp(option->value, "FILE", 4) == 0 ? "any"
                                                 : strcmp(option->value, "FOLDER") == 0 ? "folders"
                                                                                        : "none");
        }
    }
}

/* A shell function that sets words, files and prefix from the words before the one to be completed. */
static void put_rules(void) {
    printf("_mdm_dist_rules() { # WORD-BEFORE CURRENT FIRST SECOND\n"
           "    local name=$3\n    words= files=none prefix=\n"
           "    case $name in\n    data) if [ -z \"$4\" ]; then words='");
    put_names("data");
    printf(" --help'; return; fi; name=\"data $4\" ;;\n    ");
    for (int i = 0, first = 1; i < mdm_manual_count(); i++)
        if (!mdm_manual_at(i)->hidden && !strchr(mdm_manual_at(i)->name, ' ')) {
            printf("%s%s", first ? "" : "|", mdm_manual_at(i)->name);
            first = 0;
        }
    printf(") ;;\n    *) name=train ;;\n    esac\n    case \"$name $1\" in\n");
    put_option_values();
    printf("    *) case $name in\n");
    put_cases();
    printf("    esac ;;\n    esac\n    case $2 in\n");
    put_key_values();
    printf("    esac\n    if [ -z \"$3$prefix\" ]; then words=\"$words");
    put_names(NULL);
    printf(" --version\"; fi\n}\n");
}

static void print_bash(void) {
    printf("# bash completion of mdm-dist, made by: mdm-dist completion bash\n");
    put_rules();
    printf("_mdm_dist() {\n"
           "    local words files prefix current previous first= second= w\n"
           "    local IFS=$' \\t\\n' line=${COMP_LINE:0:COMP_POINT}\n"
           "    local -a typed\n"
           "    read -ra typed <<<\"$line\"\n"
           "    [[ $line == *[[:space:]] ]] && typed+=('')\n"
           "    current=${typed[${#typed[@]}-1]} previous=${typed[${#typed[@]}-2]}\n"
           "    ((${#typed[@]} > 2)) && first=${typed[1]}\n"
           "    ((${#typed[@]} > 3)) && second=${typed[2]}\n"
           "    _mdm_dist_rules \"$previous\" \"$current\" \"$first\" \"$second\"\n"
           "    current=${current#\"$prefix\"}\n"
           "    case $files in any) files=-f ;; folders) files=-d ;; *) files= ;; esac\n"
           "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\"\n"
           "                             [[ $files ]] && compgen $files -- \"$current\")\n"
           "    for w in \"${COMPREPLY[@]}\"; do\n"
           "        if [[ $w == *= || -d $w ]]; then compopt -o nospace 2>/dev/null; break; fi\n"
           "    done\n"
           "}\n"
           "complete -o filenames -F _mdm_dist mdm-dist\n");
}

static void print_zsh(void) {
    printf("#compdef mdm-dist\n# zsh completion of mdm-dist, made by: mdm-dist completion zsh\n");
    put_rules();
    printf(
        "_mdm_dist() {\n"
        "    local words_typed=(\"${(@)words[1,CURRENT]}\") at=$CURRENT\n"
        "    local first= second= prefix= files= current=$words_typed[at] previous=$words_typed[at-1]\n"
        "    (( at > 2 )) && first=$words_typed[2]\n"
        "    (( at > 3 )) && second=$words_typed[3]\n"
        "    local words\n"
        "    setopt localoptions shwordsplit\n"
        "    _mdm_dist_rules \"$previous\" \"$current\" \"$first\" \"$second\"\n"
        "    local plain=() open=() w\n"
        "    for w in $words; do if [[ $w == *= ]]; then open+=$w; else plain+=$prefix$w; fi; done\n"
        "    compadd -a plain\n"
        "    compadd -S '' -a open\n"
        "    [[ -n $prefix ]] && compset -P \"$prefix\"\n"
        "    case $files in any) _files ;; folders) _files -/ ;; esac\n"
        "}\n"
        "if [ \"$funcstack[1]\" = _mdm-dist ]; then _mdm_dist \"$@\"; else compdef _mdm_dist mdm-dist; fi\n");
}

/* fish has one rule a line, and shows the meaning beside each word. */
static void put_quoted(const char *text) {
    putchar('\'');
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\') putchar('\\');
        putchar(*text);
    }
    putchar('\'');
}

static void put_fish_condition(const mdm_manual *page) {
    const char *second = strchr(page->name, ' ');
    if (strcmp(page->name, "train") == 0) {
        printf("'not __fish_seen_subcommand_from");
        for (int i = 0; i < mdm_manual_count(); i++)
            if (strcmp(mdm_manual_at(i)->name, "train") != 0)
                printf(" %.*s", (int)strcspn(mdm_manual_at(i)->name, " "), mdm_manual_at(i)->name);
        putchar('\'');
    } else
        printf("'__fish_seen_subcommand_from %.*s%s%s'", (int)strcspn(page->name, " "), page->name,
               second ? "; and __fish_seen_subcommand_from" : "", second ? second : "");
}

static void print_fish_page(const mdm_manual *page) {
    const char *second = strchr(page->name, ' ');
    if (second)
        printf("complete -c mdm-dist -f -n '__fish_seen_subcommand_from %.*s; and test (count (commandline "
               "-opc)) -eq "
               "2' -a %s -d ",
               (int)(second - page->name), page->name, second + 1);
    else
        printf("complete -c mdm-dist -n __fish_use_subcommand -a %s -d ", page->name);
    put_quoted(page->summary);
    putchar('\n');
    for (int i = 0; i < MDM_MANUAL_MOST_OPTIONS && page->options[i].name; i++) {
        const mdm_option *o = &page->options[i];
        printf("complete -c mdm-dist -n ");
        put_fish_condition(page);
        printf(" -l %s", o->name + 2);
        if (o->value && strchr(o->value, '|')) {
            printf(" -x -a '");
            put_choices(o->value);
            putchar('\'');
        } else if (o->value) {
            printf("%s", strncmp(o->value, "FILE", 4) == 0 ? " -r"
                         : strcmp(o->value, "FOLDER") == 0 ? " -x -a '(__fish_complete_directories)'"
                                                           : " -x");
        }
        printf(" -d ");
        put_quoted(o->meaning);
        putchar('\n');
    }
    if (page->choices) {
        printf("complete -c mdm-dist -f -n ");
        put_fish_condition(page);
        printf(" -a '");
        put_choices(page->choices);
        printf("'\n");
    }
}

static void print_fish_keys(const mdm_manual *page) {
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        printf("complete -c mdm-dist -n ");
        put_fish_condition(page);
        printf(" -a '%s=", key->name);
        if (key->type == MDM_CONFIG_BOOLEAN) printf("true %s=false", key->name);
        for (int w = 0; key->type == MDM_CONFIG_WORD && key->words[w]; w++)
            printf(w ? " %s=%s" : "%.0s%s", key->name, key->words[w]);
        printf("' -d ");
        put_quoted(key->meaning);
        putchar('\n');
    }
}

static void print_fish(void) {
    printf("# fish completion of mdm-dist, made by: mdm-dist completion fish\n"
           "complete -c mdm-dist -n __fish_use_subcommand -a data -d 'make and look at data set files'\n");
    for (int i = 0; i < mdm_manual_count(); i++) {
        const mdm_manual *page = mdm_manual_at(i);
        if (page->hidden) continue;
        print_fish_page(page);
        if (page->words & MDM_WORD_KEY) print_fish_keys(page);
    }
}

mdm_status mdm_command_completion(int argc, char **argv) {
    mdm_arguments a;
    MDM_TRY(mdm_arguments_read("completion", argc, argv, &a));
    if (a.word_count != 1)
        return mdm_fail(MDM_USAGE, "completion needs the name of a shell: bash, zsh or fish");
    if (strcmp(a.words[0], "bash") == 0)
        print_bash();
    else if (strcmp(a.words[0], "zsh") == 0)
        print_zsh();
    else if (strcmp(a.words[0], "fish") == 0)
        print_fish();
    else
        return mdm_fail(MDM_USAGE, "completion %s: there is bash, zsh and fish", a.words[0]);
    return MDM_OK;
}

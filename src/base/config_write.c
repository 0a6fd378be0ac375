/* The configuration as text: config.yaml, the commented template, and --help-config, all from the table of
 * keys. */
#include "config_internal.h"
#include <stdlib.h>
#include <string.h>

/* Length of the section's name; 0 for keys of the top and for those of `run`, whose name is a key itself. */
static int section_length(const char *name) {
    const char *dot = strchr(name, '.');
    if (dot == NULL) return 0;
    char section[64];
    snprintf(section, sizeof section, "%.*s", (int)(dot - name), name);
    return mdm_config_find(section) != NULL ? 0 : (int)(dot - name);
}

/* Starts a new section when `key` is its first. Returns the part of the key's name to write. */
static const char *open_section(const mdm_config_key *key, const char **section, mdm_text *text,
                                const char *before) {
    int length = section_length(key->name);
    if (length == 0) return key->name;
    if (*section == NULL || strncmp(*section, key->name, (size_t)length + 1) != 0) {
        mdm_text_add(text, "%s%.*s:\n", before, length, key->name);
        *section = key->name;
    }
    return key->name + length + 1;
}

/* Plain where nobody can take it for anything else, otherwise between single quotes, in which only ' is
 * special. */
static void add_scalar(const mdm_config_key *key, const char *value, mdm_text *text) {
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-";
    int quoted = key->type == MDM_CONFIG_STRING && (strspn(value, plain) != strlen(value) || value[0] == '-');
    quoted |= key->type == MDM_CONFIG_FRACTION_OR_FILE && strspn(value, plain) != strlen(value);
    if (!quoted) {
        mdm_text_add_bytes(text, value, strlen(value));
        return;
    }
    mdm_text_add_bytes(text, "'", 1);
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == '\'') mdm_text_add_bytes(text, "'", 1);
        mdm_text_add_bytes(text, c, 1);
    }
    mdm_text_add_bytes(text, "'", 1);
}

void mdm_config_write(const mdm_config *config, mdm_text *text) {
    const char *section = NULL;
    char value[MDM_CONFIG_TEXT];
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        const char *name = open_section(key, &section, text, "");
        mdm_text_add(text, "%s%s: ", section != NULL ? "  " : "", name);
        add_scalar(key, mdm_config_format(config, key, value, sizeof value), text);
        mdm_text_add(text, "\n");
    }
}

/* "all epochs (epochs; a whole number from 1 to 1000000)" in lines of at most `width` bytes that begin with
 * `start`. */
static void add_wrapped(const char *words, const char *start, size_t width, mdm_text *text) {
    while (*words != '\0') {
        size_t room = width - strlen(start), length = strlen(words);
        if (length > room) {
            length = room;
            while (length > 0 && words[length] != ' ') length--;
            if (length == 0) length = room;
        }
        mdm_text_add(text, "%s%.*s\n", start, (int)length, words);
        words += length;
        while (*words == ' ') words++;
    }
}

static void add_meaning(const mdm_config_key *key, const char *start, mdm_text *text) {
    char allowed[256], words[768];
    mdm_config_allowed(key, allowed, sizeof allowed);
    int told = key->type == MDM_CONFIG_STRING; /* "a name" says nothing */
    snprintf(words, sizeof words, "%s%s%s%s%s%s", key->meaning, key->unit[0] != '\0' || !told ? " (" : "",
             key->unit, key->unit[0] != '\0' && !told ? "; " : "", told ? "" : allowed,
             key->unit[0] != '\0' || !told ? ")" : "");
    add_wrapped(words, start, 118, text);
}

void mdm_config_write_template(mdm_text *text) {
    const char *section = NULL;
    mdm_text_add(
        text,
        "# Every key with its default; copy the file and keep the lines that differ. Made from the table of "
        "keys, as is\n# mdm-dist train --help-config. A key may also be given as an argument: "
        "mdm-dist my.yaml train.epochs=50\n\n");
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        const char *name = open_section(key, &section, text, "\n"), *margin = section != NULL ? "  " : "";
        add_meaning(key, section != NULL ? "  # " : "# ", text);
        if (strcmp(key->name, "run") == 0)
            mdm_text_add(text, "# run: runs/my-run\n");
        else if (strcmp(key->name, "data.train") == 0)
            mdm_text_add(text, "%s%s: datasets/my-data.h5\n", margin, name);
        else
            mdm_text_add(text, "%s%s: %s\n", margin, name, key->initial);
    }
}

void mdm_config_help(FILE *file) {
    mdm_text text = {0};
    const char *section = NULL;
    mdm_text_add(
        &text,
        "Keys of the configuration, as lines of CONFIG.yaml or as arguments key=value; [default].\n\n");
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        const char *before = section;
        int length = section_length(key->name);
        if (length > 0 && (before == NULL || strncmp(before, key->name, (size_t)length + 1) != 0)) {
            mdm_text_add(&text, "\n");
            section = key->name;
        }
        mdm_text_add(&text, "%s [%s]\n", key->name, key->initial);
        add_meaning(key, "    ", &text);
    }
    if (!text.failed && text.data != NULL) fwrite(text.data, 1, text.length, file);
    free(text.data);
}

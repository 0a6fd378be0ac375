/* The configuration's values: from text to a checked field of mdm_config and back, defaults, nearest names,
 * hash.
 *
 * All ways in (file, argument, default) end in mdm_config_set_key(), so every value is checked by the same
 * few lines.
 */
#define _GNU_SOURCE /* strtod_l */
#include "config_internal.h"
#include "mdm/base/text.h"
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { QUOTE = 80 }; /* bytes of a value or name that a message shows */

static void *field_of(mdm_config *config, const mdm_config_key *key) {
    return (char *)config + key->offset;
}

/* ---- numbers ---- */

int mdm_config_parse_real(const char *text, double *value) {
    size_t length = strlen(text);
    if (length == 0 || length > 64 || strspn(text, "0123456789+-.eE") != length) return 0;
    locale_t plain = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
    if (plain == (locale_t)0) return 0;
    char *end = NULL;
    errno = 0;
    *value = strtod_l(text, &end, plain);
    int good = end == text + length && errno == 0 && isfinite(*value);
    freelocale(plain);
    return good && !(*value == 0 && signbit(*value)); /* -0 is nobody's intention */
}

/* Whole numbers in the one spelling that nobody reads as octal or as a real. */
static int parse_integer(const char *text, int64_t *value) {
    const char *digits = text + (*text == '-' || *text == '+');
    size_t length = strlen(digits);
    if (length == 0 || strspn(digits, "0123456789") != length) return 0;
    if (digits[0] == '0' && (length > 1 || *text == '-')) return 0;
    errno = 0;
    *value = strtoll(text, NULL, 10);
    return errno == 0;
}

/* The fewest digits that read back as the same number; with a point in front of an exponent, which YAML 1.1
 * wants. */
static void format_real(double value, char *out, size_t size) {
    char digits[40] = "0", back[40];
    int precision =
        fabs(value) >= 10 && fabs(value) < 1e9 ? 1 + (int)log10(fabs(value)) : 1; /* 100, not 1e+02 */
    for (; precision <= 17; precision++) {
        double again = 0;
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        for (char *c = digits; *c != '\0'; c++)
            if (*c == ',') *c = '.';
        if (mdm_config_parse_real(digits, &again) && again == value) break;
    }
    char *exponent = strchr(digits, 'e');
    if (exponent != NULL && strchr(digits, '.') == NULL) {
        snprintf(back, sizeof back, "%s", exponent);
        snprintf(out, size, "%.*s.0%s", (int)(exponent - digits), digits, back);
    } else {
        snprintf(out, size, "%s", digits);
    }
}

static int in_range(const mdm_config_key *key, double value) {
    if (value < key->low || value > key->high) return 0;
    if (value == key->low && (key->flags & MDM_CONFIG_OPEN_LOW)) return 0;
    return !(value == key->high && (key->flags & MDM_CONFIG_OPEN_HIGH));
}

/* ---- text ---- */

/* Reads one code point of UTF-8 and moves `text` on; -1 when the bytes are not UTF-8. */
static int32_t next_code_point(const unsigned char **text) {
    const unsigned char *s = *text;
    if (s[0] < 0x80) {
        *text += 1;
        return s[0];
    }
    int more = s[0] >= 0xF0 && s[0] <= 0xF4  ? 3
               : s[0] >= 0xE0 && s[0] < 0xF0 ? 2
               : s[0] >= 0xC2 && s[0] < 0xE0 ? 1
                                             : 0;
    if (more == 0) return -1;
    int32_t point = s[0] & (0x3F >> more);
    for (int i = 1; i <= more; i++) {
        if ((s[i] & 0xC0) != 0x80) return -1;
        point = (point << 6) | (s[i] & 0x3F);
    }
    if (point < (more == 3 ? 0x10000 : more == 2 ? 0x800 : 0x80)) return -1;
    if (point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) return -1;
    *text += more + 1;
    return point;
}

int mdm_config_is_printable(const char *text) {
    const unsigned char *at = (const unsigned char *)text;
    while (*at != '\0') {
        int32_t point = next_code_point(&at);
        if (point < 0x20 || (point >= 0x7F && point < 0xA0)) return 0;
        /* Line and paragraph separators, byte order mark and non-characters would not survive config.yaml. */
        if (point == 0x2028 || point == 0x2029 || point == 0xFEFF || point == 0xFFFE || point == 0xFFFF)
            return 0;
    }
    return 1;
}

/* ---- messages ---- */

const char *mdm_config_nearest(const char *name, char *out, size_t size) {
    char written[QUOTE];
    snprintf(written, sizeof written, "%s", name);
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < mdm_config_key_count();
         i++) { /* "epochs" is part of more than one key: name them all */
        const char *key = mdm_config_key_at(i)->name, *dot = strrchr(key, '.');
        if (dot == NULL || strcmp(dot + 1, written) != 0 || used >= size) continue;
        used += (size_t)snprintf(out + used, size - used, "%s%s", used > 0 ? " or " : "", key);
    }
    if (used > 0) return out;
    int least = INT_MAX;
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const char *key = mdm_config_key_at(i)->name, *dot = strrchr(key, '.');
        int distance = mdm_edit_distance(written, key);
        if (dot != NULL &&
            strchr(written, '.') == NULL) { /* a section left out is one mistake, whatever its length */
            int last = mdm_edit_distance(written, dot + 1) + 1;
            if (last < distance) distance = last;
        }
        if (distance >= least) continue;
        least = distance;
        snprintf(out, size, "%s", key);
    }
    return out;
}

static void add_range(const mdm_config_key *key, const char *kind, char *out, size_t size) {
    char low[40], high[40];
    format_real(key->low, low, sizeof low);
    format_real(key->high, high, sizeof high);
    int open_low = key->flags & MDM_CONFIG_OPEN_LOW, open_high = key->flags & MDM_CONFIG_OPEN_HIGH;
    const char *between = open_low ? (open_high ? "and below" : "up to") : (open_high ? "to below" : "to");
    snprintf(out, size, "%s %s %s %s %s", kind, open_low ? "above" : "from", low, between, high);
}

const char *mdm_config_allowed(const mdm_config_key *key, char *out, size_t size) {
    char range[160];
    const char *word = key->words != NULL ? key->words[0] : NULL;
    switch (key->type) {
    case MDM_CONFIG_INTEGER:
        snprintf(range, sizeof range, "a whole number from %.0f to %.0f", key->low, key->high);
        break;
    case MDM_CONFIG_INTEGER64:
        snprintf(range, sizeof range, "a whole number from 0 to %lld", (long long)INT64_MAX);
        break;
    case MDM_CONFIG_REAL:
        add_range(key, "a number", range, sizeof range);
        break;
    case MDM_CONFIG_BOOLEAN:
        snprintf(range, sizeof range, "true or false");
        break;
    case MDM_CONFIG_WORD: {
        size_t used = 0;
        range[0] = '\0';
        for (int i = 0; key->words[i] != NULL && used < sizeof range; i++) {
            const char *between = i == 0 ? "" : key->words[i + 1] == NULL ? " or " : ", ";
            used += (size_t)snprintf(range + used, sizeof range - used, "%s%s", between, key->words[i]);
        }
        word = NULL;
        break;
    }
    case MDM_CONFIG_STRING:
        snprintf(range, sizeof range, "a name of at most %d bytes without control characters",
                 MDM_CONFIG_TEXT - 1);
        break;
    case MDM_CONFIG_FRACTION_OR_FILE:
        snprintf(range, sizeof range, "a fraction above 0 and below 1, or a file");
        break;
    }
    snprintf(out, size, "%s%s%s", word != NULL ? word : "", word != NULL ? ", or " : "", range);
    return out;
}

static mdm_status refuse(const char *source, const mdm_config_key *key, const char *value, const char *why) {
    char shown[QUOTE], place[QUOTE * 4], allowed[256];
    mdm_printable(source, place, sizeof place);
    mdm_printable(value, shown, sizeof shown);
    mdm_config_allowed(key, allowed, sizeof allowed);
    return mdm_fail(MDM_USAGE, "%s: %s is '%s', %s; allowed is %s", place, key->name, shown, why, allowed);
}

/* ---- setting and getting ---- */

static mdm_status set_integer(mdm_config *config, const mdm_config_key *key, const char *source,
                              const char *value) {
    int64_t number = 0;
    int special = key->words != NULL && strcmp(value, key->words[0]) == 0;
    if (!special) {
        if (!parse_integer(value, &number)) return refuse(source, key, value, "which is not a whole number");
        int good = key->type == MDM_CONFIG_INTEGER64 ? number >= 0 : in_range(key, (double)number);
        if (!good) return refuse(source, key, value, "which is out of range");
    }
    if (key->type == MDM_CONFIG_INTEGER64) {
        memcpy(field_of(config, key), &number, sizeof number);
    } else {
        int small = (int)number;
        memcpy(field_of(config, key), &small, sizeof small);
    }
    return MDM_OK;
}

static mdm_status set_word(mdm_config *config, const mdm_config_key *key, const char *source,
                           const char *value) {
    static const char *const truth[] = {"false", "true", NULL};
    const char *const *words = key->type == MDM_CONFIG_BOOLEAN ? truth : key->words;
    for (int i = 0; words[i] != NULL; i++) {
        if (strcmp(words[i], value) != 0) continue;
        memcpy(field_of(config, key), &i, sizeof i);
        return MDM_OK;
    }
    return refuse(source, key, value, "which it does not know");
}

static mdm_status set_string(mdm_config *config, const mdm_config_key *key, const char *source,
                             const char *value) {
    double number = 0;
    char *field = field_of(config, key);
    if (strlen(value) >= MDM_CONFIG_TEXT) return refuse(source, key, value, "which is too long");
    if (!mdm_config_is_printable(value))
        return refuse(source, key, value, "which has unprintable characters");
    int is_number = mdm_config_parse_real(value, &number);
    if (key->type == MDM_CONFIG_FRACTION_OR_FILE && is_number && !in_range(key, number))
        return refuse(source, key, value, "which is out of range");
    memset(field, 0, MDM_CONFIG_TEXT);
    if (key->words == NULL || strcmp(value, key->words[0]) != 0) memcpy(field, value, strlen(value));
    return MDM_OK;
}

mdm_status mdm_config_set_key(mdm_config *config, const char *source, const char *name, const char *value) {
    const mdm_config_key *key = mdm_config_find(name);
    if (key == NULL) {
        char shown[QUOTE], place[QUOTE * 4], near[256];
        return mdm_fail(MDM_USAGE,
                        "%s: unknown key '%s'; the nearest known key is %s (--help-config lists all)",
                        mdm_printable(source, place, sizeof place), mdm_printable(name, shown, sizeof shown),
                        mdm_config_nearest(name, near, sizeof near));
    }
    if (value[0] == '\0') return refuse(source, key, value, "which is empty");
    switch (key->type) {
    case MDM_CONFIG_INTEGER:
    case MDM_CONFIG_INTEGER64:
        return set_integer(config, key, source, value);
    case MDM_CONFIG_REAL: {
        double number = 0;
        if (!mdm_config_parse_real(value, &number))
            return refuse(source, key, value, "which is not a number");
        if (!in_range(key, number)) return refuse(source, key, value, "which is out of range");
        memcpy(field_of(config, key), &number, sizeof number);
        return MDM_OK;
    }
    case MDM_CONFIG_BOOLEAN:
    case MDM_CONFIG_WORD:
        return set_word(config, key, source, value);
    case MDM_CONFIG_STRING:
    case MDM_CONFIG_FRACTION_OR_FILE:
        return set_string(config, key, source, value);
    }
    return MDM_OK;
}

mdm_status mdm_config_set(mdm_config *config, const char *argument) {
    char name[QUOTE], source[QUOTE * 3], shown[QUOTE];
    snprintf(source, sizeof source, "argument '%s'", mdm_printable(argument, shown, sizeof shown));
    const char *equals = strchr(argument, '=');
    if (equals == NULL || equals == argument)
        return mdm_fail(MDM_USAGE, "%s: is neither a configuration file nor key=value", source);
    snprintf(name, sizeof name, "%.*s", equals - argument < QUOTE ? (int)(equals - argument) : QUOTE,
             argument);
    return mdm_config_set_key(config, source, name, equals + 1);
}

const char *mdm_config_format(const mdm_config *config, const mdm_config_key *key, char *out, size_t size) {
    const char *field = (const char *)config + key->offset;
    int number = 0;
    int64_t large = 0;
    double real = 0;
    switch (key->type) {
    case MDM_CONFIG_INTEGER:
        memcpy(&number, field, sizeof number);
        if (number == 0 && key->words != NULL)
            snprintf(out, size, "%s", key->words[0]);
        else
            snprintf(out, size, "%d", number);
        break;
    case MDM_CONFIG_INTEGER64:
        memcpy(&large, field, sizeof large);
        snprintf(out, size, "%lld", (long long)large);
        break;
    case MDM_CONFIG_REAL:
        memcpy(&real, field, sizeof real);
        format_real(real, out, size);
        break;
    case MDM_CONFIG_BOOLEAN:
        memcpy(&number, field, sizeof number);
        snprintf(out, size, "%s", number ? "true" : "false");
        break;
    case MDM_CONFIG_WORD:
        memcpy(&number, field, sizeof number);
        snprintf(out, size, "%s", key->words[number]);
        break;
    case MDM_CONFIG_STRING:
    case MDM_CONFIG_FRACTION_OR_FILE:
        snprintf(out, size, "%s", field[0] == '\0' && key->words != NULL ? key->words[0] : field);
        break;
    }
    return out;
}

const char *mdm_config_get(const mdm_config *config, const char *name, char *out, size_t size) {
    const mdm_config_key *key = mdm_config_find(name);
    return key != NULL ? mdm_config_format(config, key, out, size) : NULL;
}

void mdm_config_defaults(mdm_config *config) {
    memset(config, 0, sizeof *config);
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        /* Only a mistake in the table fails here. */
        if (mdm_config_set_key(config, "default", key->name, key->initial) != MDM_OK) abort();
    }
}

mdm_config_validation_kind mdm_config_validation(const mdm_config *config, double *fraction) {
    double number = 0;
    if (fraction != NULL) *fraction = 0;
    if (config->data.validation[0] == '\0') return MDM_VALIDATION_NONE;
    if (!mdm_config_parse_real(config->data.validation, &number)) return MDM_VALIDATION_FILE;
    if (fraction != NULL) *fraction = number;
    return MDM_VALIDATION_FRACTION;
}

int mdm_config_differences(const mdm_config *before, const mdm_config *now, char *text, size_t size) {
    char old[MDM_CONFIG_TEXT], new[MDM_CONFIG_TEXT];
    int differences = 0;
    *text = 0;
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        size_t length = strlen(text);
        if (!(key->flags & MDM_CONFIG_TRAINING)) continue;
        mdm_config_format(before, key, old, sizeof old);
        mdm_config_format(now, key, new, sizeof new);
        if (strcmp(old, new) == 0) continue;
        if (++differences <= 3)
            snprintf(text + length, size - length, "%s%s was %.80s and is %.80s", length ? ", " : "",
                     key->name, *old ? old : "empty", *new ? new : "empty");
        else if (differences == 4)
            snprintf(text + length, size - length, ", ...");
    }
    return differences;
}

uint64_t mdm_config_hash(const mdm_config *config) {
    char value[MDM_CONFIG_TEXT];
    uint64_t hash = 0;
    for (int i = 0; i < mdm_config_key_count(); i++) {
        const mdm_config_key *key = mdm_config_key_at(i);
        if (!(key->flags & MDM_CONFIG_TRAINING)) continue;
        /* Chained by the seed and by name, so that neither order nor neighbours can be confused. */
        hash = XXH3_64bits_withSeed(key->name, strlen(key->name), hash);
        mdm_config_format(config, key, value, sizeof value);
        hash = XXH3_64bits_withSeed(value, strlen(value), hash);
    }
    return hash;
}

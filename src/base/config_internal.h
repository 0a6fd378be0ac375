/* What the files of the configuration share. */
#ifndef MDM_BASE_CONFIG_INTERNAL_H
#define MDM_BASE_CONFIG_INTERNAL_H

#include "mdm/base/config.h"

enum { MDM_CONFIG_MOST_KEYS = 256 };

/* configs/quickstart.yaml as compiled in (made by config.cmake). */
extern const char mdm_config_quickstart_yaml[];
extern const size_t mdm_config_quickstart_length;

/* The key of that name, or NULL. */
const mdm_config_key *mdm_config_find(const char *name);
/* The known key nearest to `name`: those whose last part it is, otherwise by edit distance. Written to `out`.
 */
const char *mdm_config_nearest(const char *name, char *out, size_t size);
/* What `key` allows, in words: "a whole number from 1 to 100". Written to `out`. */
const char *mdm_config_allowed(const mdm_config_key *key, char *out, size_t size);
/* The value of `key` in `config` as text. Written to `out`. */
const char *mdm_config_format(const mdm_config *config, const mdm_config_key *key, char *out, size_t size);
/* `text` as a number with a decimal point, whatever the locale; 0 when it is not one or does not fit a
 * double. */
int mdm_config_parse_real(const char *text, double *value);
/* 1 when the bytes are UTF-8 without control characters and line breaks. */
int mdm_config_is_printable(const char *text);

#endif

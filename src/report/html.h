/* Pieces of HTML text. Whatever comes from a user goes through html_text(). Internal to this room. */
#ifndef MDM_REPORT_HTML_INTERNAL_H
#define MDM_REPORT_HTML_INTERNAL_H

#include "mdm/base/text.h"
#include <stdint.h>

/* `value` with &, <, >, " and ' escaped; control characters and broken UTF-8 become U+FFFD. NULL adds
 * nothing.
 */
void html_text(mdm_text *text, const char *value);
/* 12345 as 12,345. */
void html_count(mdm_text *text, int64_t value);
/* A number for people, about `digits` significant ones; "–" when it is not finite. */
void html_number(mdm_text *text, double value, int digits);
/* A share of 1 as "77.2 %". */
void html_percent(mdm_text *text, double share);
/* Seconds as "4 min 32 s". */
void html_duration(mdm_text *text, double seconds);
/* Bytes as a data: address. */
void html_data_url(mdm_text *text, const char *type, const uint8_t *bytes, size_t count);

/* The page around the sections: head with the style, skip link, header left open; and its end. `sections` are
 * pairs of address and name for the bar of links, ended by NULL. */
void html_open_page(mdm_text *text, const char *title, const char *const *sections);
void html_close_page(mdm_text *text, const char *version);
/* A section with its heading and one sentence on how to read it (HTML, may be NULL). */
void html_open_section(mdm_text *text, const char *address, const char *heading, const char *lead);
void html_close_section(mdm_text *text);

#endif

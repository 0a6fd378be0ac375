/* Lines and fields of texts that name pictures, as people and their editors write them. */
#ifndef MDM_DATA_LISTING_LINES_H
#define MDM_DATA_LISTING_LINES_H

#include "mdm/base/status.h"
#include <stddef.h>

typedef struct mdm_piece {
    const char *at;
    size_t length;
} mdm_piece;

/* The next line without its end (\n or \r\n); 0 when there is none. */
int mdm_next_line(const char **at, const char *end, mdm_piece *line);
/* Without the blanks and tabs around it. */
mdm_piece mdm_trim(mdm_piece piece);
/* Whether the text can be read by lines: no zero bytes, which strings end at. Skips the byte order mark that
 * editors of some systems put in front. */
MDM_MUST_CHECK mdm_status mdm_begin_text(const char **text, size_t *length, const char *name);

/* One field of a CSV record from *at on, unquoted as RFC 4180 says into `out` (as long as the text). Returns
 * what ended it: the separator, '\n', 0 for the end of the text, or -1 when a quote is not closed. Quotes are
 * letters like others where the separator is a tab. */
int mdm_next_field(const char **at, const char *end, char separator, char *out);

#endif

/* Lines and fields of texts that name pictures. */
#include "listing_lines.h"
#include <string.h>

int mdm_next_line(const char **at, const char *end, mdm_piece *line) {
    if (*at >= end) return 0;
    const char *stop = memchr(*at, '\n', (size_t)(end - *at));
    if (!stop) stop = end;
    *line = (mdm_piece){*at, (size_t)(stop - *at)};
    if (line->length && line->at[line->length - 1] == '\r') line->length--;
    *at = stop + 1;
    return 1;
}

static int is_blank(char c) {
    return c == ' ' || c == '\t';
}

mdm_piece mdm_trim(mdm_piece p) {
    while (p.length && is_blank(*p.at)) {
        p.at++;
        p.length--;
    }
    while (p.length && is_blank(p.at[p.length - 1])) p.length--;
    return p;
}

mdm_status mdm_begin_text(const char **text, size_t *length, const char *name) {
    int wide = *length >= 2 && (memcmp(*text, "\xff\xfe", 2) == 0 || memcmp(*text, "\xfe\xff", 2) == 0);
    if (wide) return mdm_fail(MDM_INPUT, "%s is UTF-16 text; save it as UTF-8", name);
    if (memchr(*text, 0, *length))
        return mdm_fail(MDM_INPUT, "%s holds zero bytes; it is no text file", name);
    if (*length >= 3 && memcmp(*text, "\xef\xbb\xbf", 3) == 0) {
        *text += 3;
        *length -= 3;
    }
    return MDM_OK;
}

int mdm_next_field(const char **at, const char *end, char separator, char *out) {
    int quoted = *at < end && **at == '"' && separator != '\t';
    if (quoted) (*at)++;
    for (; *at < end; (*at)++) {
        if (quoted && **at == '"') {
            if (*at + 1 < end && (*at)[1] == '"')
                (*at)++; /* a doubled quote stands for one */
            else {
                quoted = 0;
                continue;
            }
        } else if (!quoted && (**at == separator || **at == '\n')) {
            *out = 0;
            return *(*at)++;
        } else if (!quoted && **at == '\r')
            continue;
        *out++ = **at;
    }
    *out = 0;
    return quoted ? -1 : 0;
}

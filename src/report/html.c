/* From values to HTML text: escaped words, numbers as people write them, pictures as data: addresses. */
#include "html.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

void html_text(mdm_text *text, const char *value) {
    for (const unsigned char *s = (const unsigned char *)value; s && *s;) {
        size_t length = mdm_utf8_character(s);
        const char *entity = *s == '&'    ? "&amp;"
                             : *s == '<'  ? "&lt;"
                             : *s == '>'  ? "&gt;"
                             : *s == '"'  ? "&quot;"
                             : *s == '\'' ? "&#39;"
                                          : NULL;
        int control = (*s < 0x20 && *s != '\n' && *s != '\t') || *s == 0x7f;
        if (!length || control) entity = "\xef\xbf\xbd"; /* U+FFFD */
        if (entity)
            mdm_text_add_bytes(text, entity, strlen(entity));
        else
            mdm_text_add_bytes(text, (const char *)s, length);
        s += length ? length : 1;
    }
}

void html_count(mdm_text *text, int64_t value) {
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%" PRId64, value < 0 ? -value : value);
    if (value < 0) mdm_text_add(text, "\xe2\x88\x92"); /* minus */
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) mdm_text_add_bytes(text, ",", 1);
        mdm_text_add_bytes(text, digits + i, 1);
    }
}

void html_number(mdm_text *text, double value, int digits) {
    if (!isfinite(value)) {
        mdm_text_add(text, "\xe2\x80\x93");
        return;
    }
    double size = fabs(value);
    if (size >= 1000 && size < 1e15) {
        html_count(text, (int64_t)llround(value));
        return;
    }
    if (value < 0) mdm_text_add(text, "\xe2\x88\x92");
    mdm_text_add(text, "%.*g", digits, size);
}

void html_percent(mdm_text *text, double share) {
    if (isfinite(share))
        mdm_text_add(text, "%.1f\xc2\xa0%%", 100 * share);
    else
        mdm_text_add(text, "\xe2\x80\x93");
}

void html_duration(mdm_text *text, double seconds) {
    if (!isfinite(seconds)) {
        mdm_text_add(text, "\xe2\x80\x93");
        return;
    }
    if (seconds < 10) {
        mdm_text_add(text, "%.1f\xc2\xa0s", seconds);
        return;
    }
    long long s = llround(seconds);
    if (s >= 86400)
        mdm_text_add(text,
                     "%lld\xc2\xa0"
                     "d ",
                     s / 86400);
    if (s >= 3600) mdm_text_add(text, "%lld\xc2\xa0h ", s / 3600 % 24);
    if (s >= 60) mdm_text_add(text, "%lld\xc2\xa0min%s", s / 60 % 60, s < 3600 ? " " : "");
    if (s < 3600) mdm_text_add(text, "%lld\xc2\xa0s", s % 60);
}

void html_data_url(mdm_text *text, const char *type, const uint8_t *bytes, size_t count) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    mdm_text_add(text, "data:%s;base64,", type);
    for (size_t i = 0; i < count; i += 3) {
        size_t left = count - i;
        uint32_t three = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                         (left > 2 ? bytes[i + 2] : 0);
        char four[4] = {letters[three >> 18], letters[three >> 12 & 63],
                        left > 1 ? letters[three >> 6 & 63] : '=', left > 2 ? letters[three & 63] : '='};
        mdm_text_add_bytes(text, four, 4);
    }
}

void html_open_section(mdm_text *text, const char *address, const char *heading, const char *lead) {
    mdm_text_add(text, "<section id=\"%s\" aria-labelledby=\"h-%s\">\n<h2 id=\"h-%s\">%s</h2>\n", address,
                 address, address, heading);
    if (lead) mdm_text_add(text, "<p class=\"lead\">%s</p>\n", lead);
}

void html_close_section(mdm_text *text) {
    mdm_text_add(text, "</section>\n");
}

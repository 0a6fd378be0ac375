/* What all charts share: the figure with caption, legend and drawing, and the numbers of an axis. */
#include "chart.h"

#include <math.h>
#include <string.h>

void chart_legend(mdm_text *text, const char *const *names, const char *const *colors, int count) {
    mdm_text_add(text, "<ul class=\"legend\">");
    for (int i = 0; i < count; i++) {
        mdm_text_add(text, "<li><i style=\"background:var(--%s)\"></i>", colors[i]);
        html_text(text, names[i]);
        mdm_text_add(text, "</li>");
    }
    mdm_text_add(text, "</ul>");
}

void chart_caption(mdm_text *text, const chart_head *head, const char *kind) {
    mdm_text_add(text, "<figure class=\"%s\"><figcaption><b>", kind);
    html_text(text, head->title);
    mdm_text_add(text, "</b>");
    if (head->note) {
        mdm_text_add(text, "<span>");
        html_text(text, head->note);
        mdm_text_add(text, "</span>");
    }
    mdm_text_add(text, "</figcaption>");
}

/* Bytes of UTF-8 of three and more make letters of double width, those that go on make none. */
static int letter_width(char c) {
    unsigned char byte = (unsigned char)c;
    return (byte & 0xc0) == 0x80 ? 0 : byte >= 0xe0 ? 2 : 1;
}

int chart_name_width(const char *name) {
    int width = 0;
    for (; *name; name++) width += letter_width(*name);
    return width;
}

void chart_short_name(mdm_text *text, const char *name, int most) {
    char head[256];
    int all = chart_name_width(name), width = 0;
    const char *at = name;
    if (all <= most) {
        html_text(text, name);
        return;
    }
    for (; width + letter_width(*at) <= most / 2; at++) width += letter_width(*at);
    snprintf(head, sizeof head, "%.*s\xe2\x80\xa6", (int)(at - name), name);
    html_text(text, head);
    for (; all - width > most - 1 - most / 2 || letter_width(*at) == 0; at++) width += letter_width(*at);
    html_text(text, at);
}

void chart_open(mdm_text *text, const chart_head *head, const char *kind, int width, int height) {
    int n = head->number;
    mdm_text_add(text,
                 "<div class=\"plot\"><svg class=\"%s\" viewBox=\"0 0 %d %d\" role=\"img\" "
                 "aria-labelledby=\"c%d-t c%d-d\"><title id=\"c%d-t\">",
                 kind, width, height, n, n, n);
    html_text(text, head->title);
    mdm_text_add(text, "</title><desc id=\"c%d-d\">", n);
    html_text(text, head->description);
    mdm_text_add(text, "</desc>\n");
}

void chart_close_drawing(mdm_text *text) {
    mdm_text_add(text, "</svg></div>\n");
}

void chart_close(mdm_text *text) {
    mdm_text_add(text, "</figure>\n");
}

double chart_step(double range, int most) {
    if (!(range > 0) || !isfinite(range)) return 1;
    double raw = range / most, power = pow(10, floor(log10(raw)));
    if (raw <= power * (1 + 1e-9)) return power;
    if (raw <= 2 * power) return 2 * power;
    return raw <= 5 * power ? 5 * power : 10 * power;
}

int chart_ticks(double low, double high, double step, double *first) {
    enum { MOST_TICKS = 40 };
    *first = ceil(low / step - 1e-9) * step;
    double count = floor((high - *first) / step + 1e-6) + 1;
    return count >= 1 && count <= MOST_TICKS ? (int)count : 0;
}

void chart_axis_number(mdm_text *text, double value, double step, int percent) {
    double size = percent ? 100 * value : value, unit = percent ? 100 * step : step;
    int decimals = unit >= 1 ? 0 : (int)ceil(-log10(unit) - 1e-9);
    if (fabs(size) < unit * 1e-6) size = 0;
    if (fabs(size) >= 1000 && decimals == 0)
        html_number(text, size, 3);
    else
        mdm_text_add(text, "%s%.*f", size < 0 ? "\xe2\x88\x92" : "", decimals > 6 ? 6 : decimals, fabs(size));
    if (percent) mdm_text_add(text, "%%");
}

/* Stacked bars lying on their side, one a row, each with its name and numbers. */
#include "chart.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 440, ROW = 26, BAR = 15, TOP = 6, RIGHT = 62, MOST_NAME = 27 };

static double row_total(const chart_bars *c, const chart_row *row) {
    double sum = 0;
    for (int p = 0; p < c->parts; p++)
        if (isfinite(row->parts[p])) sum += row->parts[p];
    return sum;
}

static void add_value(mdm_text *t, const chart_bars *c, double value) {
    if (c->seconds)
        html_duration(t, value);
    else
        html_count(t, llround(value));
}

/* Of a change from one name to another each keeps its ends, and has the room that the other leaves. */
static void draw_name(mdm_text *t, const char *name, double y) {
    static const char arrow[] = " \xe2\x86\x92 ";
    const char *second = strstr(name, arrow);
    char first[256];
    int room = MOST_NAME - chart_name_width(arrow);
    mdm_text_add(t, "<text class=\"tick\" x=\"0\" y=\"%.1f\">", y);
    if (second && chart_name_width(name) > MOST_NAME) {
        snprintf(first, sizeof first, "%.*s", (int)(second - name), name);
        second += strlen(arrow);
        int wide = chart_name_width(first), other = chart_name_width(second);
        chart_short_name(t, first, other < room / 2 ? room - other : room / 2);
        html_text(t, arrow);
        chart_short_name(t, second, wide < room / 2 ? room - wide : room / 2);
    } else
        chart_short_name(t, name, MOST_NAME);
    mdm_text_add(t, "</text>");
}

static void draw_row(mdm_text *t, const chart_bars *c, const chart_row *row, double y, double left,
                     double most) {
    double total = row_total(c, row), scale = (WIDTH - RIGHT - left) / (c->share ? total : most), x = left;
    draw_name(t, row->name, y + 12);
    for (int p = 0; p < c->parts && total > 0; p++) {
        double width = isfinite(row->parts[p]) ? row->parts[p] * scale : 0;
        if (!(width > 0)) continue;
        mdm_text_add(
            t, "<rect style=\"fill:var(--%s)\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\"><title>",
            c->part_colors[p], x, y, width > 1.2 ? width - 0.8 : width, BAR);
        html_text(t, row->name);
        mdm_text_add(t, ", ");
        html_text(t, c->part_names[p]);
        mdm_text_add(t, ": ");
        add_value(t, c, row->parts[p]);
        mdm_text_add(t, "</title></rect>");
        x += width;
    }
    mdm_text_add(t, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\">", x + 7, y + 12);
    add_value(t, c, total);
    mdm_text_add(t, "</text>\n");
}

static void write_table(mdm_text *t, const chart_bars *c) {
    mdm_text_add(
        t, "<details><summary>Numbers</summary><div class=\"scroll\"><table><thead><tr><th scope=\"col\">");
    html_text(t, c->head.y_label);
    mdm_text_add(t, "</th>");
    for (int p = 0; p < c->parts; p++) {
        mdm_text_add(t, "<th scope=\"col\">");
        html_text(t, c->part_names[p]);
        mdm_text_add(t, "</th>");
    }
    mdm_text_add(t, "</tr></thead><tbody>");
    for (int r = 0; r < c->row_count; r++) {
        mdm_text_add(t, "<tr><th scope=\"row\">");
        html_text(t, c->rows[r].name);
        mdm_text_add(t, "</th>");
        for (int p = 0; p < c->parts; p++) {
            mdm_text_add(t, "<td>");
            if (isfinite(c->rows[r].parts[p])) add_value(t, c, c->rows[r].parts[p]);
            mdm_text_add(t, "</td>");
        }
        mdm_text_add(t, "</tr>");
    }
    mdm_text_add(t, "</tbody></table></div></details>");
}

void chart_draw_bars(mdm_text *t, const chart_bars *c) {
    double most = 0, left = 0;
    for (int r = 0; r < c->row_count; r++) {
        double total = row_total(c, &c->rows[r]), name = chart_name_width(c->rows[r].name);
        if (total > most) most = total;
        if (name > left) left = name;
    }
    left = (left > MOST_NAME ? MOST_NAME : left) * 6.6 + 14;
    if (!(most > 0)) most = 1;
    chart_caption(t, &c->head, "chart");
    if (c->parts > 1 && !c->no_legend) chart_legend(t, c->part_names, c->part_colors, c->parts);
    chart_open(t, &c->head, "bars", WIDTH, TOP * 2 + ROW * c->row_count);
    for (int r = 0; r < c->row_count; r++) draw_row(t, c, &c->rows[r], TOP + r * ROW, left, most);
    chart_close_drawing(t);
    write_table(t, c);
    chart_close(t);
}

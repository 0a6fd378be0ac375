/* Histograms in stacked parts, with fitted curves and a threshold. A bin that towers over all others is cut,
 * and says so. */
#include "chart.h"

#include <math.h>

enum { WIDTH = 400, HEIGHT = 236, LEFT = 40, RIGHT = 10, TOP = 32, BOTTOM = 40, CURVE_POINTS = 120 };

static double bin_total(const chart_histogram *h, int bin) {
    double sum = 0;
    for (int p = 0; p < h->parts; p++) sum += h->counts[p][bin];
    return sum;
}

/* The top of the axis: the largest bin, unless it is more than three times the second. */
static double choose_top(const chart_histogram *h) {
    double first = 0, second = 0;
    for (int b = 0; b < h->bins; b++) {
        double total = bin_total(h, b);
        if (total > first)
            second = first, first = total;
        else if (total > second)
            second = total;
    }
    double top = second > 0 && first > 3 * second ? 1.5 * second : first;
    double step = chart_step(top > 0 ? top : 1, 4);
    return ceil((top > 0 ? top : 1) / step - 1e-9) * step;
}

static void draw_bars(mdm_text *t, const chart_histogram *h, double top, double plot_width,
                      double plot_height) {
    double width = plot_width / h->bins, bottom = TOP + plot_height, span = (h->high - h->low) / h->bins;
    for (int b = 0; b < h->bins; b++) {
        double below = 0, total = bin_total(h, b);
        if (total <= 0) continue;
        mdm_text_add(t, "<g><title>");
        html_number(t, h->low + b * span, 3);
        mdm_text_add(t, " to ");
        html_number(t, h->low + (b + 1) * span, 3);
        for (int p = 0; p < h->parts; p++) {
            if (h->counts[p][b] <= 0) continue;
            mdm_text_add(t, "; ");
            html_text(t, h->part_names[p]);
            mdm_text_add(t, " %.0f", h->counts[p][b]);
        }
        mdm_text_add(t, "</title>");
        for (int p = 0; p < h->parts; p++) {
            double from = below < top ? below : top, to = below + h->counts[p][b];
            below = to;
            if (to > top) to = top;
            if (to <= from) continue;
            mdm_text_add(
                t, "<rect style=\"fill:var(--%s)\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>",
                h->part_colors[p], LEFT + b * width + 0.3, bottom - plot_height * to / top, width - 0.6,
                plot_height * (to - from) / top);
        }
        if (total > top) {
            double x = LEFT + (b + 0.5) * width;
            mdm_text_add(t, "<text class=\"cut\" x=\"%.1f\" y=\"%d\" text-anchor=\"%s\">\xe2\x86\x91 ",
                         x + (b > h->bins / 2 ? width / 2 : -width / 2), TOP - 5,
                         b > h->bins / 2 ? "end" : "start");
            html_count(t, (int64_t)total);
            mdm_text_add(t, "</text>");
        }
        mdm_text_add(t, "</g>");
    }
    mdm_text_add(t, "\n");
}

static void draw_curves(mdm_text *t, const chart_histogram *h, double top, double plot_width,
                        double plot_height) {
    for (int c = 0; c < h->curves; c++) {
        int open = 0;
        mdm_text_add(t, "<path class=\"curve\" style=\"stroke:var(--%s)\" d=\"", h->curve_colors[c]);
        for (int i = 0; i <= CURVE_POINTS; i++) {
            double x = h->low + (h->high - h->low) * i / CURVE_POINTS, y = h->curve(h->context, c, x);
            if (!isfinite(y) || y < 0.004 * top) { /* nothing to be seen there */
                open = 0;
                continue;
            }
            if (y > top) y = top;
            mdm_text_add(t, "%s%.1f %.1f", open ? "L" : "M", LEFT + plot_width * i / CURVE_POINTS,
                         TOP + plot_height * (1 - y / top));
            open = 1;
        }
        mdm_text_add(t, "\"><title>");
        html_text(t, h->curve_names[c]);
        mdm_text_add(t, "</title></path>");
    }
}

static void draw_axes(mdm_text *t, const chart_histogram *h, double top, double plot_width,
                      double plot_height) {
    double bottom = TOP + plot_height, step = chart_step(top, 4), first;
    for (int i = 0, count = chart_ticks(0, top, step, &first); i < count; i++) {
        double y = first + i * step, at = bottom - plot_height * y / top;
        mdm_text_add(t,
                     "<line class=\"grid\" x1=\"%d\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>"
                     "<text class=\"tick\" x=\"%d\" y=\"%.1f\" text-anchor=\"end\">",
                     LEFT, LEFT + plot_width, at, at, LEFT - 6, at + 4);
        chart_axis_number(t, y, step, 0);
        mdm_text_add(t, "</text>");
    }
    step = chart_step(h->high - h->low, 5);
    for (int i = 0, count = chart_ticks(h->low, h->high, step, &first); i < count; i++) {
        double x = first + i * step;
        mdm_text_add(t, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
                     LEFT + plot_width * (x - h->low) / (h->high - h->low), bottom + 17);
        chart_axis_number(t, x, step, 0);
        mdm_text_add(t, "</text>");
    }
    mdm_text_add(t, "<text class=\"label\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
                 LEFT + plot_width / 2, bottom + 34);
    html_text(t, h->head.x_label);
    mdm_text_add(t, "</text><text class=\"label\" x=\"0\" y=\"11\">");
    html_text(t, h->head.y_label);
    mdm_text_add(t, "</text>\n");
}

static void draw_mark(mdm_text *t, const chart_histogram *h, double plot_width, double plot_height) {
    if (!(h->mark > h->low && h->mark < h->high)) return;
    double x = LEFT + plot_width * (h->mark - h->low) / (h->high - h->low);
    int turn = x > LEFT + plot_width * 0.6;
    mdm_text_add(t,
                 "<line class=\"mark\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%.1f\"/>"
                 "<text class=\"marked\" x=\"%.1f\" y=\"%d\" text-anchor=\"%s\">",
                 x, x, TOP, TOP + plot_height, turn ? x - 5 : x + 5, TOP + 11, turn ? "end" : "start");
    html_text(t, h->mark_name);
    mdm_text_add(t, "</text>");
}

static void write_table(mdm_text *t, const chart_histogram *h) {
    double span = (h->high - h->low) / h->bins;
    mdm_text_add(
        t, "<details><summary>Numbers</summary><div class=\"scroll\"><table><thead><tr><th scope=\"col\">");
    html_text(t, h->head.x_label);
    mdm_text_add(t, ", from</th>");
    for (int p = 0; p < h->parts; p++) {
        mdm_text_add(t, "<th scope=\"col\">");
        html_text(t, h->part_names[p]);
        mdm_text_add(t, "</th>");
    }
    mdm_text_add(t, "</tr></thead><tbody>");
    for (int b = 0; b < h->bins; b++) {
        if (bin_total(h, b) <= 0) continue;
        mdm_text_add(t, "<tr><th scope=\"row\">");
        html_number(t, h->low + b * span, 3);
        mdm_text_add(t, "</th>");
        for (int p = 0; p < h->parts; p++) mdm_text_add(t, "<td>%.0f</td>", h->counts[p][b]);
        mdm_text_add(t, "</tr>");
    }
    mdm_text_add(t, "</tbody></table></div></details>");
}

void chart_draw_histogram(mdm_text *t, const chart_histogram *h) {
    double plot_width = WIDTH - LEFT - RIGHT, plot_height = HEIGHT - TOP - BOTTOM, top = choose_top(h);
    chart_caption(t, &h->head, "chart");
    chart_open(t, &h->head, "histogram", WIDTH, HEIGHT);
    draw_axes(t, h, top, plot_width, plot_height);
    draw_bars(t, h, top, plot_width, plot_height);
    draw_curves(t, h, top, plot_width, plot_height);
    draw_mark(t, h, plot_width, plot_height);
    chart_close_drawing(t);
    write_table(t, h);
    chart_close(t);
}

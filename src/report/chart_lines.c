/* Lines over epochs, with stages shaded and the lines named where they end; also ROC curves. */
#include "chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    WIDTH = 520,
    HEIGHT = 300,
    SQUARE = 400,
    LEFT = 46,
    TOP = 30,
    BOTTOM = 40,
    NAMES = 128,
    MOST_NAME = 17, /* letters that NAMES has room for */
    MOST_TABLE_ROWS = 60
};

typedef struct frame {
    double left, right, top, bottom; /* of the plot, in units of the drawing */
    double x_low, x_high, y_low, y_high;
} frame;

static double place_x(const frame *f, double x) {
    return f->left + (f->right - f->left) * (x - f->x_low) / (f->x_high - f->x_low);
}

static double place_y(const frame *f, double y) {
    return f->bottom - (f->bottom - f->top) * (y - f->y_low) / (f->y_high - f->y_low);
}

static void take(double value, double *low, double *high) {
    if (!isfinite(value)) return;
    if (!(value >= *low)) *low = value;
    if (!(value <= *high)) *high = value;
}

/* The ranges of the data, rounded outwards to whole steps. */
static void measure(const chart_lines *c, frame *f) {
    double x_low = NAN, x_high = NAN, y_low = NAN, y_high = NAN;
    for (int s = 0; s < c->series_count; s++)
        for (int64_t i = 0; i < c->series[s].count; i++) {
            if (!isfinite(c->series[s].y[i])) continue;
            take(c->series[s].x[i], &x_low, &x_high);
            take(c->series[s].y[i], &y_low, &y_high);
        }
    for (int b = 0; b < c->band_count; b++) {
        take(c->bands[b].from, &x_low, &x_high);
        take(c->bands[b].to, &x_low, &x_high);
    }
    for (int m = 0; m < c->mark_count; m++) take(c->marks[m].y, &y_low, &y_high);
    if (!(x_high > x_low)) x_high = x_low + 1;
    if (!isfinite(x_low)) x_low = 0, x_high = 1;
    if (!isfinite(y_low)) y_low = 0, y_high = 1;
    if (isfinite(c->low)) y_low = c->low;
    if (isfinite(c->high)) y_high = c->high;
    if (!(y_high > y_low)) y_low -= fabs(y_low) * 0.1 + 0.01, y_high += fabs(y_high) * 0.1 + 0.01;
    double step = chart_step(y_high - y_low, 5);
    f->x_low = x_low, f->x_high = x_high;
    f->y_low = isfinite(c->low) ? c->low : floor(y_low / step + 1e-9) * step;
    f->y_high = isfinite(c->high) ? c->high : ceil(y_high / step - 1e-9) * step;
    if (c->percent && !isfinite(c->high) && f->y_high > 1) f->y_high = 1;
}

static void draw_axes(mdm_text *t, const chart_lines *c, const frame *f) {
    double step = chart_step(f->y_high - f->y_low, 5), first;
    for (int i = 0, count = chart_ticks(f->y_low, f->y_high, step, &first); i < count; i++) {
        double y = first + i * step;
        mdm_text_add(t, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", f->left,
                     f->right, place_y(f, y), place_y(f, y));
        mdm_text_add(t, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", f->left - 7,
                     place_y(f, y) + 4);
        chart_axis_number(t, y, step, c->percent);
        mdm_text_add(t, "</text>");
    }
    step = chart_step(f->x_high - f->x_low, 6);
    if (!c->diagonal && step < 1) step = 1;
    for (int i = 0, count = chart_ticks(f->x_low, f->x_high, step, &first); i < count; i++) {
        double x = first + i * step;
        mdm_text_add(t, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", place_x(f, x),
                     f->bottom + 17);
        chart_axis_number(t, x, step, c->diagonal);
        mdm_text_add(t, "</text>");
    }
    mdm_text_add(t, "<line class=\"axis\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>\n", f->left,
                 f->right, f->bottom, f->bottom);
    mdm_text_add(t, "<text class=\"label\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
                 (f->left + f->right) / 2, f->bottom + 34);
    html_text(t, c->head.x_label);
    mdm_text_add(t, "</text><text class=\"label\" x=\"0\" y=\"11\">");
    html_text(t, c->head.y_label);
    mdm_text_add(t, "</text>\n");
}

static void draw_bands(mdm_text *t, const chart_lines *c, const frame *f) {
    for (int b = 0; b < c->band_count; b++) {
        double from = place_x(f, c->bands[b].from), to = place_x(f, c->bands[b].to);
        if (!(to > from)) continue;
        mdm_text_add(t, "<rect class=\"band%d\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>",
                     b % 2, from, f->top, to - from, f->bottom - f->top);
        html_text(t, c->bands[b].name);
        mdm_text_add(t, "</title></rect>");
        if (to - from < 6.2 * (double)strlen(c->bands[b].name)) continue;
        mdm_text_add(t, "<text class=\"stage\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">",
                     (from + to) / 2, f->bottom - 7);
        html_text(t, c->bands[b].name);
        mdm_text_add(t, "</text>");
    }
}

static void draw_series(mdm_text *t, const chart_series *s, const frame *f) {
    int64_t drawn = 0, last = -1;
    int open = 0;
    mdm_text_add(t, "<path class=\"line%s\" style=\"stroke:var(--%s)\" d=\"", s->dashed ? " dashed" : "",
                 s->color);
    for (int64_t i = 0; i < s->count; i++) {
        if (!isfinite(s->y[i]) || !isfinite(s->x[i])) {
            open = 0;
            continue;
        }
        mdm_text_add(t, "%s%.1f %.1f", open ? "L" : "M", place_x(f, s->x[i]), place_y(f, s->y[i]));
        open = 1;
        drawn++;
        last = i;
    }
    mdm_text_add(t, "\"><title>");
    html_text(t, s->name);
    mdm_text_add(t, "</title></path>");
    if (last >= 0 && drawn <= 40)
        for (int64_t i = 0; i < s->count; i++)
            if (isfinite(s->y[i])) {
                mdm_text_add(t, "<circle style=\"fill:var(--%s)\" r=\"%s\" cx=\"%.1f\" cy=\"%.1f\"><title>",
                             s->color, i == last ? "3.4" : "2.2", place_x(f, s->x[i]), place_y(f, s->y[i]));
                html_text(t, s->name);
                mdm_text_add(t, ", %g: %.4g</title></circle>", s->x[i], s->y[i]);
            }
    mdm_text_add(t, "\n");
}

/* Names of lines and levels, pushed apart so that none covers another. */
typedef struct tag {
    const char *name, *color;
    double value, at, wanted;
} tag;

static int by_place(const void *a, const void *b) {
    const tag *x = a, *y = b;
    return (x->wanted > y->wanted) - (x->wanted < y->wanted);
}

static void draw_names(mdm_text *t, const chart_lines *c, const frame *f) {
    tag tags[16];
    int count = 0;
    for (int s = 0; s < c->series_count && count < 16; s++)
        for (int64_t i = c->series[s].count - 1; i >= 0; i--) {
            if (!isfinite(c->series[s].y[i])) continue;
            tags[count++] = (tag){c->series[s].name, c->series[s].color, c->series[s].y[i], 0,
                                  place_y(f, c->series[s].y[i])};
            break;
        }
    for (int m = 0; m < c->mark_count && count < 16; m++)
        if (isfinite(c->marks[m].y))
            tags[count++] =
                (tag){c->marks[m].name, c->marks[m].color, c->marks[m].y, 0, place_y(f, c->marks[m].y)};
    qsort(tags, (size_t)count, sizeof *tags, by_place);
    double floor_at = f->top + 4;
    for (int i = 0; i < count; i++) {
        tags[i].at = tags[i].wanted > floor_at ? tags[i].wanted : floor_at;
        floor_at = tags[i].at + 15;
    }
    double ceiling = f->bottom + 2;
    for (int i = count - 1; i >= 0 && tags[i].at > ceiling; i--) {
        tags[i].at = ceiling;
        ceiling -= 15;
    }
    for (int i = 0; i < count; i++) {
        mdm_text_add(t, "<text class=\"name\" style=\"fill:var(--%s)\" x=\"%.1f\" y=\"%.1f\">", tags[i].color,
                     f->right + 8, tags[i].at + 4);
        chart_short_name(t, tags[i].name, MOST_NAME);
        mdm_text_add(t, "</text>");
    }
    mdm_text_add(t, "\n");
}

static void draw_marks(mdm_text *t, const chart_lines *c, const frame *f) {
    for (int m = 0; m < c->mark_count; m++)
        if (isfinite(c->marks[m].y))
            mdm_text_add(t,
                         "<line class=\"level\" style=\"stroke:var(--%s)\" x1=\"%.1f\" x2=\"%.1f\" "
                         "y1=\"%.1f\" y2=\"%.1f\"/>",
                         c->marks[m].color, f->left, f->right, place_y(f, c->marks[m].y),
                         place_y(f, c->marks[m].y));
    if (c->diagonal)
        mdm_text_add(t,
                     "<line class=\"level\" style=\"stroke:var(--muted)\" x1=\"%.1f\" x2=\"%.1f\" "
                     "y1=\"%.1f\" y2=\"%.1f\"/>",
                     f->left, f->right, f->bottom, f->top);
}

/* The numbers: x of all series together, thinned to what a reader can take in. */
static void write_table(mdm_text *t, const chart_lines *c) {
    mdm_text_add(
        t, "<details><summary>Numbers</summary><div class=\"scroll\"><table><thead><tr><th scope=\"col\">");
    html_text(t, c->head.x_label);
    mdm_text_add(t, "</th>");
    for (int s = 0; s < c->series_count; s++) {
        mdm_text_add(t, "<th scope=\"col\">");
        html_text(t, c->series[s].name);
        mdm_text_add(t, "</th>");
    }
    mdm_text_add(t, "</tr></thead><tbody>");
    int64_t next[16] = {0};
    for (int64_t row = 0;; row++) {
        double x = INFINITY;
        int64_t longest = 0;
        for (int s = 0; s < c->series_count && s < 16; s++) {
            if (c->series[s].count > longest) longest = c->series[s].count;
            if (next[s] < c->series[s].count && c->series[s].x[next[s]] < x) x = c->series[s].x[next[s]];
        }
        if (!isfinite(x)) break;
        int64_t every = longest / MOST_TABLE_ROWS + 1;
        int show = row % every == 0 || row == longest - 1;
        if (show) {
            mdm_text_add(t, "<tr><th scope=\"row\">");
            html_number(t, x, 4);
            mdm_text_add(t, "</th>");
        }
        for (int s = 0; s < c->series_count && s < 16; s++) {
            double y = NAN;
            while (next[s] < c->series[s].count && c->series[s].x[next[s]] <= x)
                y = c->series[s].y[next[s]++];
            if (!show) continue;
            mdm_text_add(t, "<td>");
            if (isfinite(y)) html_number(t, y, 4);
            mdm_text_add(t, "</td>");
        }
        if (show) mdm_text_add(t, "</tr>\n");
    }
    mdm_text_add(t, "</tbody></table></div></details>");
}

void chart_draw_lines(mdm_text *t, const chart_lines *c) {
    frame f = {.left = LEFT, .top = TOP, .right = WIDTH - NAMES, .bottom = HEIGHT - BOTTOM};
    if (c->diagonal) f.right = SQUARE - 24, f.bottom = SQUARE - BOTTOM;
    measure(c, &f);
    if (c->diagonal) f.x_low = 0, f.x_high = 1;
    chart_caption(t, &c->head, "chart");
    if (c->diagonal) {
        const char *names[16], *colors[16];
        int count = c->series_count < 16 ? c->series_count : 16;
        for (int s = 0; s < count; s++) names[s] = c->series[s].name, colors[s] = c->series[s].color;
        chart_legend(t, names, colors, count);
    }
    chart_open(t, &c->head, "lines", c->diagonal ? SQUARE : WIDTH, c->diagonal ? SQUARE : HEIGHT);
    draw_bands(t, c, &f);
    draw_axes(t, c, &f);
    draw_marks(t, c, &f);
    for (int s = 0; s < c->series_count; s++) draw_series(t, &c->series[s], &f);
    if (!c->diagonal) draw_names(t, c, &f);
    chart_close_drawing(t);
    write_table(t, c);
    chart_close(t);
}

/* Charts as SVG inside an HTML figure: a caption, the drawing with title and description for screen readers,
 * tooltips, and the numbers as a table behind it. Colours are names of the page's palette ("clean", "a"), so
 * that light and dark follow the reader. Internal to this room. */
#ifndef MDM_REPORT_CHART_INTERNAL_H
#define MDM_REPORT_CHART_INTERNAL_H

#include "html.h"

/* What all charts have. Titles and names may hold a user's text: they are escaped here. */
typedef struct chart_head {
    const char *title, *note; /* note: one line under the title, or NULL */
    const char *description;  /* what is to be seen, for those who cannot see it */
    const char *x_label, *y_label;
    int number; /* of the chart on the page: makes its ids unique */
} chart_head;

typedef struct chart_series {
    const char *name, *color;
    const double *x, *y; /* [count]; y that is not finite is left out, and the line broken there */
    int64_t count;
    int dashed;
} chart_series;
typedef struct chart_band {
    const char *name;
    double from, to;
} chart_band;
typedef struct chart_mark {
    const char *name, *color;
    double y;
} chart_mark;
typedef struct chart_lines {
    chart_head head;
    const chart_series *series;
    int series_count;
    const chart_band *bands; /* stages, shaded */
    int band_count;
    const chart_mark *marks; /* levels to compare with, across the whole chart */
    int mark_count;
    double low, high; /* of y; NAN: from the data */
    int percent;      /* y is a share of 1 */
    int diagonal;     /* a ROC: square, x and y in [0, 1], with the line of chance */
} chart_lines;
void chart_draw_lines(mdm_text *text, const chart_lines *chart);

enum { CHART_MOST_PARTS = 4, CHART_MOST_BINS = 80 };
typedef struct chart_histogram {
    chart_head head;
    double low, high; /* of x */
    int bins, parts;
    const char *part_names[CHART_MOST_PARTS], *part_colors[CHART_MOST_PARTS];
    double counts[CHART_MOST_PARTS][CHART_MOST_BINS];
    int curves; /* fitted curves, in counts a bin */
    const char *curve_names[2], *curve_colors[2];
    double (*curve)(const void *context, int number, double x);
    const void *context;
    double mark; /* a threshold at x; NAN: none */
    const char *mark_name;
} chart_histogram;
void chart_draw_histogram(mdm_text *text, const chart_histogram *chart);

typedef struct chart_row {
    const char *name;
    double parts[CHART_MOST_PARTS * 2];
} chart_row;
typedef struct chart_bars {
    chart_head head;
    const chart_row *rows;
    int row_count, parts;
    const char *part_names[CHART_MOST_PARTS * 2], *part_colors[CHART_MOST_PARTS * 2];
    int share;     /* every row fills the width */
    int seconds;   /* values are seconds, not counts */
    int no_legend; /* the page has it already */
} chart_bars;
void chart_draw_bars(mdm_text *text, const chart_bars *chart);

typedef struct chart_matrix {
    chart_head head;
    int classes;
    const char *const *names; /* [classes] */
    const int64_t *counts;    /* [classes, classes], row: given */
} chart_matrix;
void chart_draw_matrix(mdm_text *text, const chart_matrix *chart);

/* Shared by the files above. chart_caption() begins the figure, of that class in HTML, with title and note.
 */
void chart_caption(mdm_text *text, const chart_head *head, const char *kind);
/* How wide a name is, in letters of Latin script; those of East Asia count twice. */
int chart_name_width(const char *name);
/* The name, or where it is wider than `most` its two ends: names of one kind often differ at the end alone.
 */
void chart_short_name(mdm_text *text, const char *name, int most);
void chart_open(mdm_text *text, const chart_head *head, const char *kind, int width, int height);
void chart_close_drawing(mdm_text *text);
void chart_close(mdm_text *text);
void chart_legend(mdm_text *text, const char *const *names, const char *const *colors, int count);
/* A step of 1, 2 or 5 times a power of ten that parts `range` into at most `most` pieces. */
double chart_step(double range, int most);
/* How many multiples of the step lie from `low` to `high`, and the first of them; none where the step is
 * nothing beside such numbers. */
int chart_ticks(double low, double high, double step, double *first);
/* Text of an axis: short, as many decimals as `step` needs. */
void chart_axis_number(mdm_text *text, double value, double step, int percent);

#endif

/* A heat map of counts, row by row as shares: what became of each given label. */
#include "chart.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { SIDE = 560, MOST_NAMED = 24, MOST_NUMBERED = 12, MOST_LETTERS = 14, MOST_TABLE = 30 };

static int64_t row_sum(const chart_matrix *m, int row) {
    int64_t sum = 0;
    for (int c = 0; c < m->classes; c++) sum += m->counts[(int64_t)row * m->classes + c];
    return sum;
}

static void draw_cell(mdm_text *t, const chart_matrix *m, int given, int suggested, double left, double top,
                      double cell) {
    int64_t count = m->counts[(int64_t)given * m->classes + suggested];
    if (count == 0) return;
    double share = (double)count / (double)row_sum(m, given), x = left + cell * suggested,
           y = top + cell * given;
    /* the eye sees weak colours badly: the power lifts small shares */
    mdm_text_add(t,
                 "<g><rect style=\"fill:var(--%s);fill-opacity:%.2f\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
                 "height=\"%.1f\"/>",
                 given == suggested ? "clean" : "wrong", 0.04 + 0.96 * pow(share, 0.7), x + cell * 0.02,
                 y + cell * 0.02, cell * 0.96, cell * 0.96);
    if (share >= 0.005 || m->classes <= MOST_NAMED) {
        mdm_text_add(t, "<title>given ");
        html_text(t, m->names[given]);
        mdm_text_add(t, ", suggested ");
        html_text(t, m->names[suggested]);
        mdm_text_add(t, ": %" PRId64 " (", count);
        html_percent(t, share);
        mdm_text_add(t, ")</title>");
    }
    if (m->classes <= MOST_NUMBERED && share >= 0.005)
        mdm_text_add(t, "<text class=\"cell%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.0f</text>",
                     share > 0.5 ? " strong" : "", x + cell / 2, y + cell / 2 + 4, 100 * share);
    mdm_text_add(t, "</g>");
}

static void draw_names(mdm_text *t, const chart_matrix *m, double left, double top, double cell) {
    for (int c = 0; c < m->classes && m->classes <= MOST_NAMED; c++) {
        double middle = cell * (c + 0.5);
        mdm_text_add(t, "<text class=\"tick\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">", left - 8,
                     top + middle + 4);
        chart_short_name(t, m->names[c], MOST_LETTERS);
        mdm_text_add(t, "</text><text class=\"tick\" transform=\"translate(%.1f %.1f) rotate(-40)\">",
                     left + middle - 3, top - 8);
        chart_short_name(t, m->names[c], MOST_LETTERS);
        mdm_text_add(t, "</text>");
    }
    mdm_text_add(t, "\n");
}

/* The most frequent moves. */
static void write_table(mdm_text *t, const chart_matrix *m) {
    int64_t bound = INT64_MAX, place = -1, cells = (int64_t)m->classes * m->classes;
    mdm_text_add(t,
                 "<details><summary>Numbers: the most frequent changes</summary><div class=\"scroll\"><table>"
                 "<thead><tr><th scope=\"col\">given</th><th scope=\"col\">suggested</th><th scope=\"col\">"
                 "pictures</th><th scope=\"col\">of the given label</th></tr></thead><tbody>");
    for (int row = 0; row < MOST_TABLE; row++) {
        int64_t best = -1;
        for (int64_t i = 0; i < cells; i++) {
            int64_t n = m->counts[i];
            if (i / m->classes == i % m->classes || n == 0) continue;
            if (n > bound || (n == bound && i <= place)) continue;
            if (best < 0 || n > m->counts[best]) best = i;
        }
        if (best < 0) break;
        int given = (int)(best / m->classes);
        bound = m->counts[best];
        place = best;
        mdm_text_add(t, "<tr><th scope=\"row\">");
        html_text(t, m->names[given]);
        mdm_text_add(t, "</th><td>");
        html_text(t, m->names[best % m->classes]);
        mdm_text_add(t, "</td><td>%" PRId64 "</td><td>", bound);
        html_percent(t, (double)bound / (double)row_sum(m, given));
        mdm_text_add(t, "</td></tr>");
    }
    mdm_text_add(t, "</tbody></table></div></details>");
}

void chart_draw_matrix(mdm_text *t, const chart_matrix *m) {
    int named = m->classes <= MOST_NAMED;
    int longest = 0;
    for (int c = 0; c < m->classes; c++)
        if (chart_name_width(m->names[c]) > longest) longest = chart_name_width(m->names[c]);
    if (longest > MOST_LETTERS) longest = MOST_LETTERS;
    double left = named ? 24 + 6.6 * longest : 24, top = named ? 34 + 4.6 * longest : 24;
    double cell = (SIDE - left - (named ? 40 : 0)) / m->classes;
    chart_caption(t, &m->head, "chart matrix");
    chart_open(t, &m->head, "matrix", SIDE, (int)(top + cell * m->classes + 6));
    mdm_text_add(t,
                 "<text class=\"label\" x=\"0\" y=\"%.1f\">given \xe2\x86\x93</text>"
                 "<text class=\"label\" x=\"%.1f\" y=\"11\">suggested \xe2\x86\x92</text>",
                 top - 8, left > 60 ? left : 60);
    mdm_text_add(t, "<rect class=\"field\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", left,
                 top, cell * m->classes, cell * m->classes);
    draw_names(t, m, left, top, cell);
    for (int g = 0; g < m->classes; g++)
        for (int s = 0; s < m->classes; s++) draw_cell(t, m, g, s, left, top, cell);
    chart_close_drawing(t);
    write_table(t, m);
    chart_close(t);
}

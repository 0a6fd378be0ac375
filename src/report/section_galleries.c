/* Pictures to look at: the surest wrong labels, the strangest pictures, and pairs that are nearly the same.
 * Thumbnails stop when the page would grow too large. */
#include "report_sections.h"

#include "mdm/report/run_folder.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_SHOWN = 36, MOST_PAIRS = 12, SIDE = 96, MOST_BYTES = 700 << 10, MOST_CANDIDATES = 4000 };
/* Root mean square difference of grey levels up to which two pictures are nearly the same. */
static const double near_difference = 12;

static mdm_status add_image(report_page *p, int64_t sample, const char *alt, size_t *bytes) {
    report_picture picture;
    mdm_text *t = &p->text;
    MDM_TRY(report_picture_make(p->run, sample, SIDE, &picture));
    mdm_text_add(t, "<img width=\"%d\" height=\"%d\" loading=\"lazy\" alt=\"", picture.width, picture.height);
    html_text(t, alt);
    mdm_text_add(t, "\" src=\"");
    html_data_url(t, "image/png", picture.bytes, picture.count);
    mdm_text_add(t, "\">");
    *bytes += picture.count;
    free(picture.bytes);
    return MDM_OK;
}

static void add_name_of(report_page *p, int64_t sample) {
    const char *id = report_id(p->run, sample);
    mdm_text_add(&p->text, "<small>");
    if (id[0])
        html_text(&p->text, id);
    else
        mdm_text_add(&p->text, "#%" PRId64, sample);
    mdm_text_add(&p->text, "</small>");
}

static void add_truth(report_page *p, int64_t sample, int suggested) {
    const report_run *run = p->run;
    if (!run->truth) return;
    int32_t truth = run->truth[sample];
    int right = suggested ? truth == run->labels.suggested[sample] : truth < 0;
    mdm_text_add(&p->text, "<small class=\"%s\">%s ", right ? "yes" : "no", right ? "\xe2\x9c\x93" : "truly");
    html_text(&p->text, truth < 0 ? "of no class" : run->class_names[truth]);
    mdm_text_add(&p->text, "</small>");
}

static mdm_status add_item(report_page *p, int64_t sample, int mislabelled, size_t *bytes) {
    const report_labels *l = &p->run->labels;
    const char *given = p->run->class_names[l->given[sample]],
               *suggested = p->run->class_names[l->suggested[sample]];
    mdm_text *t = &p->text;
    char alt[256];
    snprintf(alt, sizeof alt, "Picture %" PRId64 ", given label %.80s, suggested %.80s", sample, given,
             suggested);
    mdm_text_add(t, "<li>");
    MDM_TRY(add_image(p, sample, alt, bytes));
    mdm_text_add(t, "<p>");
    if (mislabelled) {
        mdm_text_add(t, "<s>");
        html_text(t, given);
        mdm_text_add(t, "</s><b>");
        html_text(t, suggested);
        mdm_text_add(t, "</b>");
        if (isfinite(l->certain[sample])) {
            mdm_text_add(t, "<small>%.0f\xc2\xa0%% sure</small>", 100 * (double)l->certain[sample]);
        }
    } else {
        mdm_text_add(t, "<small>given</small><b>");
        html_text(t, given);
        mdm_text_add(t, "</b><small>distance %.2f</small>", (double)l->ood[sample]);
    }
    add_truth(p, sample, mislabelled);
    add_name_of(p, sample);
    mdm_text_add(t, "</p></li>\n");
    return MDM_OK;
}

static mdm_status add_gallery(report_page *p, const char *heading, const char *lead, int mislabelled) {
    int64_t index[MOST_SHOWN];
    float *score;
    size_t bytes = 0;
    mdm_status status = MDM_OK;
    MDM_TRY(MDM_ALLOCATE(score, p->run->labels.count + 1, "a gallery"));
    if (mislabelled)
        report_mislabelled_scores(p->run, score);
    else
        report_stranger_scores(p->run, score);
    int64_t found = report_largest(score, p->run->labels.count, index, MOST_SHOWN);
    free(score);
    mdm_text_add(&p->text, "<h3>%s</h3>\n<p class=\"lead\">%s</p>\n", heading,
                 found ? lead : "There are none.");
    if (!found) return MDM_OK;
    mdm_text_add(&p->text, "<ul class=\"gallery\">\n");
    for (int64_t i = 0; status == MDM_OK && i < found && bytes < MOST_BYTES; i++)
        status = add_item(p, index[i], mislabelled, &bytes);
    mdm_text_add(&p->text, "</ul>\n");
    return status;
}

/* A pair of pictures and how far they are apart. */
typedef struct pair {
    int64_t first, second;
    double difference;
} pair;

static int by_difference(const void *a, const void *b) {
    const pair *x = a, *y = b;
    if (x->difference != y->difference) return x->difference < y->difference ? -1 : 1;
    return (x->first > y->first) - (x->first < y->first);
}

static mdm_status measure_pair(const report_run *run, pair *p) {
    const mdm_store_info *info = mdm_store_get_info(run->store);
    int64_t index[2] = {p->first, p->second}, size = (int64_t)info->height * info->width * info->channels;
    const uint8_t *pictures[2];
    double sum = 0;
    MDM_TRY(mdm_store_fetch(run->store, MDM_TRAIN, index, 2, pictures));
    for (int64_t i = 0; i < size; i++) {
        double d = (double)pictures[0][i] - (double)pictures[1][i];
        sum += d * d;
    }
    p->difference = sqrt(sum / (double)size);
    return MDM_OK;
}

/* Nearest neighbours in the embedding are candidates, the pixels decide: a good classifier brings all
 * pictures of a class close together. Each pair once. */
static mdm_status find_pairs(const report_run *run, const mdm_division_network *network, pair *pairs,
                             int64_t *found) {
    int64_t *index, candidates;
    float *score;
    *found = 0;
    MDM_TRY(MDM_ALLOCATE(index, MOST_CANDIDATES, "near-duplicates"));
    mdm_status status = MDM_ALLOCATE(score, run->labels.count, "near-duplicates");
    for (int64_t i = 0; status == MDM_OK && i < run->labels.count; i++) {
        int64_t other = network->neighbour[i];
        int usable = other >= 0 && other < run->labels.count && (i < other || network->neighbour[other] != i);
        score[i] = usable ? 2 + network->similarity[i] : 0;
    }
    candidates = status == MDM_OK ? report_largest(score, run->labels.count, index, MOST_CANDIDATES) : 0;
    for (int64_t i = 0; status == MDM_OK && i < candidates; i++) {
        pair *p = &pairs[*found];
        *p = (pair){index[i], network->neighbour[index[i]], 0};
        status = measure_pair(run, p);
        if (status == MDM_OK && p->difference <= near_difference) ++*found;
    }
    free(index);
    free(score);
    if (status == MDM_OK) qsort(pairs, (size_t)*found, sizeof *pairs, by_difference);
    return status;
}

static mdm_status add_twins(report_page *p, const pair *twins, size_t *bytes) {
    const report_run *run = p->run;
    mdm_text *t = &p->text;
    int32_t first = run->labels.given[twins->first], second = run->labels.given[twins->second];
    char alt[160];
    mdm_text_add(t, "<li><div class=\"two\">");
    snprintf(alt, sizeof alt, "Picture %" PRId64 ", label %.80s", twins->first, run->class_names[first]);
    MDM_TRY(add_image(p, twins->first, alt, bytes));
    snprintf(alt, sizeof alt, "Picture %" PRId64 ", label %.80s", twins->second, run->class_names[second]);
    MDM_TRY(add_image(p, twins->second, alt, bytes));
    mdm_text_add(t, "</div><p><b>");
    html_text(t, run->class_names[first]);
    if (first != second) {
        mdm_text_add(t, " / ");
        html_text(t, run->class_names[second]);
    }
    mdm_text_add(t, "</b><small class=\"%s\">%s; %.1f grey levels apart</small>",
                 first == second ? "yes" : "no", first == second ? "same label" : "labels differ",
                 twins->difference);
    add_name_of(p, twins->first);
    add_name_of(p, twins->second);
    mdm_text_add(t, "</p></li>\n");
    return MDM_OK;
}

static mdm_status show_pairs(report_page *p, const pair *pairs, int64_t found) {
    size_t bytes = 0;
    int64_t differ = 0;
    mdm_status status = MDM_OK;
    for (int64_t i = 0; i < found; i++)
        differ += p->run->labels.given[pairs[i].first] != p->run->labels.given[pairs[i].second];
    if (found == 0) {
        mdm_text_add(&p->text,
                     "<p class=\"lead\">There are none: no picture's nearest neighbour is nearly the same "
                     "picture.</p>\n");
        return MDM_OK;
    }
    mdm_text_add(&p->text,
                 "<p class=\"lead\">%" PRId64 " pair%s of pictures are nearly the same, %" PRId64
                 " of them with different labels. Copies with two labels are worth a look; copies in "
                 "training and test set would flatter the accuracy.</p>\n<ul class=\"gallery pairs\">\n",
                 found, found == 1 ? "" : "s", differ);
    for (int64_t i = 0; status == MDM_OK && i < found && i < MOST_PAIRS && bytes < MOST_BYTES; i++)
        status = add_twins(p, &pairs[i], &bytes);
    mdm_text_add(&p->text, "</ul>\n");
    return status;
}

static mdm_status add_duplicates(report_page *p) {
    const report_run *run = p->run;
    mdm_division division;
    pair *pairs;
    int64_t found = 0;
    mdm_text_add(&p->text, "<h3>Nearly the same</h3>\n");
    char *path = run->division_count
                     ? mdm_run_folder_division(run->folder, run->divisions[run->division_count - 1])
                     : NULL;
    int read = path && mdm_division_read(path, 0, &division) == MDM_OK;
    free(path);
    if (!read || !division.network[0].neighbour || !division.network[0].similarity ||
        division.samples != run->labels.count) {
        if (read) mdm_division_free(&division);
        mdm_text_add(&p->text,
                     "<p class=\"lead\">Left out: the run's divisions name no nearest neighbours (runs of "
                     "earlier versions do not).</p>\n");
        return MDM_OK;
    }
    mdm_status status = MDM_ALLOCATE(pairs, MOST_CANDIDATES + 1, "near-duplicates");
    if (status == MDM_OK) status = find_pairs(run, &division.network[0], pairs, &found);
    if (status == MDM_OK) status = show_pairs(p, pairs, found);
    free(pairs);
    mdm_division_free(&division);
    return status;
}

mdm_status report_section_galleries(report_page *p) {
    if (!p->run->labels.count) return MDM_OK;
    html_open_section(&p->text, "pictures", "Pictures to look at", NULL);
    if (!p->run->store) {
        mdm_text_add(&p->text, "<p class=\"note\">The galleries are left out: ");
        html_text(&p->text, p->why_no_pictures ? p->why_no_pictures : "the data set file is not the run's");
        mdm_text_add(&p->text, ".</p>\n");
        html_close_section(&p->text);
        return MDM_OK;
    }
    mdm_status status = add_gallery(
        p, "Most certainly mislabelled",
        "By the networks' judgement the given label, struck out, is wrong and the suggested one right. "
        "<code>labels.csv</code>, sorted by <code>mislabelled_score</code>, has all of them in this order.",
        1);
    if (status == MDM_OK)
        status = add_gallery(
            p, "Most out of distribution",
            "Pictures unlike all others by the distance to their nearest neighbours: of no class of "
            "the set, damaged, or rare.",
            0);
    if (status == MDM_OK) status = add_duplicates(p);
    html_close_section(&p->text);
    return status;
}

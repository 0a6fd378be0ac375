/* From given labels, ensemble predictions and scores to labels.csv. */
#include "mdm/report/labels_csv.h"

#include "mdm/report/labels_rows.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *mdm_verdict_name(int verdict) {
    static const char *const names[] = {"clean", "mislabelled", "out_of_distribution"};
    return verdict >= MDM_CLEAN && verdict <= MDM_OUT_OF_DISTRIBUTION ? names[verdict] : NULL;
}

void mdm_labels_suggest(const float *probabilities, int64_t samples, int64_t classes, int32_t *suggested) {
    for (int64_t i = 0; i < samples; i++) {
        const float *row = probabilities + i * classes;
        int32_t best = 0;
        for (int64_t c = 1; c < classes; c++)
            if (row[c] > row[best]) best = (int32_t)c;
        suggested[i] = best;
    }
}

void mdm_labels_mean(const float *a, const float *b, int64_t samples, float *mean) {
    for (int64_t i = 0; i < samples; i++) mean[i] = b ? 0.5f * (a[i] + b[i]) : a[i];
}

void mdm_labels_count(const float *probabilities, const int32_t *given, int64_t samples, int64_t classes,
                      double *transition) {
    for (int64_t i = 0; i < samples; i++) {
        if (given[i] < 0 || given[i] >= classes) continue;
        double *of_label = transition + given[i] * classes;
        for (int64_t c = 0; c < classes; c++) of_label[c] += (double)probabilities[i * classes + c];
    }
}

void mdm_labels_scale(int64_t classes, double *transition) {
    for (int64_t c = 0; c < classes; c++) {
        double sum = 0;
        for (int64_t g = 0; g < classes; g++) sum += transition[g * classes + c];
        for (int64_t g = 0; g < classes && sum > 0; g++) transition[g * classes + c] /= sum;
    }
}

void mdm_labels_calibrate(const float *probabilities, const float *mixture, const int32_t *given,
                          int64_t samples, int64_t classes, const double *transition, float *clean) {
    for (int64_t i = 0; i < samples; i++) {
        const float *row = probabilities + i * classes;
        double all = 0, right = 0;
        int64_t g = given[i];
        for (int64_t c = 0; c < classes && g >= 0 && g < classes; c++) {
            double part = (double)row[c] * transition[g * classes + c];
            all += part;
            if (c == g) right = part;
        }
        clean[i] = (float)(0.5 * ((double)mixture[i] + (all > 0 ? right / all : 0)));
    }
}

void mdm_labels_mislabelled(const float *clean, const float *suggested_probability, const uint8_t *verdict,
                            int64_t samples, float *score) {
    for (int64_t i = 0; i < samples; i++)
        score[i] = verdict[i] == MDM_MISLABELLED ? (1.0f - clean[i]) * suggested_probability[i] : 0.0f;
}

static void add_number(mdm_text *text, float value) {
    if (isfinite(value)) mdm_text_add_json_number(text, (double)value);
}

static mdm_status add_row(mdm_text *text, const mdm_label_table *table, int64_t i) {
    const char *verdict = mdm_verdict_name(table->verdict[i]);
    if (!verdict) return mdm_fail(MDM_USAGE, "sample %" PRId64 " has no verdict", i);
    mdm_text_add(text, "%" PRId64 ",", i);
    if (table->ids && table->ids[i]) mdm_csv_field(text, table->ids[i]);
    mdm_text_add(text, ",%" PRId32 ",%" PRId32 ",", table->given[i], table->suggested[i]);
    add_number(text, table->clean_probability[i]);
    mdm_text_add_bytes(text, ",", 1);
    add_number(text, table->ood_score[i]);
    mdm_text_add(text, ",%s,", verdict);
    if (table->suggested_probability) add_number(text, table->suggested_probability[i]);
    mdm_text_add_bytes(text, ",", 1);
    if (table->mislabelled_score) add_number(text, table->mislabelled_score[i]);
    mdm_text_add_bytes(text, "\n", 1);
    return text->failed ? mdm_fail(MDM_RESOURCE, "out of memory for a row of labels.csv") : MDM_OK;
}

static mdm_status write_rows(mdm_writer *writer, const mdm_label_table *table, mdm_text *text) {
    enum { PIECE = 1 << 20 };
    mdm_text_add(text, "index,id,given,suggested,clean_probability,ood_score,verdict,suggested_probability,"
                       "mislabelled_score\n");
    for (int64_t i = 0; i < table->samples; i++) {
        MDM_TRY(add_row(text, table, i));
        if (text->length < PIECE) continue;
        MDM_TRY(mdm_writer_add(writer, text->data, text->length));
        text->length = 0;
    }
    if (text->failed) return mdm_fail(MDM_RESOURCE, "out of memory for labels.csv");
    return mdm_writer_add(writer, text->data, text->length);
}

mdm_status mdm_labels_write(const char *path, const mdm_label_table *table) {
    mdm_text text = {0};
    mdm_writer *writer;
    MDM_TRY(mdm_writer_open(path, &writer));
    mdm_status status = write_rows(writer, table, &text);
    free(text.data);
    if (status == MDM_OK) return mdm_writer_finish(writer);
    mdm_writer_drop(writer);
    return status;
}

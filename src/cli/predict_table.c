/* From predictions to rows of text. */
#include "predict_table.h"
#include "mdm/report/labels_rows.h"
#include <math.h>

void mdm_predict_head(mdm_text *text, mdm_predict_form form) {
    if (form == MDM_PREDICT_CSV)
        mdm_text_add(text, "path,class,name,confidence,ood_score,out_of_distribution\n");
    if (form == MDM_PREDICT_TABLE)
        mdm_text_add(text, "%5s  %10s  %9s  %-3s  %-16s  %s\n", "class", "confidence", "ood_score", "ood",
                     "name", "path");
}

static void add_csv(mdm_text *text, const mdm_model_notes *notes, const char *name, int best,
                    float confidence, float ood) {
    mdm_csv_field(text, name);
    mdm_text_add(text, ",%d,", best);
    if (notes->class_names) mdm_csv_field(text, notes->class_names[best]);
    mdm_text_add(text, ",");
    mdm_text_add_json_number(text, (double)confidence);
    mdm_text_add(text, ",");
    if (isfinite(ood)) mdm_text_add_json_number(text, (double)ood);
    mdm_text_add(text, ",%s\n", isfinite(ood) ? (ood > 1 ? "1" : "0") : "");
}

static void add_json(mdm_text *text, const mdm_model_notes *notes, const char *name, const float *probability,
                     int best, float ood) {
    mdm_text_add(text, "{\"path\":");
    mdm_text_add_json_string(text, name);
    mdm_text_add(text, ",\"class\":%d,\"name\":", best);
    mdm_text_add_json_string(text, notes->class_names ? notes->class_names[best] : "");
    mdm_text_add(text, ",\"confidence\":");
    mdm_text_add_json_number(text, (double)probability[best]);
    mdm_text_add(text, ",\"ood_score\":");
    mdm_text_add_json_number(text, (double)ood);
    mdm_text_add(text, ",\"out_of_distribution\":%s,\"probabilities\":[",
                 isfinite(ood) ? (ood > 1 ? "true" : "false") : "null");
    for (int c = 0; c < notes->spec.classes; c++) {
        if (c) mdm_text_add(text, ",");
        mdm_text_add_json_number(text, (double)probability[c]);
    }
    mdm_text_add(text, "]}\n");
}

void mdm_predict_row(mdm_text *text, mdm_predict_form form, const mdm_model_notes *notes, const char *name,
                     const float *probability, float ood) {
    int best = 0;
    for (int c = 1; c < notes->spec.classes; c++)
        if (probability[c] > probability[best]) best = c;
    if (form == MDM_PREDICT_CSV)
        add_csv(text, notes, name, best, probability[best], ood);
    else if (form == MDM_PREDICT_JSON)
        add_json(text, notes, name, probability, best, ood);
    else {
        char shown[256], class_name[256], score[16] = "-";
        if (isfinite(ood)) snprintf(score, sizeof score, "%.3f", (double)ood);
        mdm_text_add(
            text, "%5d  %10.4f  %9s  %-3s  %-16s  ", best, (double)probability[best], score,
            !isfinite(ood) ? "-"
            : ood > 1      ? "yes"
                           : "no",
            mdm_printable(notes->class_names ? notes->class_names[best] : "", class_name, sizeof class_name));
        mdm_text_add(text, "%s\n", mdm_printable(name, shown, sizeof shown));
    }
}

/* The sections of the page of one run. Each writes nothing when the run has nothing to say on it. Internal to
 * this room. */
#ifndef MDM_REPORT_SECTIONS_INTERNAL_H
#define MDM_REPORT_SECTIONS_INTERNAL_H

#include "chart.h"
#include "report_run.h"

typedef struct report_page {
    mdm_text text;
    const report_run *run;
    const char *why_no_pictures; /* when run->store is NULL */
    int charts;                  /* made so far */
} report_page;

void report_section_overview(report_page *page);
MDM_MUST_CHECK mdm_status
report_section_labels(report_page *page); /* verdicts by class, what became of each label */
MDM_MUST_CHECK mdm_status report_section_galleries(report_page *page);
MDM_MUST_CHECK mdm_status report_section_training(report_page *page);
MDM_MUST_CHECK mdm_status report_section_divisions(report_page *page);
MDM_MUST_CHECK mdm_status report_section_time(report_page *page);
void report_section_settings(report_page *page);

/* Epochs of one stage range and network as series: x and y [*count], to be freed by the caller. `value` picks
 * the figure. Baselines and pretraining count their own epochs. */
typedef double (*report_value)(const report_epoch *epoch, int part);
MDM_MUST_CHECK mdm_status report_pick(const report_run *run, int first_stage, int last_stage, char network,
                                      report_value value, int part, double **x, double **y, int64_t *count);
/* Accuracy on the test set over the epochs of training (not of baselines). */
double report_top1(const report_epoch *epoch, int part);
/* Warm-up and semi-supervised phase as bands of a chart: how many. */
int report_stage_bands(const report_run *run, chart_band bands[2]);

#endif

/* From a run folder to report.html, section by section. */
#include "mdm/report/report.h"

#include "mdm/report/run_folder.h"
#include "report_sections.h"

#include <stdlib.h>
#include <string.h>

static mdm_status write_sections(report_page *p) {
    static const char *const links[] = {"overview", "In short", "pictures", "Pictures",  "labels",
                                        "Labels",   "training", "Training", "divisions", "Divisions",
                                        "time",     "Time",     "settings", "Settings",  NULL};
    const char *shown[16] = {NULL};
    int count = 0;
    char title[300];
    for (int i = 0; links[i]; i += 2) {
        if (!p->run->labels.count && (strcmp(links[i], "pictures") == 0 || strcmp(links[i], "labels") == 0))
            continue;
        if (!p->run->division_count && strcmp(links[i], "divisions") == 0) continue;
        shown[count++] = links[i];
        shown[count++] = links[i + 1];
    }
    snprintf(title, sizeof title, "%s: training report", p->run->name);
    html_open_page(&p->text, title, shown);
    report_section_overview(p);
    MDM_TRY(report_section_galleries(p));
    MDM_TRY(report_section_labels(p));
    MDM_TRY(report_section_training(p));
    MDM_TRY(report_section_divisions(p));
    MDM_TRY(report_section_time(p));
    report_section_settings(p);
    const char *version = json_string_value(json_object_get(p->run->environment, "program_version"));
    html_close_page(&p->text, version ? version : "");
    return MDM_OK;
}

static mdm_status save(report_page *p, const char *out) {
    if (p->text.failed) return mdm_fail(MDM_RESOURCE, "not enough memory to put the report together");
    return mdm_write_file(out, p->text.data, p->text.length);
}

mdm_status mdm_report_write(const char *folder, mdm_store *store, const char *why, const char *out) {
    report_run run;
    report_page page = {.run = &run, .why_no_pictures = why};
    char *path = out ? strdup(out) : mdm_run_folder_member(folder, MDM_RUN_REPORT);
    mdm_status status = report_run_read(folder, store, &run);
    if (!path && status == MDM_OK) status = mdm_fail(MDM_RESOURCE, "out of memory for a path");
    if (status == MDM_OK) status = write_sections(&page);
    if (status == MDM_OK) status = save(&page, path);
    report_run_free(&run);
    free(page.text.data);
    free(path);
    return status;
}

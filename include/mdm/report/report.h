/* report.html: a finished run (or one under way) as one self-contained page; and a page that compares runs.
 *
 * Everything comes from the run folder; pictures, true labels and class names from the data set file. The
 * page has no script and loads nothing. Not collective: one rank writes it.
 */
#ifndef MDM_REPORT_REPORT_H
#define MDM_REPORT_REPORT_H

#include "mdm/base/status.h"
#include "mdm/data/store.h"

/* Writes the page of the run folder `run` to `out` (NULL: RUN/report.html). `store` is the run's data set,
 * borrowed; NULL leaves the galleries out, and the page tells `why`. One of another data set is not used.
 * MDM_INPUT when there is no run, MDM_RESOURCE when the page cannot be written. */
MDM_MUST_CHECK mdm_status mdm_report_write(const char *run, mdm_store *store, const char *why,
                                           const char *out);

/* Writes a page that sets `count` runs side by side to `out`. */
MDM_MUST_CHECK mdm_status mdm_report_compare(const char *const *runs, int count, const char *out);

#endif

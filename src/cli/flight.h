/* The records that supervisors leave in RUN/flight when a run fails: where each rank was, and its latest
 * collectives. */
#ifndef MDM_CLI_FLIGHT_H
#define MDM_CLI_FLIGHT_H

#include "mdm/base/watch.h"
#include <stddef.h>

/* Writes flight/rank-R.json; nothing when no folder is known or it cannot be written. Allocates nothing. */
void mdm_flight_record(mdm_watch_page *page, int rank, const char *host, char state, const char *why);
/* Which ranks did not come to the collective that this rank waits in, by the records of the others: a text
 * that begins with "; " or "". */
void mdm_flight_missing(mdm_watch_page *page, int rank, char *text, size_t size);

#endif

/* A number of independent pieces of work, done by several threads. */
#ifndef MDM_DATA_WORKERS_H
#define MDM_DATA_WORKERS_H

#include "mdm/base/status.h"
#include <stdint.h>

/* Processors of the affinity mask, shared among `ranks` ranks of the node; 1 to 64. */
int mdm_workers_count(int ranks);
/* Calls work(context, i) once for every 0 <= i < count, on up to `threads` threads, the caller's included.
 * After a failure no new pieces begin; the failure of the lowest i is returned, whatever the threads' order.
 * `progress` (may be NULL) is called by the caller's thread between pieces with the number of pieces begun.
 */
MDM_MUST_CHECK mdm_status mdm_workers_run(int threads, int64_t count,
                                          mdm_status (*work)(void *context, int64_t i),
                                          void (*progress)(void *context, int64_t begun), void *context);

#endif

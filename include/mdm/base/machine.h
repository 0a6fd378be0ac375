/* What the machine gives to this process: memory it may use, the program's own environment variables. Linux;
 * cgroups of both versions. */
#ifndef MDM_BASE_MACHINE_H
#define MDM_BASE_MACHINE_H

#include "mdm/base/status.h"
#include <stddef.h>

/* The smallest limit on the memory of this process in bytes: what the machine has, what the control groups
 * above this process allow together (all their processes), and the address space limit. `source` names it
 * (cut to `size`). Negative when nothing is known. */
double mdm_memory_limit(char *source, size_t size);

/* Like mdm_memory_limit, with the cgroup file system mounted at `root`, the process's groups listed in the
 * file `groups` (/proc/self/cgroup) and `machine` bytes in the machine: for tests. */
double mdm_memory_limit_of(const char *root, const char *groups, double machine, char *source, size_t size);

/* How many processes of this process's memory control group the kernel has killed for want of memory; 0 when
 * that is not told. */
long long mdm_memory_kills(void);

/* MDM_USAGE, naming the first, where an environment variable of this program (MDM_...) has a value that it
 * does not know and would pass over. Not set and empty are the same. */
MDM_MUST_CHECK mdm_status mdm_check_environment(void);
/* MDM_WATCH_FACTOR, by which all time limits are multiplied: 1 where it is not set, negative where it is no
 * number above 0 and up to 1000000. */
double mdm_watch_factor(void);

#endif

/* What the machine gives to this process: memory it may use. Linux; cgroups of both versions. */
#ifndef MDM_BASE_MACHINE_H
#define MDM_BASE_MACHINE_H

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

#endif

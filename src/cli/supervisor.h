/* The process that a launcher starts: it forks the worker and watches over it. */
#ifndef MDM_CLI_SUPERVISOR_H
#define MDM_CLI_SUPERVISOR_H

/* Forks. Returns in the worker. The parent never returns: it ends with the worker's exit code, or with 6 (4
 * when the kernel took the worker for want of memory) and one line when the worker died, stopped, or made no
 * progress for five times its longest pause (at least the stage's floor, or the lower one of
 * mdm_watch_reading(); MDM_WATCH_FACTOR scales both, for tests). Where nothing can be forked, or with
 * MDM_UNSUPERVISED=1 in the environment (debuggers), it returns without a parent. To be called before any
 * library is started. */
void mdm_supervise(void);

/* doctor RUN: what the supervisors recorded of a failure in that run folder, for people; "" when nothing. The
 * caller frees; NULL when out of memory. */
char *mdm_flight_describe(const char *run);

#endif

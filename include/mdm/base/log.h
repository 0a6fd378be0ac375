/* Talk for people, on stderr. Results go to stdout, never through here.
 *
 * Only rank 0 speaks unless a line is an error; the rank and verbosity are set once after start-up.
 */
#ifndef MDM_BASE_LOG_H
#define MDM_BASE_LOG_H

/* `rank` of `ranks`: lines of other ranks than 0 are dropped (errors are not). */
void mdm_log_set_rank(int rank, int ranks);

/* Called with every warning's text (to record it in metrics.jsonl); NULL for none. */
void mdm_log_set_warning_hook(void (*hook)(void *context, const char *text), void *context);

/* What only helps to find out why something is as it is: nothing without MDM_DEBUG=1 in the environment. */
void mdm_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));
void mdm_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void mdm_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void mdm_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The progress line of a stage: rewritten in place on a terminal, otherwise printed at most every 30 s (and
 * when `final`). Text without newline. Only rank 0 prints. */
void mdm_progress(const char *text, int final);

/* The same with a bar of the share done, 0 to 1, in front of the text on a terminal that is wide enough; the
 * text is cut at the terminal's edge. Coloured unless NO_COLOR is set (https://no-color.org); TERM=dumb
 * counts as no terminal. */
void mdm_progress_bar(double share, const char *text, int final);

/* Seconds of a monotonic clock. */
double mdm_seconds(void);

#endif

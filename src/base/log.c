/* From a message to a line on stderr: who may speak, what a terminal shows, and the progress line that is
 * rewritten in place there. The state is the process's own stderr, so there is one of it, behind one lock. */
#include "mdm/base/log.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { BAR_CELLS = 16 };
static const double seconds_between_progress_lines = 30.0;

static struct {
    pthread_mutex_t lock;
    int rank, ranks;
    void (*hook)(void *context, const char *text);
    void *hook_context;
    int line_open;        /* a progress line without line end stands on the terminal */
    double last_progress; /* when progress was last printed to a file; 0: never */
} stderr_state = {.lock = PTHREAD_MUTEX_INITIALIZER, .ranks = 1};

void mdm_log_set_rank(int rank, int ranks) {
    pthread_mutex_lock(&stderr_state.lock);
    stderr_state.rank = rank;
    stderr_state.ranks = ranks;
    pthread_mutex_unlock(&stderr_state.lock);
}

void mdm_log_set_warning_hook(void (*hook)(void *context, const char *text), void *context) {
    pthread_mutex_lock(&stderr_state.lock);
    stderr_state.hook = hook;
    stderr_state.hook_context = context;
    pthread_mutex_unlock(&stderr_state.lock);
}

/* One write per line, so that lines of several ranks on one terminal do not mix. The lock is held. Names in
 * the text may be a stranger's: no control characters on the terminal. */
static void write_line(const char *prefix, const char *text) {
    char line[2200];
    const char *clear = "";
    if (stderr_state.line_open) clear = "\r\033[K";
    stderr_state.line_open = 0;
    snprintf(line, sizeof line, "%s%s%s\n", clear, prefix, text);
    size_t length = strlen(line);
    if (length == sizeof line - 1) line[length - 1] = '\n';
    for (char *c = line + strlen(clear); *c; c++)
        if (((unsigned char)*c < 0x20 && *c != '\n') || *c == 0x7f) *c = '?';
    fwrite(line, 1, length, stderr);
    fflush(stderr);
}

void mdm_debug(const char *format, ...) {
    const char *wanted = getenv("MDM_DEBUG");
    if (stderr_state.rank != 0 || !wanted || strcmp(wanted, "1") != 0) return;
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&stderr_state.lock);
    write_line("debug: ", text);
    pthread_mutex_unlock(&stderr_state.lock);
}

void mdm_info(const char *format, ...) {
    if (stderr_state.rank != 0) return;
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&stderr_state.lock);
    write_line("", text);
    pthread_mutex_unlock(&stderr_state.lock);
}

void mdm_warn(const char *format, ...) {
    if (stderr_state.rank != 0) return;
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&stderr_state.lock);
    write_line("warning: ", text);
    void (*hook)(void *, const char *) = stderr_state.hook;
    void *context = stderr_state.hook_context;
    pthread_mutex_unlock(&stderr_state.lock);
    if (hook) hook(context, text); /* outside the lock: the hook may log */
}

void mdm_error(const char *format, ...) {
    char text[2048], prefix[64] = "error: ";
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&stderr_state.lock);
    if (stderr_state.rank != 0) snprintf(prefix, sizeof prefix, "error (rank %d): ", stderr_state.rank);
    write_line(prefix, text);
    pthread_mutex_unlock(&stderr_state.lock);
}

static int is_set(const char *variable) {
    const char *value = getenv(variable);
    return value && value[0];
}

static int can_rewrite_lines(void) {
    const char *kind = getenv("TERM");
    return isatty(STDERR_FILENO) && !(kind && strcmp(kind, "dumb") == 0);
}

static int shows_utf8(void) {
    static const char *const variables[] = {"LC_ALL", "LC_CTYPE", "LANG"}; /* the first that is set decides */
    for (int i = 0; i < 3; i++)
        if (is_set(variables[i]))
            return strstr(getenv(variables[i]), "UTF-8") || strstr(getenv(variables[i]), "utf8");
    return 0;
}

static int terminal_width(void) {
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* A bar of BAR_CELLS cells and a space after it. */
static void make_bar(char *bar, size_t size, double share) {
    int utf8 = shows_utf8(), filled = (int)(share * BAR_CELLS + 0.5);
    const char *full = utf8 ? "\xe2\x94\x81" : "#", *rest = utf8 ? "\xe2\x94\x80" : ".";
    const char *bright = is_set("NO_COLOR") ? "" : "\033[36m", *dim = is_set("NO_COLOR") ? "" : "\033[2m";
    size_t used = (size_t)snprintf(bar, size, "%s", bright);
    for (int i = 0; i < BAR_CELLS; i++) {
        if (i == filled) used += (size_t)snprintf(bar + used, size - used, "%s", dim);
        used += (size_t)snprintf(bar + used, size - used, "%s", i < filled ? full : rest);
    }
    snprintf(bar + used, size - used, "%s ", bright[0] ? "\033[0m" : "");
}

/* The lock is held. */
static void rewrite_line(double share, const char *text, int final) {
    char bar[32 + 4 * BAR_CELLS] = "";
    int width = terminal_width() - 1, length = (int)strlen(text);
    if (share >= 0 && width >= length + BAR_CELLS + 1) {
        make_bar(bar, sizeof bar, share < 1 ? share : 1);
        width -= BAR_CELLS + 1;
    }
    fprintf(stderr, "\r%s%.*s\033[K%s", bar, length < width ? length : width, text, final ? "\n" : "");
    fflush(stderr);
    stderr_state.line_open = !final;
}

void mdm_progress_bar(double share, const char *text, int final) {
    if (stderr_state.rank != 0) return;
    pthread_mutex_lock(&stderr_state.lock);
    if (can_rewrite_lines()) {
        rewrite_line(share, text, final);
    } else {
        double now = mdm_seconds();
        if (final || stderr_state.last_progress == 0.0 ||
            now - stderr_state.last_progress >= seconds_between_progress_lines) {
            write_line("", text);
            stderr_state.last_progress = now;
        }
    }
    pthread_mutex_unlock(&stderr_state.lock);
}

void mdm_progress(const char *text, int final) {
    mdm_progress_bar(-1, text, final);
}

double mdm_seconds(void) {
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0.0;
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* From events to lines of metrics.jsonl. A line is put together in memory and written at once; a torn one is
 * cut off again, or ended before the next when even that fails. */
#include "mdm/report/metrics.h"

#include "mdm/base/log.h"
#include "mdm/base/text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct mdm_metrics {
    char *path;
    int file;
    int64_t length; /* of whole lines */
    int64_t lost;
    int torn;      /* the file ends in the middle of a line */
    int warned;    /* about lines that cannot be written */
    mdm_text line; /* of the event between begin and end */
    void (*observer)(void *context, const char *line, size_t length);
    void *observer_context;
};

static mdm_status cut_back(mdm_metrics *m, int64_t length) {
    struct stat state;
    if (fstat(m->file, &state) != 0 || !S_ISREG(state.st_mode))
        return mdm_fail(MDM_RESOURCE, "cannot use %s as a log: it is not a regular file", m->path);
    m->length = state.st_size;
    if (length != MDM_METRICS_APPEND && length < m->length) {
        if (ftruncate(m->file, length) != 0)
            return mdm_fail(MDM_RESOURCE, "cannot cut %s back to %" PRId64 " bytes: %s", m->path, length,
                            strerror(errno));
        m->length = length;
    } else if (length > m->length) {
        mdm_warn("%s has %" PRId64 " bytes, the checkpoint expected %" PRId64 ": events are missing in it",
                 m->path, m->length, length);
    }
    char last = '\n';
    if (m->length > 0 && pread(m->file, &last, 1, m->length - 1) != 1)
        return mdm_fail(MDM_RESOURCE, "cannot read %s: %s", m->path, strerror(errno));
    m->torn = last != '\n';
    return MDM_OK;
}

mdm_status mdm_metrics_open(const char *path, int64_t length, mdm_metrics **metrics) {
    mdm_metrics *m = NULL;
    *metrics = NULL;
    MDM_TRY(MDM_ALLOCATE(m, 1, "the metrics log"));
    m->file = -1;
    mdm_status status = MDM_OK;
    m->path = strdup(path);
    if (!m->path) {
        status = mdm_fail(MDM_RESOURCE, "not enough memory for the metrics log");
        goto fail;
    }
    m->file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    if (m->file < 0) {
        status = mdm_fail(MDM_RESOURCE, "cannot open %s for writing: %s", path, strerror(errno));
        goto fail;
    }
    MDM_TRY_OR(status, cut_back(m, length), fail);
    *metrics = m;
    return MDM_OK;
fail:
    mdm_metrics_close(m);
    return status;
}

void mdm_metrics_close(mdm_metrics *m) {
    if (!m) return;
    if (m->file >= 0) close(m->file);
    free(m->path);
    free(m->line.data);
    free(m);
}

/* The flag is set before the warning: its hook may come back here for the "warning" event. */
static void lose(mdm_metrics *m, const char *reason) {
    m->lost++;
    if (m->warned) return;
    m->warned = 1;
    mdm_warn("cannot write %s: %s; training goes on, events are lost until there is room", m->path, reason);
}

static void write_line(mdm_metrics *m, const mdm_text *line) {
    if (line->failed) {
        lose(m, "not enough memory");
        return;
    }
    size_t done = 0;
    int reason = 0;
    if (m->torn) {
        if (write(m->file, "\n", 1) != 1) {
            lose(m, strerror(errno));
            return;
        }
        m->torn = 0;
        m->length++;
    }
    while (done < line->length) {
        ssize_t n = write(m->file, line->data + done, line->length - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            reason = n < 0 ? errno : ENOSPC;
            break;
        }
        done += (size_t)n;
    }
    if (done == line->length) {
        m->length += (int64_t)done;
        if (m->observer) m->observer(m->observer_context, line->data, line->length - 1);
        return;
    }
    if (done > 0 && ftruncate(m->file, m->length) != 0) {
        m->torn = 1;
        m->length += (int64_t)done;
    }
    lose(m, strerror(reason));
}

void mdm_metrics_begin(mdm_metrics *m, const char *event) {
    if (!m) return;
    m->line.length = 0;
    m->line.failed = 0;
    mdm_text_add(&m->line, "{\"event\":");
    mdm_text_add_json_string(&m->line, event);
}

static void add_name(mdm_metrics *m, const char *name) {
    mdm_text_add_bytes(&m->line, ",", 1);
    mdm_text_add_json_string(&m->line, name);
    mdm_text_add_bytes(&m->line, ":", 1);
}

void mdm_metrics_number(mdm_metrics *m, const char *name, double value) {
    if (!m) return;
    add_name(m, name);
    mdm_text_add_json_number(&m->line, value);
}

void mdm_metrics_integer(mdm_metrics *m, const char *name, int64_t value) {
    if (!m) return;
    add_name(m, name);
    mdm_text_add(&m->line, "%" PRId64, value);
}

void mdm_metrics_text(mdm_metrics *m, const char *name, const char *value) {
    if (!m) return;
    add_name(m, name);
    if (value)
        mdm_text_add_json_string(&m->line, value);
    else
        mdm_text_add_bytes(&m->line, "null", 4);
}

void mdm_metrics_numbers(mdm_metrics *m, const char *name, const double *values, int64_t count) {
    if (!m) return;
    add_name(m, name);
    mdm_text_add_bytes(&m->line, "[", 1);
    for (int64_t i = 0; i < count; i++) {
        if (i > 0) mdm_text_add_bytes(&m->line, ",", 1);
        mdm_text_add_json_number(&m->line, values[i]);
    }
    mdm_text_add_bytes(&m->line, "]", 1);
}

void mdm_metrics_end(mdm_metrics *m) {
    if (!m) return;
    mdm_text_add_bytes(&m->line, "}\n", 2);
    write_line(m, &m->line);
}

void mdm_metrics_warning(void *metrics, const char *text) {
    mdm_metrics *m = metrics;
    mdm_text line = {0};
    if (!m) return;
    mdm_text_add(&line, "{\"event\":\"warning\",\"message\":");
    mdm_text_add_json_string(&line, text);
    mdm_text_add_bytes(&line, "}\n", 2);
    write_line(m, &line);
    free(line.data);
}

void mdm_metrics_set_observer(mdm_metrics *m,
                              void (*observer)(void *context, const char *line, size_t length),
                              void *context) {
    if (!m) return;
    m->observer = observer;
    m->observer_context = context;
}

int64_t mdm_metrics_length(const mdm_metrics *m) {
    return m ? m->length : 0;
}

int64_t mdm_metrics_lost(const mdm_metrics *m) {
    return m ? m->lost : 0;
}

void mdm_metrics_sync(mdm_metrics *m) {
    if (m && fsync(m->file) != 0 && errno != EINVAL && errno != ENOTSUP) lose(m, strerror(errno));
}

/* From lines of metrics.jsonl, divisions and pictures to records that TensorBoard reads.
 *
 * The records are a function of the lines, in order: so a new start can write the same records again, and
 * take over when each was first written from the old file. */
#include "mdm/report/events.h"

#include "mdm/base/log.h"
#include "mdm/report/run_folder.h"
#include "protobuf.h"
#include "report_run.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Numbers of the fields of TensorFlow's messages Event, SessionLog, Summary, Summary.Value, HistogramProto
 * and Summary.Image (event.proto and summary.proto). */
enum { EVENT_WALL_TIME = 1, EVENT_STEP = 2, EVENT_FILE_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION = 7 };
enum { SESSION_STATUS = 1, SESSION_START = 1, SUMMARY_VALUE = 1 };
enum { VALUE_TAG = 1, VALUE_SCALAR = 2, VALUE_IMAGE = 4, VALUE_HISTOGRAM = 5 };
enum {
    HISTOGRAM_MIN = 1,
    HISTOGRAM_MAX,
    HISTOGRAM_COUNT,
    HISTOGRAM_SUM,
    HISTOGRAM_SQUARES,
    HISTOGRAM_LIMITS,
    HISTOGRAM_COUNTS
};
enum { IMAGE_HEIGHT = 1, IMAGE_WIDTH, IMAGE_COLORS, IMAGE_BYTES };

enum { BUCKETS = 64, PICTURES = 12, SIDE = 96, MOST_BYTES = 1 << 30 };
static const char prefix[] = "events.out.tfevents.", suffix[] = ".mdm";

struct mdm_events {
    char *folder, *path;
    int file, warned;
    int64_t step, division; /* of the last line; division: whose histograms are still to come, -1: none */
    double *times;          /* [time_count] when the old file's records were written */
    int64_t time_count, records;
};

static double now(void) {
    struct timespec t;
    return clock_gettime(CLOCK_REALTIME, &t) == 0 ? (double)t.tv_sec + 1e-9 * (double)t.tv_nsec : 0;
}

static void write_record(mdm_events *e, const mdm_text *data) {
    mdm_text record = {0};
    size_t done = 0;
    ssize_t n = 0;
    record_add(&record, data);
    while (!record.failed && done < record.length && n >= 0) {
        n = write(e->file, record.data + done, record.length - done);
        if (n > 0) done += (size_t)n;
        if (n < 0 && errno == EINTR) n = 0;
    }
    if ((record.failed || done < record.length) && !e->warned) {
        e->warned = 1;
        mdm_warn("cannot write %s: %s; training goes on, TensorBoard's events are lost from here", e->path,
                 record.failed ? "not enough memory" : strerror(errno));
    }
    free(record.data);
}

/* Writes an event of the last line's step: `field` is what it holds. */
static void write_event(mdm_events *e, int field, const mdm_text *content) {
    mdm_text event = {0};
    if (e->warned) return; /* after a torn record nothing more could be read */
    double when = e->records < e->time_count ? e->times[e->records] : now();
    protobuf_double(&event, EVENT_WALL_TIME, when);
    protobuf_integer(&event, EVENT_STEP, (uint64_t)e->step);
    protobuf_bytes(&event, field, content->data, content->length);
    event.failed |= content->failed;
    write_record(e, &event);
    e->records++;
    free(event.data);
}

static void add_value(mdm_text *summary, const char *tag, int field, const mdm_text *content) {
    mdm_text value = {0};
    protobuf_bytes(&value, VALUE_TAG, tag, strlen(tag));
    protobuf_bytes(&value, field, content->data, content->length);
    protobuf_bytes(summary, SUMMARY_VALUE, value.data, value.length);
    summary->failed |= value.failed || content->failed;
    free(value.data);
}

static void add_scalar(mdm_text *summary, const char *tag, double number) {
    mdm_text value = {0};
    protobuf_bytes(&value, VALUE_TAG, tag, strlen(tag));
    protobuf_float(&value, VALUE_SCALAR, (float)number);
    protobuf_bytes(summary, SUMMARY_VALUE, value.data, value.length);
    summary->failed |= value.failed;
    free(value.data);
}

/* Buckets of equal width over the finite values. */
static void add_histogram(mdm_text *summary, const char *tag, const float *values, int64_t count) {
    double low = INFINITY, high = -INFINITY, sum = 0, squares = 0, found = 0;
    double limits[BUCKETS], counts[BUCKETS] = {0};
    mdm_text histogram = {0};
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) continue;
        low = fmin(low, values[i]);
        high = fmax(high, values[i]);
        sum += values[i];
        squares += (double)values[i] * values[i];
        found++;
    }
    if (found == 0) return;
    double width = high > low ? (high - low) / BUCKETS : 1e-12;
    for (int b = 0; b < BUCKETS; b++) limits[b] = low + (b + 1) * width;
    if (high > low) limits[BUCKETS - 1] = high;
    for (int64_t i = 0; i < count; i++) {
        if (!isfinite(values[i])) continue;
        int bucket = (int)((values[i] - low) / width);
        counts[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    }
    protobuf_double(&histogram, HISTOGRAM_MIN, low);
    protobuf_double(&histogram, HISTOGRAM_MAX, high);
    protobuf_double(&histogram, HISTOGRAM_COUNT, found);
    protobuf_double(&histogram, HISTOGRAM_SUM, sum);
    protobuf_double(&histogram, HISTOGRAM_SQUARES, squares);
    protobuf_doubles(&histogram, HISTOGRAM_LIMITS, limits, BUCKETS);
    protobuf_doubles(&histogram, HISTOGRAM_COUNTS, counts, BUCKETS);
    add_value(summary, tag, VALUE_HISTOGRAM, &histogram);
    free(histogram.data);
}

/* The histograms of the division whose lines have come. A division that cannot be read has none. */
static void finish_division(mdm_events *e) {
    mdm_division d;
    mdm_text summary = {0};
    if (e->division < 0) return;
    char *path = mdm_run_folder_division(e->folder, e->division);
    e->division = -1;
    int read = path && mdm_division_read(path, 0, &d) == MDM_OK;
    free(path);
    if (!read) return;
    for (int n = 0; n < d.networks; n++) {
        char tag[64];
        snprintf(tag, sizeof tag, "divide/losses/%c", 'a' + n);
        add_histogram(&summary, tag, d.network[n].loss, d.samples);
        snprintf(tag, sizeof tag, "divide/ood_scores/%c", 'a' + n);
        add_histogram(&summary, tag, d.network[n].ood_score, d.samples);
        snprintf(tag, sizeof tag, "divide/clean_probabilities/%c", 'a' + n);
        add_histogram(&summary, tag, d.network[n].clean_probability, d.samples);
    }
    mdm_division_free(&d);
    write_event(e, EVENT_SUMMARY, &summary);
    free(summary.data);
}

/* What the tags of a line begin with; NULL for lines without figures over time. */
static const char *group_of(const char *event, const char *stage) {
    if (strcmp(event, "end") == 0) return "run";
    if (strcmp(event, "divide") == 0) return stage ? stage : "divide";
    if (strcmp(event, "epoch") != 0 || !stage) return NULL;
    return strcmp(stage, "warmup") == 0 || strcmp(stage, "semi") == 0 ? "train" : stage;
}

/* A scalar for every number of the line, also those in lists. */
static void add_line(mdm_text *summary, const json_t *line, const char *group, const char *network) {
    const char *name, *separator = network[0] ? "/" : "";
    char tag[256];
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)line, name, value) {
        if (strcmp(name, "epoch") == 0) continue;
        snprintf(tag, sizeof tag, "%s/%s%s%s", group, name, separator, network);
        if (json_is_number(value)) add_scalar(summary, tag, json_number_value(value));
        for (size_t i = 0; i < json_array_size(value); i++) {
            snprintf(tag, sizeof tag, "%s/%s%s%s/%zu", group, name, separator, network, i);
            if (json_is_number(json_array_get(value, i)))
                add_scalar(summary, tag, json_number_value(json_array_get(value, i)));
        }
    }
}

void mdm_events_take(void *context, const char *text, size_t length) {
    mdm_events *e = context;
    mdm_text summary = {0};
    json_t *line = e ? json_loadb(text, length, 0, NULL) : NULL;
    const char *event = json_string_value(json_object_get(line, "event"));
    const char *stage = json_string_value(json_object_get(line, "stage"));
    const char *network = json_string_value(json_object_get(line, "network"));
    const char *group = event ? group_of(event, stage) : NULL;
    const json_t *epoch = json_object_get(line, "epoch");
    int is_division = event && strcmp(event, "divide") == 0 && !stage;
    /* the file is there once another kind of line has come; warnings may stand between the networks' lines */
    if (event && !is_division && strcmp(event, "warning") != 0) finish_division(e);
    if (group) {
        if (json_is_integer(epoch)) e->step = json_integer_value(epoch);
        add_line(&summary, line, group, network ? network : "");
        if (summary.length) write_event(e, EVENT_SUMMARY, &summary);
        if (is_division) e->division = e->step;
    }
    free(summary.data);
    json_decref(line);
}

static void add_picture(const report_run *run, int64_t sample, const char *tag, mdm_text *summary) {
    report_picture picture;
    mdm_text image = {0};
    if (report_picture_make(run, sample, SIDE, &picture) != MDM_OK) return;
    protobuf_integer(&image, IMAGE_HEIGHT, (uint64_t)picture.height);
    protobuf_integer(&image, IMAGE_WIDTH, (uint64_t)picture.width);
    protobuf_integer(&image, IMAGE_COLORS, (uint64_t)mdm_store_get_info(run->store)->channels);
    protobuf_bytes(&image, IMAGE_BYTES, picture.bytes, picture.count);
    add_value(summary, tag, VALUE_IMAGE, &image);
    free(image.data);
    free(picture.bytes);
}

/* A class's name inside a tag: slashes would make groups, and a tag must be UTF-8. */
static void add_name(mdm_text *tag, const char *name) {
    enum { MOST = 48 };
    for (size_t at = 0, take; name[at] && at < MOST; at += take) {
        take = mdm_utf8_character((const unsigned char *)name + at);
        int is_odd = take == 0 || name[at] == '/' || (unsigned char)name[at] < 32 || name[at] == 127;
        if (take == 0) take = 1;
        mdm_text_add_bytes(tag, is_odd ? "-" : name + at, is_odd ? 1 : take);
    }
}

static void add_gallery(const report_run *run, const char *group, const float *score, mdm_text *summary) {
    int64_t index[PICTURES], found = report_largest(score, run->labels.count, index, PICTURES);
    for (int64_t i = 0; i < found; i++) {
        mdm_text tag = {0};
        mdm_text_add(&tag, "%s/%02d given ", group, (int)i + 1);
        add_name(&tag, run->class_names[run->labels.given[index[i]]]);
        mdm_text_add(&tag, ", suggested ");
        add_name(&tag, run->class_names[run->labels.suggested[index[i]]]);
        if (!tag.failed) add_picture(run, index[i], tag.data, summary);
        free(tag.data);
    }
}

void mdm_events_add_pictures(mdm_events *e, mdm_store *store) {
    report_run run;
    mdm_text summary = {0};
    float *score = NULL;
    if (!e || !store) return;
    finish_division(e);
    if (report_run_read(e->folder, store, &run) == MDM_OK && run.store && run.labels.count > 0 &&
        MDM_ALLOCATE(score, run.labels.count, "pictures for TensorBoard") == MDM_OK) {
        report_mislabelled_scores(&run, score);
        add_gallery(&run, "mislabelled", score, &summary);
        report_stranger_scores(&run, score);
        add_gallery(&run, "out_of_distribution", score, &summary);
        if (summary.length) write_event(e, EVENT_SUMMARY, &summary);
    }
    free(score);
    free(summary.data);
    report_run_free(&run);
}

static int is_ours(const char *name) {
    size_t length = strlen(name), end = sizeof suffix - 1;
    return strncmp(name, prefix, sizeof prefix - 1) == 0 && length > end &&
           strcmp(name + length - end, suffix) == 0;
}

/* Calls `act` on every events file of ours but `except`. */
static void for_each_file(const char *folder, const char *except,
                          void (*act)(mdm_events *e, const char *path), mdm_events *e) {
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries)) != NULL;) {
        mdm_text path = {0};
        if (!is_ours(entry->d_name)) continue;
        mdm_text_add(&path, "%s/%s", folder, entry->d_name);
        if (!path.failed && (!except || strcmp(path.data, except) != 0)) act(e, path.data);
        free(path.data);
    }
    if (entries) closedir(entries);
}

/* When the records of an old file were written; the longest one counts, should there be several. */
static void read_times(mdm_events *e, const char *path) {
    char *content;
    const char *data;
    size_t bytes, length, at = 0;
    int64_t count = 0;
    double *times;
    if (mdm_read_file(path, MOST_BYTES, &content, &bytes) != MDM_OK) return;
    while (record_next(content, bytes, &at, &data, &length)) count++;
    if (count > e->time_count && MDM_ALLOCATE(times, count, "times of events") == MDM_OK) {
        free(e->times);
        e->times = times;
        e->time_count = 0;
        for (at = 0; record_next(content, bytes, &at, &data, &length);) {
            double when = 0;
            if (length >= 9 && data[0] == (EVENT_WALL_TIME << 3 | 1)) memcpy(&when, data + 1, sizeof when);
            if (!(when > 0)) break;
            e->times[e->time_count++] = when;
        }
    }
    free(content);
}

static void remove_file(mdm_events *e, const char *path) {
    (void)e;
    (void)unlink(path);
}

void mdm_events_remove(const char *run) {
    for_each_file(run, NULL, remove_file, NULL);
}

static mdm_status create_file(mdm_events *e) {
    char host[128] = "host";
    mdm_text path = {0};
    (void)gethostname(host, sizeof host - 1);
    mdm_text_add(&path, "%s/%s%010lld.%s.%ld%s", e->folder, prefix, (long long)time(NULL), host,
                 (long)getpid(), suffix);
    e->path = path.data;
    if (path.failed) return mdm_fail(MDM_RESOURCE, "out of memory for TensorBoard's events");
    e->file = open(e->path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (e->file < 0) return mdm_fail(MDM_RESOURCE, "cannot write %s: %s", e->path, strerror(errno));
    return MDM_OK;
}

static void write_head(mdm_events *e) {
    static const char version[] = "brain.Event:2";
    mdm_text text = {0}, session = {0};
    mdm_text_add_bytes(&text, version, sizeof version - 1);
    write_event(e, EVENT_FILE_VERSION, &text);
    protobuf_integer(&session, SESSION_STATUS, SESSION_START);
    write_event(e, EVENT_SESSION, &session);
    free(text.data);
    free(session.data);
}

/* The lines that metrics.jsonl has already. */
static mdm_status write_lines_so_far(mdm_events *e) {
    char *content = NULL, *path = mdm_run_folder_member(e->folder, MDM_RUN_METRICS);
    size_t bytes;
    if (!path) return mdm_fail(MDM_RESOURCE, "out of memory for TensorBoard's events");
    mdm_status status = access(path, F_OK) == 0 ? mdm_read_file(path, MOST_BYTES, &content, &bytes) : MDM_OK;
    free(path);
    if (status != MDM_OK || !content) return status;
    for (char *line = content, *end; (end = memchr(line, '\n', bytes - (size_t)(line - content))) != NULL;
         line = end + 1)
        mdm_events_take(e, line, (size_t)(end - line));
    free(content);
    return MDM_OK;
}

mdm_status mdm_events_open(const char *run, mdm_events **events) {
    mdm_events *e;
    *events = NULL;
    MDM_TRY(MDM_ALLOCATE(e, 1, "TensorBoard's events"));
    e->file = -1;
    e->division = -1;
    e->folder = strdup(run);
    mdm_status status = e->folder ? MDM_OK : mdm_fail(MDM_RESOURCE, "out of memory for TensorBoard's events");
    if (status == MDM_OK) for_each_file(run, NULL, read_times, e);
    if (status == MDM_OK) status = create_file(e);
    if (status == MDM_OK) {
        write_head(e);
        status = write_lines_so_far(e);
    }
    if (status != MDM_OK) {
        mdm_events_close(e);
        return status;
    }
    e->time_count = 0; /* from here on it is now */
    for_each_file(run, e->path, remove_file, e);
    *events = e;
    return MDM_OK;
}

void mdm_events_close(mdm_events *e) {
    if (!e) return;
    if (e->file >= 0) {
        finish_division(e);
        close(e->file);
    }
    free(e->folder);
    free(e->path);
    free(e->times);
    free(e);
}

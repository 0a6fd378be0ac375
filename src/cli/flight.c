/* From the pages of the supervisors to records of a failure, and from these to who was missing. */
#include "flight.h"
#include "mdm/base/text.h"
#include "supervisor.h"
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECORD_LIMIT = 1 << 20, RECORDED = 64 };

static void put(int file, const char *text) {
    if (write(file, text, strlen(text)) < 0) return; /* a record is worth having, not worth failing for */
}

/* Texts of our own in quotes; what could break JSON becomes a space. */
static void put_quoted(int file, const char *text) {
    char safe[900];
    snprintf(safe, sizeof safe, "\"%s", text);
    for (char *c = safe + 1; *c; c++)
        if (*c == '"' || *c == '\\' || (unsigned char)*c < 0x20) *c = ' ';
    put(file, safe);
    put(file, "\"");
}

void mdm_flight_record(mdm_watch_page *p, int rank, const char *host, char state, const char *why) {
    char path[MDM_WATCH_PATH + 64], line[512];
    if (!atomic_load(&p->folder_known)) return;
    snprintf(path, sizeof path, "%s/flight/rank-%d.json", p->folder, rank);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (file < 0) return;
    int64_t now = mdm_watch_now(), count = p->collectives, first = count > RECORDED ? count - RECORDED : 0;
    snprintf(line, sizeof line,
             "{\"rank\":%d,\"ranks\":%d,\"state\":\"%c\",\"inside\":%s,\"collectives\":%lld,", rank,
             atomic_load(&p->ranks), state, atomic_load(&p->inside) ? "true" : "false", (long long)count);
    put(file, line);
    snprintf(line, sizeof line,
             "\"epoch\":%lld,\"step\":%lld,\"pause_seconds\":%.3f,\"host\":", (long long)p->epoch,
             (long long)p->step, (double)(now - p->progress) / 1e9);
    put(file, line);
    put_quoted(file, host);
    put(file, ",\"stage\":");
    put_quoted(file, atomic_load(&p->stage));
    put(file, ",\"why\":");
    put_quoted(file, why);
    put(file, ",\"latest\":[");
    for (int64_t i = first; i < count; i++) {
        const mdm_watch_entry *e = &p->ring[i % MDM_WATCH_RING];
        int64_t left = e->left;
        snprintf(line, sizeof line,
                 "%s\n{\"number\":%lld,\"operation\":\"%s\",\"bytes\":%lld,\"ms\":%.3f,\"left\":%s}",
                 i > first ? "," : "", (long long)e->number, atomic_load(&e->operation), (long long)e->bytes,
                 (double)((left ? left : now) - e->entered) / 1e6, left ? "true" : "false");
        put(file, line);
    }
    put(file, "]}\n");
    close(file);
}

/* The number of collectives that a rank had entered by its record, -1 without a whole record. */
static long long recorded_count(const char *folder, int rank) {
    char path[MDM_WATCH_PATH + 64], text[256];
    snprintf(path, sizeof path, "%s/flight/rank-%d.json", folder, rank);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    if (length <= 0) return -1;
    text[length] = 0;
    const char *place = strstr(text, "\"collectives\":");
    return place ? strtoll(place + 14, NULL, 10) : -1;
}

void mdm_flight_missing(mdm_watch_page *p, int rank, char *text, size_t size) {
    int ranks = p->ranks, found = 0, silent = 0;
    size_t used = 0;
    text[0] = 0;
    if (!atomic_load(&p->folder_known)) return;
    for (int r = 0; r < ranks; r++) silent |= r != rank && recorded_count(p->folder, r) < 0;
    for (int r = 0; r < ranks && used + 64 < size; r++) {
        long long count = r == rank ? p->collectives : recorded_count(p->folder, r);
        if (count >= p->collectives) continue; /* inside as well, or out of it already */
        if (silent && count >= 0) continue;    /* itself held up by the one that does not even speak */
        used += (size_t)snprintf(text + used, size - used, "%s%d (%s)", found++ ? ", " : "; it lacks rank ",
                                 r, count < 0 ? "silent" : "behind");
    }
}

static void add_record(mdm_text *t, const char *content, size_t bytes, long long most) {
    json_t *record = json_loadb(content, bytes, 0, NULL);
    const json_t *latest = json_object_get(record, "latest"),
                 *last = json_array_get(latest, json_array_size(latest) ? json_array_size(latest) - 1 : 0);
    const char *host = json_string_value(json_object_get(record, "host")),
               *why = json_string_value(json_object_get(record, "why")),
               *operation = json_string_value(json_object_get(last, "operation"));
    long long count = json_integer_value(json_object_get(record, "collectives"));
    char shown[3][300];
    if (record)
        mdm_text_add(t, "  rank %lld on %s: %s; %lld collectives, the last %s%s%s\n",
                     (long long)json_integer_value(json_object_get(record, "rank")),
                     mdm_printable(host ? host : "?", shown[0], sizeof shown[0]),
                     mdm_printable(why ? why : "?", shown[1], sizeof shown[1]), count,
                     mdm_printable(operation ? operation : "none", shown[2], sizeof shown[2]),
                     json_is_true(json_object_get(last, "left")) || !last ? "" : ", waiting in it",
                     count < most ? "; it was behind the others" : "");
    json_decref(record);
}

char *mdm_flight_describe(const char *run) {
    mdm_text t = {0};
    char path[4096], *content;
    size_t bytes;
    long long most = 0;
    enum { MOST_RANKS = 4096 };
    snprintf(path, sizeof path, "%s/flight/failure", run);
    if (access(path, F_OK) == 0 && mdm_read_file(path, 65536, &content, &bytes) == MDM_OK) {
        char shown[1100];
        content[strcspn(content, "\n")] = 0;
        mdm_text_add(&t, "the last failure: %s\n", mdm_printable(content, shown, sizeof shown));
        free(content);
    }
    for (int r = 0; r < MOST_RANKS; r++) {
        long long count = recorded_count(run, r);
        if (count > most) most = count;
    }
    for (int r = 0; r < MOST_RANKS; r++) {
        snprintf(path, sizeof path, "%s/flight/rank-%d.json", run, r);
        if (access(path, F_OK) != 0 || mdm_read_file(path, RECORD_LIMIT, &content, &bytes) != MDM_OK)
            continue;
        add_record(&t, content, bytes, most);
        free(content);
    }
    if (t.failed) {
        free(t.data);
        return NULL;
    }
    return t.data ? t.data : strdup("");
}

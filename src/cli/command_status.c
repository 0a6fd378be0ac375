/* mdm-dist status RUN: from the run folder's metrics, settings and lock to how far the run is, how long it
 * will take and whether it lives. Only reads, so the run may go on meanwhile. */
#include "commands.h"
#include "manual.h"
#include "mdm/base/config.h"
#include "mdm/base/text.h"
#include "mdm/report/run_folder.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { PRETRAIN, WARMUP, SEMI, BASELINE_CE, BASELINE_SCE, STAGES };
static const char *const stage_names[STAGES] = {"pretrain", "warmup", "semi", "baseline_ce", "baseline_sce"};
enum { METRICS_LIMIT = 1 << 30, MESSAGE = 512 };

typedef struct stage_state {
    long long total; /* passes of one network over one epoch that the run has */
    long long done;
    double seconds; /* of the passes done */
} stage_state;

typedef struct run_state {
    int alive, finished, known_stages;
    char holder[256], stage[16], last_event[32], message[MESSAGE];
    long long epoch, epochs, warnings, restarts;
    double loss, test_top1, divide_seconds, age, seconds_left;
    int at_least; /* seconds_left leaves out stages not seen yet */
    long long divisions;
    stage_state stages[STAGES];
} run_state;

static int stage_number(const char *name) {
    for (int i = 0; name && i < STAGES; i++)
        if (strcmp(name, stage_names[i]) == 0) return i;
    return -1;
}

static double number(const json_t *event, const char *name) {
    const json_t *value = json_object_get(event, name);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

static void take_epoch(run_state *s, const json_t *event) {
    int stage = stage_number(json_string_value(json_object_get(event, "stage")));
    double seconds = number(event, "seconds"), epoch = number(event, "epoch");
    if (stage < 0 || !(epoch >= 0)) return;
    snprintf(s->stage, sizeof s->stage, "%s", stage_names[stage]);
    s->epoch = (long long)epoch;
    if (json_object_get(event, "test_top1")) s->test_top1 = number(event, "test_top1");
    if (!json_object_get(event, "loss")) return;
    s->loss = number(event, "loss");
    s->stages[stage].done++;
    if (seconds > 0) s->stages[stage].seconds += seconds;
}

static void take_event(run_state *s, const json_t *event) {
    const char *kind = json_string_value(json_object_get(event, "event"));
    if (!kind) return;
    mdm_printable(kind, s->last_event, sizeof s->last_event);
    if (strcmp(kind, "warning") != 0) /* which may follow the end */
        s->finished = strcmp(kind, "end") == 0;
    if (strcmp(kind, "epoch") == 0) take_epoch(s, event);
    if (strcmp(kind, "resume") == 0) s->restarts++;
    if (strcmp(kind, "divide") == 0) {
        double knn = number(event, "knn_seconds"), gmm = number(event, "gmm_seconds");
        s->divide_seconds += (knn > 0 ? knn : 0) + (gmm > 0 ? gmm : 0);
        s->divisions++;
    }
    if (strcmp(kind, "warning") == 0) {
        const char *text = json_string_value(json_object_get(event, "message"));
        s->warnings++;
        mdm_printable(text ? text : "", s->message, sizeof s->message);
    }
}

/* A line that is not whole (the run is just writing it, or was killed) is passed over. */
static mdm_status read_metrics(const char *run, run_state *s) {
    struct stat state;
    size_t bytes;
    char *content, *path = mdm_run_folder_member(run, MDM_RUN_METRICS);
    if (!path) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
    int there = stat(path, &state) == 0;
    s->age = there ? difftime(time(NULL), state.st_mtime) : NAN;
    mdm_status status = there ? mdm_read_file(path, METRICS_LIMIT, &content, &bytes) : MDM_OK;
    free(path);
    if (status != MDM_OK || !there) return status;
    for (char *line = content, *end; (end = memchr(line, '\n', bytes - (size_t)(line - content))) != NULL;
         line = end + 1) {
        json_t *event = json_loadb(line, (size_t)(end - line), 0, NULL);
        if (event) take_event(s, event);
        json_decref(event);
    }
    free(content);
    return MDM_OK;
}

/* The passes of each stage by the settings, as the run was started with. */
static mdm_status read_settings(const char *run, run_state *s) {
    mdm_config *c;
    char *path = mdm_run_folder_member(run, MDM_RUN_CONFIG);
    if (!path) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
    mdm_status status = MDM_ALLOCATE(c, 1, "the configuration");
    if (status == MDM_OK) {
        mdm_config_defaults(c);
        status = mdm_config_read_yaml(c, path);
    }
    free(path);
    if (status == MDM_OK) {
        int both = c->baseline == MDM_CONFIG_BASELINE_BOTH;
        s->stages[PRETRAIN].total = (long long)c->pretrain.epochs * c->model.networks;
        s->stages[WARMUP].total = (long long)c->train.warmup * c->model.networks;
        s->stages[SEMI].total = (long long)(c->train.epochs - c->train.warmup) * c->model.networks;
        if (both || c->baseline == MDM_CONFIG_BASELINE_CE) s->stages[BASELINE_CE].total = c->train.epochs;
        if (both || c->baseline == MDM_CONFIG_BASELINE_SCE) s->stages[BASELINE_SCE].total = c->train.epochs;
        s->epochs = strcmp(s->stage, "pretrain") == 0 ? c->pretrain.epochs : c->train.epochs;
        s->known_stages = 1;
    }
    free(c);
    return status;
}

/* Passes still to come times what a pass of that stage took so far. A stage that has not begun is counted as
 * the one before it, and the sum is then only a lower bound. */
static void estimate(run_state *s) {
    double before = 0;
    s->seconds_left = 0;
    for (int i = 0; i < STAGES; i++) {
        stage_state *stage = &s->stages[i];
        long long left = stage->total - stage->done;
        if (stage->done > 0)
            before = stage->seconds / (double)stage->done;
        else if (stage->total > 0)
            s->at_least = 1;
        if (left > 0) s->seconds_left += before * (double)left;
    }
    if (s->finished) s->seconds_left = s->at_least = 0;
}

static const char *state_word(const run_state *s) {
    return s->alive ? "running" : s->finished ? "finished" : s->last_event[0] ? "not running" : "not begun";
}

static void add_field(mdm_text *t, const char *name, double value) {
    mdm_text_add(t, ",\"%s\":", name);
    mdm_text_add_json_number(t, value);
}

static void add_string(mdm_text *t, const char *name, const char *value) {
    mdm_text_add(t, ",\"%s\":", name);
    mdm_text_add_json_string(t, value);
}

static mdm_status print_json(const char *run, const run_state *s) {
    mdm_text t = {0};
    mdm_text_add(&t, "{\"run\":");
    mdm_text_add_json_string(&t, run);
    mdm_text_add(&t, ",\"alive\":%s,\"finished\":%s", s->alive ? "true" : "false",
                 s->finished ? "true" : "false");
    add_string(&t, "state", state_word(s));
    add_string(&t, "holder", s->holder);
    add_string(&t, "stage", s->stage);
    mdm_text_add(&t, ",\"epoch\":%lld,\"epochs\":%lld,\"restarts\":%lld,\"warnings\":%lld", s->epoch,
                 s->epochs, s->restarts, s->warnings);
    add_field(&t, "loss", s->loss);
    add_field(&t, "test_top1", s->test_top1);
    add_field(&t, "seconds_left", s->known_stages ? s->seconds_left : NAN);
    mdm_text_add(&t, ",\"at_least\":%s", s->at_least ? "true" : "false");
    add_field(&t, "last_event_seconds_ago", s->age);
    add_string(&t, "last_event", s->last_event);
    add_string(&t, "last_message", s->message);
    mdm_text_add(&t, "}");
    if (t.failed) return mdm_fail(MDM_RESOURCE, "out of memory");
    puts(t.data);
    free(t.data);
    return MDM_OK;
}

static void print_duration(double seconds) {
    long long s = (long long)(seconds + 0.5);
    if (s >= 86400) printf("%lld d ", s / 86400);
    if (s >= 3600) printf("%lld h ", s / 3600 % 24);
    if (s >= 60) printf("%lld min ", s / 60 % 60);
    if (s < 3600) printf("%lld s", s % 60);
}

static void print_state(const char *run, const run_state *s) {
    printf("%s: %s", run, state_word(s));
    if (s->alive && s->holder[0]) printf(" (%s)", s->holder);
    printf("\n");
    if (s->stage[0]) {
        printf("  at         %s, epoch %lld of %lld ended", s->stage, s->epoch + 1, s->epochs);
        if (isfinite(s->loss)) printf(", loss %.4f", s->loss);
        if (isfinite(s->test_top1)) printf(", test accuracy %.4f", s->test_top1);
        printf("\n");
    }
    if (!s->finished && s->known_stages && s->stage[0]) {
        printf("  time left  %s", s->at_least ? "at least " : "about ");
        print_duration(s->seconds_left);
        printf("%s\n", s->alive ? "" : " once it is started again");
    }
    if (isfinite(s->age)) {
        printf("  last word  ");
        print_duration(s->age > 0 ? s->age : 0);
        printf(" ago: %s\n", s->last_event[0] ? s->last_event : "nothing yet");
    }
    if (s->message[0]) printf("  message    %s\n", s->message);
    if (s->restarts) printf("  restarts   %lld\n", s->restarts);
}

mdm_status mdm_command_status(int argc, char **argv) {
    mdm_arguments a;
    struct stat folder;
    run_state s;
    memset(&s, 0, sizeof s);
    s.loss = s.test_top1 = s.age = NAN;
    MDM_TRY(mdm_arguments_read("status", argc, argv, &a));
    if (a.word_count != 1)
        return mdm_fail(MDM_USAGE, "status needs one run folder, as in mdm-dist status runs/quickstart");
    const char *run = a.words[0];
    if (stat(run, &folder) != 0 || !S_ISDIR(folder.st_mode))
        return mdm_fail(MDM_INPUT, "there is no run folder %s", run);
    s.alive = mdm_run_folder_alive(run, s.holder, sizeof s.holder);
    MDM_TRY(read_metrics(run, &s));
    if (!s.alive && !s.last_event[0])
        return mdm_fail(MDM_INPUT, "%s holds no run: there is no event in its metrics.jsonl", run);
    /* a run that is just starting has no config.yaml yet, and one without it can still be told about */
    if (read_settings(run, &s) == MDM_OK) estimate(&s);
    return mdm_arguments_get(&a, "--json") ? print_json(run, &s) : (print_state(run, &s), MDM_OK);
}

/* From a path to a run folder that is there, writable and ours alone. */
#include "mdm/report/run_folder.h"

#include "mdm/base/log.h"
#include "mdm/base/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *const members[] = {[MDM_RUN_CONFIG] = "config.yaml",
                                      [MDM_RUN_ENVIRONMENT] = "environment.json",
                                      [MDM_RUN_METRICS] = "metrics.jsonl",
                                      [MDM_RUN_DIVISIONS] = "divisions",
                                      [MDM_RUN_CHECKPOINTS] = "checkpoints",
                                      [MDM_RUN_MODEL_A] = "model-a.safetensors",
                                      [MDM_RUN_BEST_A] = "best-a.safetensors",
                                      [MDM_RUN_BEST_B] = "best-b.safetensors",
                                      [MDM_RUN_MODEL_B] = "model-b.safetensors",
                                      [MDM_RUN_OOD_REFERENCE] = "ood-reference.safetensors",
                                      [MDM_RUN_OOD_A] = "ood-a.safetensors",
                                      [MDM_RUN_OOD_B] = "ood-b.safetensors",
                                      [MDM_RUN_LABELS] = "labels.csv",
                                      [MDM_RUN_REPORT] = "report.html",
                                      [MDM_RUN_SUMMARY] = "summary.json",
                                      [MDM_RUN_LOCK] = ".lock",
                                      [MDM_RUN_FLIGHT] = "flight"};

/* Takes the text over. */
static char *text_or_null(mdm_text *text) {
    if (!text->failed) return text->data;
    free(text->data);
    return NULL;
}

char *mdm_run_folder_member(const char *path, mdm_run_member member) {
    mdm_text text = {0};
    mdm_text_add(&text, "%s/%s", path, members[member]);
    return text_or_null(&text);
}

void mdm_run_folder_data(const char *path, const char *file, char *out, size_t size) {
    char *environment = mdm_run_folder_member(path, MDM_RUN_ENVIRONMENT);
    json_t *object = NULL;
    snprintf(out, size, "%s", file);
    if (environment && file[0] && file[0] != '/' && access(file, F_OK) != 0)
        object = json_load_file(environment, 0, NULL);
    free(environment);
    const char *folder = json_string_value(json_object_get(object, "folder"));
    mdm_text text = {0};
    if (folder) mdm_text_add(&text, "%s/%s", folder, file);
    if (text.data && !text.failed && text.length < size && access(text.data, F_OK) == 0)
        snprintf(out, size, "%s", text.data);
    free(text.data);
    json_decref(object);
}

void mdm_run_folder_compare_data(const char *path, const char *file, uint64_t fingerprint) {
    char *environment = mdm_run_folder_member(path, MDM_RUN_ENVIRONMENT), found[32];
    json_t *object = environment ? json_load_file(environment, 0, NULL) : NULL;
    const char *known = json_string_value(json_object_get(object, "data_fingerprint"));
    snprintf(found, sizeof found, "%016" PRIx64, fingerprint);
    if (known && strcmp(known, found) != 0)
        mdm_warn("%s is not the data set of the run %s any more: its labels or pictures have changed", file,
                 path);
    json_decref(object);
    free(environment);
}

char *mdm_run_folder_division(const char *path, int64_t epoch) {
    mdm_text text = {0};
    mdm_text_add(&text, "%s/divisions/epoch-%04" PRId64 ".h5", path, epoch);
    return text_or_null(&text);
}

char *mdm_run_folder_division_weights(const char *path, int64_t epoch, int network) {
    mdm_text text = {0};
    mdm_text_add(&text, "%s/divisions/epoch-%04" PRId64 "-%c.safetensors", path, epoch, 'a' + network);
    return text_or_null(&text);
}

/* The first line of the lock file: who took it last. */
static void read_holder(int file, char *who, size_t size) {
    char text[512];
    ssize_t length = pread(file, text, sizeof text - 1, 0);
    text[length > 0 ? length : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    mdm_printable(text, who, size);
}

static void write_holder(int file) {
    char host[256] = "an unknown host", text[512], since[64] = "";
    const char *job = getenv("SLURM_JOB_ID");
    time_t now = time(NULL);
    struct tm utc;
    (void)gethostname(host, sizeof host - 1);
    if (gmtime_r(&now, &utc)) strftime(since, sizeof since, "%Y-%m-%dT%H:%M:%SZ", &utc);
    int length = snprintf(text, sizeof text, "process %ld on %s since %s%s%.32s\n", (long)getpid(), host,
                          since, job ? ", job " : "", job ? job : "");
    /* Only for messages: a lock without a name still locks. */
    if (ftruncate(file, 0) == 0 && pwrite(file, text, (size_t)length, 0) != length)
        mdm_warn("cannot name the lock's holder");
}

static mdm_status take_lock(mdm_run_folder *f) {
    char who[512];
    char *path = mdm_run_folder_member(f->path, MDM_RUN_LOCK);
    if (!path) return mdm_fail(MDM_RESOURCE, "not enough memory to open the run folder");
    f->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
    int reason = errno;
    free(path);
    if (f->lock < 0)
        return mdm_fail(MDM_RESOURCE,
                        "cannot write into the run folder %s: %s; choose another with run=", f->path,
                        strerror(reason));
    int taken = flock(f->lock, LOCK_EX | LOCK_NB) == 0;
    for (int again = 0; again < 5 && !taken && errno == EWOULDBLOCK; again++) {
        /* `status` may be looking just now: mdm_run_folder_alive() */
        (void)nanosleep(&(struct timespec){.tv_nsec = 20 * 1000 * 1000}, NULL);
        taken = flock(f->lock, LOCK_EX | LOCK_NB) == 0;
    }
    if (taken) {
        write_holder(f->lock);
        return MDM_OK;
    }
    if (errno == EWOULDBLOCK) {
        read_holder(f->lock, who, sizeof who);
        return mdm_fail(MDM_RESOURCE,
                        "the run folder %s is in use by %s; wait for it, or choose another with run=",
                        f->path, who[0] ? who : "another run");
    }
    mdm_warn("%s: locks are not supported here (%s); make sure that no other run uses this folder", f->path,
             strerror(errno));
    close(f->lock);
    f->lock = -1;
    return MDM_OK;
}

static mdm_status make_inner_folder(const mdm_run_folder *f, mdm_run_member member) {
    char *path = mdm_run_folder_member(f->path, member);
    if (!path) return mdm_fail(MDM_RESOURCE, "not enough memory to open the run folder");
    mdm_status status = mdm_make_folders(path);
    if (status == MDM_OK && access(path, W_OK | X_OK) != 0)
        status = mdm_fail(MDM_RESOURCE, "cannot write into %s: %s", path, strerror(errno));
    free(path);
    return status;
}

static int member_exists(const mdm_run_folder *f, mdm_run_member member) {
    struct stat state;
    char *path = mdm_run_folder_member(f->path, member);
    int there = path && lstat(path, &state) == 0;
    free(path);
    return there;
}

static int has_checkpoint(const mdm_run_folder *f) {
    char *path = mdm_run_folder_member(f->path, MDM_RUN_CHECKPOINTS);
    DIR *entries = path ? opendir(path) : NULL;
    int found = 0;
    free(path);
    if (!entries) return 0;
    for (struct dirent *entry; !found && (entry = readdir(entries)) != NULL;)
        found = strncmp(entry->d_name, "epoch-", 6) == 0;
    closedir(entries);
    return found;
}

/* Only the supervisors' own files go: the records are of this run folder's last failure. */
static mdm_status empty_flight(const mdm_run_folder *f) {
    MDM_TRY(make_inner_folder(f, MDM_RUN_FLIGHT));
    char *path = mdm_run_folder_member(f->path, MDM_RUN_FLIGHT);
    DIR *entries = path ? opendir(path) : NULL;
    for (struct dirent *entry; entries && (entry = readdir(entries)) != NULL;) {
        int ours = strcmp(entry->d_name, "failure") == 0 || strncmp(entry->d_name, "rank-", 5) == 0;
        if (ours && unlinkat(dirfd(entries), entry->d_name, 0) != 0)
            mdm_warn("cannot remove %s/%s: %s", path, entry->d_name, strerror(errno));
    }
    if (entries) closedir(entries);
    free(path);
    return MDM_OK;
}

/* Whether the name is that of a temporary file of mdm_write_file() for one of the run's files. */
static int is_stray(const char *name) {
    long process;
    int attempt, end = 0, ours = strncmp(name, "epoch-", 6) == 0;
    const char *mark = strstr(name, ".tmp-");
    if (!mark || sscanf(mark, ".tmp-%ld-%d%n", &process, &attempt, &end) != 2 || mark[end]) return 0;
    size_t length = (size_t)(mark - name);
    for (size_t m = 0; m < sizeof members / sizeof *members; m++)
        ours |= strlen(members[m]) == length && memcmp(members[m], name, length) == 0;
    return ours;
}

/* What a kill left half written: nobody's, while this process holds the lock. */
static void remove_strays(const mdm_run_folder *f, const char *path) {
    DIR *entries = path && f->lock >= 0 ? opendir(path) : NULL;
    for (struct dirent *entry; entries && (entry = readdir(entries)) != NULL;)
        if (is_stray(entry->d_name) && unlinkat(dirfd(entries), entry->d_name, 0) != 0)
            mdm_warn("cannot remove %s/%s: %s", path, entry->d_name, strerror(errno));
    if (entries) closedir(entries);
}

mdm_status mdm_run_folder_open(const char *path, mdm_run_folder **folder) {
    mdm_run_folder *f = NULL;
    mdm_status status = MDM_OK;
    struct stat state;
    *folder = NULL;
    if (stat(path, &state) == 0 && !S_ISDIR(state.st_mode))
        return mdm_fail(MDM_RESOURCE, "the run folder %s cannot be made: a file of that name is in the way",
                        path);
    MDM_TRY(mdm_make_folders(path));
    MDM_TRY(MDM_ALLOCATE(f, 1, "the run folder"));
    f->lock = -1;
    f->path = strdup(path);
    if (!f->path) {
        status = mdm_fail(MDM_RESOURCE, "not enough memory to open the run folder");
        goto fail;
    }
    MDM_TRY_OR(status, take_lock(f), fail);
    MDM_TRY_OR(status, make_inner_folder(f, MDM_RUN_DIVISIONS), fail);
    MDM_TRY_OR(status, make_inner_folder(f, MDM_RUN_CHECKPOINTS), fail);
    MDM_TRY_OR(status, empty_flight(f), fail);
    char *divisions = mdm_run_folder_member(path, MDM_RUN_DIVISIONS);
    remove_strays(f, path);
    remove_strays(f, divisions);
    free(divisions);
    f->is_new = !member_exists(f, MDM_RUN_CONFIG) && !member_exists(f, MDM_RUN_METRICS) && !has_checkpoint(f);
    *folder = f;
    return MDM_OK;
fail:
    mdm_run_folder_close(f);
    return status;
}

static mdm_status remove_file(int folder, const char *path, const char *name) {
    if (unlinkat(folder, name, 0) == 0 || errno == ENOENT) return MDM_OK;
    return mdm_fail(MDM_RESOURCE, "cannot remove %s/%s of the run before: %s", path, name, strerror(errno));
}

mdm_status mdm_run_folder_forget(const mdm_run_folder *f) {
    static const mdm_run_member results[] = {
        MDM_RUN_MODEL_A, MDM_RUN_MODEL_B, MDM_RUN_BEST_A, MDM_RUN_BEST_B, MDM_RUN_OOD_REFERENCE,
        MDM_RUN_OOD_A,   MDM_RUN_OOD_B,   MDM_RUN_LABELS, MDM_RUN_REPORT, MDM_RUN_SUMMARY};
    mdm_status status = MDM_OK;
    char *path = mdm_run_folder_member(f->path, MDM_RUN_DIVISIONS);
    DIR *divisions = path ? opendir(path) : NULL, *folder = opendir(f->path);
    if (!divisions || !folder)
        status = mdm_fail(MDM_RESOURCE, "cannot read the run folder %s: %s", f->path, strerror(errno));
    for (size_t i = 0; status == MDM_OK && i < sizeof results / sizeof *results; i++)
        status = remove_file(dirfd(folder), f->path, members[results[i]]);
    for (struct dirent *entry; status == MDM_OK && (entry = readdir(divisions)) != NULL;)
        if (strncmp(entry->d_name, "epoch-", 6) == 0)
            status = remove_file(dirfd(divisions), path, entry->d_name);
    if (divisions) closedir(divisions);
    if (folder) closedir(folder);
    free(path);
    return status;
}

/* The lock file stays: removing it would let two runs lock two files of one name. */
void mdm_run_folder_close(mdm_run_folder *f) {
    if (!f) return;
    char *flight = f->path ? mdm_run_folder_member(f->path, MDM_RUN_FLIGHT) : NULL;
    if (flight && rmdir(flight) != 0 && errno != ENOTEMPTY && errno != EEXIST && errno != ENOENT)
        mdm_warn("cannot remove %s: %s", flight, strerror(errno));
    free(flight);
    if (f->lock >= 0) close(f->lock);
    free(f->path);
    free(f);
}

int mdm_run_folder_alive(const char *path, char *who, size_t size) {
    char *lock = mdm_run_folder_member(path, MDM_RUN_LOCK);
    int file = lock ? open(lock, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1, alive = 0;
    free(lock);
    if (size > 0) who[0] = '\0';
    if (file < 0) return 0;
    /* A shared lock for a moment: fails only while a run holds its exclusive one. */
    alive = flock(file, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (alive) read_holder(file, who, size);
    close(file);
    return alive;
}

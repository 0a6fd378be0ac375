/* From what a worker does to notes on the page that its supervisor reads. */
#include "mdm/base/watch.h"

#include "mdm/base/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST_STAGES = 16 };
static const double first_floor = 120, supervisors_turn = 10; /* seconds */

/* The page belongs to the process, as stderr does. Longest pauses are kept by stage in the worker. */
static struct {
    mdm_watch_page *page;
    struct {
        const char *name;
        int64_t longest;
    } seen[MOST_STAGES];
    int stages;
    const char *stage_before; /* of mdm_watch_aside */
    int64_t longest_before, floor_before;
} state;

int64_t mdm_watch_now(void) {
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* A wrong value is told by mdm_check_environment(). */
static double factor_of_environment(void) {
    double factor = mdm_watch_factor();
    return factor > 0 ? factor : 1;
}

mdm_watch_page *mdm_watch_create(void) {
    void *memory =
        mmap(NULL, sizeof(mdm_watch_page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    mdm_watch_page *page = memory;
    page->rank = page->ranks = -1;
    page->epoch = page->network = page->step = -1;
    page->stage = "start";
    page->floor = (int64_t)(first_floor * 1e9);
    page->factor = factor_of_environment();
    page->progress = mdm_watch_now();
    state.page = page;
    return page;
}

mdm_watch_page *mdm_watch_page_get(void) {
    return state.page;
}

int64_t mdm_watch_allowed(const mdm_watch_page *page) {
    int64_t floor = page->floor, seen = 5 * page->longest;
    return (int64_t)((double)(seen > floor ? seen : floor) * page->factor);
}

int64_t mdm_watch_allowed_busy(const mdm_watch_page *page) {
    int64_t allowed = mdm_watch_allowed(page), busy = (int64_t)((double)page->busy_floor * page->factor);
    return busy > 0 && busy < allowed ? busy : allowed;
}

double mdm_watch_limit(void) {
    if (!state.page) return first_floor * factor_of_environment();
    return (double)mdm_watch_allowed(state.page) / 1e9 + supervisors_turn;
}

static void store(_Atomic int64_t *place, int64_t value) {
    atomic_store_explicit(place, value, memory_order_relaxed);
}

static int64_t load(_Atomic int64_t *place) {
    return atomic_load_explicit(place, memory_order_relaxed);
}

static void note_at(mdm_watch_page *page, int64_t now) {
    int64_t pause = now - load(&page->progress);
    if (pause > load(&page->longest)) store(&page->longest, pause);
    atomic_store_explicit(&page->progress, now, memory_order_release);
}

void mdm_watch_ranks(int rank, int ranks) {
    if (!state.page) return;
    state.page->rank = rank;
    state.page->ranks = ranks;
}

/* The longest pause seen so far in a stage of this name. */
static int64_t *seen_in(const char *stage) {
    for (int i = 0; i < state.stages; i++)
        if (state.seen[i].name == stage) return &state.seen[i].longest;
    if (state.stages == MOST_STAGES) return NULL;
    state.seen[state.stages].name = stage;
    state.seen[state.stages].longest = 0;
    return &state.seen[state.stages++].longest;
}

void mdm_watch_stage(const char *stage, int64_t epoch, int64_t network, double floor) {
    mdm_watch_page *page = state.page;
    if (!page) return;
    int64_t *before = seen_in(page->stage), *now = seen_in(stage);
    if (page->stage != stage) {
        if (before) *before = load(&page->longest);
        store(&page->progress, mdm_watch_now());
        store(&page->longest, now ? *now : 0);
    } else
        note_at(page, mdm_watch_now());
    page->stage = stage;
    store(&page->epoch, epoch);
    store(&page->network, network);
    store(&page->step, -1);
    store(&page->floor, (int64_t)(floor * 1e9));
    store(&page->busy_floor, 0);
}

void mdm_watch_floor(double floor) {
    if (state.page) store(&state.page->floor, (int64_t)(floor * 1e9));
}

void mdm_watch_reading(double floor) {
    if (!state.page) return;
    note_at(state.page, mdm_watch_now());
    store(&state.page->busy_floor, (int64_t)(floor * 1e9));
}

void mdm_watch_read_begins(void) {
    if (state.page) atomic_fetch_add_explicit(&state.page->reads, 1, memory_order_relaxed);
}

/* Elsewhere reads are a part of something: there it is what counts. */
void mdm_watch_read_ends(void) {
    if (!state.page) return;
    atomic_fetch_sub_explicit(&state.page->reads, 1, memory_order_relaxed);
    if (load(&state.page->busy_floor) > 0) note_at(state.page, mdm_watch_now());
}

void mdm_watch_forget(void) {
    state.page = NULL;
}

void mdm_watch_aside(const char *stage, double floor) {
    mdm_watch_page *page = state.page;
    if (!page) return;
    state.stage_before = page->stage;
    state.longest_before = load(&page->longest);
    state.floor_before = load(&page->floor);
    mdm_watch_floor(floor);
    store(&page->progress, mdm_watch_now());
    page->stage = stage;
}

void mdm_watch_back(void) {
    mdm_watch_page *page = state.page;
    if (!page || !state.stage_before) return;
    store(&page->progress, mdm_watch_now());
    store(&page->longest, state.longest_before);
    store(&page->floor, state.floor_before);
    page->stage = state.stage_before;
    state.stage_before = NULL;
}

void mdm_watch_told(int code) {
    if (state.page) atomic_store(&state.page->told, code);
}

void mdm_watch_step(int64_t step) {
    if (!state.page) return;
    note_at(state.page, mdm_watch_now());
    store(&state.page->step, step);
}

void mdm_watch_progress(void) {
    if (state.page) note_at(state.page, mdm_watch_now());
}

void mdm_watch_enter(const char *operation, int64_t bytes) {
    mdm_watch_page *page = state.page;
    if (!page) return;
    int64_t number = load(&page->collectives), now = mdm_watch_now();
    mdm_watch_entry *entry = &page->ring[number % MDM_WATCH_RING];
    store(&entry->left, 0);
    store(&entry->number, number);
    store(&entry->bytes, bytes);
    store(&entry->entered, now);
    atomic_store_explicit(&entry->operation, operation, memory_order_relaxed);
    atomic_store_explicit(&page->collectives, number + 1, memory_order_release);
    atomic_store_explicit(&page->inside, 1, memory_order_relaxed);
    note_at(page, now);
}

void mdm_watch_leave(void) {
    mdm_watch_page *page = state.page;
    if (!page) return;
    int64_t now = mdm_watch_now();
    store(&page->ring[(load(&page->collectives) - 1) % MDM_WATCH_RING].left, now);
    atomic_store_explicit(&page->inside, 0, memory_order_relaxed);
    note_at(page, now);
}

void mdm_watch_pulse(void) {
    if (state.page) store(&state.page->pulse, load(&state.page->pulse) + 1);
}

void mdm_watch_folder(const char *folder) {
    mdm_watch_page *page = state.page;
    if (!page || strlen(folder) >= sizeof page->folder) return;
    memcpy(page->folder, folder, strlen(folder) + 1);
    atomic_store(&page->folder_known, 1);
}

int mdm_watch_claim(mdm_watch_page *page, const char *line) {
    char path[MDM_WATCH_PATH + 32];
    if (!page || !atomic_load(&page->folder_known)) return 1;
    snprintf(path, sizeof path, "%s/flight/failure", page->folder);
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (file < 0 && errno == ENOENT) { /* a run that has ended well took the folder away */
        char *name = strrchr(path, '/');
        *name = 0;
        (void)mkdir(path, 0777); /* perhaps another rank's supervisor was faster */
        *name = '/';
        file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    }
    if (file < 0) return errno != EEXIST; /* a full disk must not silence the message */
    if (write(file, line, strlen(line)) < 0 || write(file, "\n", 1) < 0) { /* the claim itself stands */
    }
    close(file);
    return 1;
}

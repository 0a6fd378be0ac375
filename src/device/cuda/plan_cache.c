/* From measured choices to a small file, and back with every doubt. */
#include "plan_cache.h"
#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum {
    VERSION = 2, /* of the file and of the way choices are made */
    MOST_ENTRIES = 4096,
    KEY_NUMBERS = 12, /* the rest beyond the shape's is zero */
    MACHINE_TEXT = 240,
    PATH_TEXT = 1024
};
static const char magic[8] = "mdmplan"; /* with its zero */

typedef struct file_head {
    char magic[8];
    uint32_t version, count;
    char machine[MACHINE_TEXT]; /* zeros behind the text */
} file_head;

typedef struct entry {
    int32_t key[KEY_NUMBERS];
    mdm_plan_choice choice;
} entry;

/* Written as they lie in memory. */
_Static_assert(sizeof(file_head) == 16 + MACHINE_TEXT, "no holes in the head");
_Static_assert(sizeof(entry) == 4 * KEY_NUMBERS + 16 + 16 * MDM_MOST_KNOBS, "no holes in an entry");

struct mdm_plan_cache {
    char folder[PATH_TEXT], path[PATH_TEXT + 64], machine[MACHINE_TEXT];
    entry *entries;
    int count, capacity, changed, is_kept; /* is_kept: on disk */
};

static void make_key(const mdm_gpu_convolution *s, int32_t key[KEY_NUMBERS]) {
    int32_t numbers[KEY_NUMBERS] = {
        (int32_t)s->pass, (int32_t)s->precision, s->batch, s->in, s->out, s->height, s->width, s->kernel,
        s->stride};
    memcpy(key, numbers, sizeof numbers);
}

static int find(const mdm_plan_cache *cache, const int32_t key[KEY_NUMBERS]) {
    for (int i = 0; i < cache->count; i++)
        if (memcmp(cache->entries[i].key, key, sizeof cache->entries[i].key) == 0) return i;
    return -1;
}

/* At the end; the oldest makes room when there are too many. */
static void append(mdm_plan_cache *cache, const entry *e) {
    if (cache->count == MOST_ENTRIES)
        memmove(cache->entries, cache->entries + 1, sizeof *e * (size_t)--cache->count);
    if (cache->count == cache->capacity) {
        int capacity = cache->capacity ? 2 * cache->capacity : 64;
        entry *larger = realloc(cache->entries, sizeof *larger * (size_t)capacity);
        if (!larger) return;
        cache->entries = larger;
        cache->capacity = capacity;
    }
    cache->entries[cache->count++] = *e;
}

static int is_sound(const entry *e) {
    return e->choice.engine >= 0 && e->choice.knob_count >= 0 && e->choice.knob_count <= MDM_MOST_KNOBS &&
           isfinite(e->choice.milliseconds) && e->choice.milliseconds >= 0;
}

/* Adds what the file has and this process has not; a file with any fault has nothing. */
static void take_content(mdm_plan_cache *cache, const char *content, size_t bytes) {
    file_head head;
    uint64_t sum;
    entry e;
    if (bytes < sizeof head + sizeof sum) return;
    memcpy(&head, content, sizeof head);
    if (memcmp(head.magic, magic, sizeof magic) != 0 || head.version != VERSION ||
        head.count > MOST_ENTRIES || bytes != sizeof head + head.count * sizeof e + sizeof sum ||
        memcmp(head.machine, cache->machine, sizeof head.machine) != 0)
        return;
    memcpy(&sum, content + bytes - sizeof sum, sizeof sum);
    if (sum != XXH3_64bits(content, bytes - sizeof sum)) return;
    for (uint32_t i = 0; i < head.count; i++) {
        memcpy(&e, content + sizeof head + i * sizeof e, sizeof e);
        if (is_sound(&e) && find(cache, e.key) < 0) append(cache, &e);
    }
}

static void read_file(mdm_plan_cache *cache) {
    const size_t most = sizeof(file_head) + MOST_ENTRIES * sizeof(entry) + sizeof(uint64_t);
    char *content;
    size_t bytes;
    if (mdm_read_file(cache->path, most, &content, &bytes) != MDM_OK) return;
    take_content(cache, content, bytes);
    free(content);
}

mdm_status mdm_plan_cache_open(const char *folder, const char *machine, mdm_plan_cache **out) {
    mdm_plan_cache *cache;
    *out = NULL;
    MDM_TRY(MDM_ALLOCATE(cache, 1, "cuDNN's plans"));
    *out = cache;
    snprintf(cache->machine, sizeof cache->machine, "%s", machine);
    cache->is_kept = folder[0] && strlen(folder) < sizeof cache->folder;
    if (!cache->is_kept) return MDM_OK;
    snprintf(cache->folder, sizeof cache->folder, "%s", folder);
    snprintf(cache->path, sizeof cache->path, "%s/cudnn-plans-%016" PRIx64, folder,
             XXH3_64bits(cache->machine, sizeof cache->machine));
    read_file(cache);
    return MDM_OK;
}

void mdm_plan_cache_close(mdm_plan_cache *cache) {
    if (!cache) return;
    free(cache->entries);
    free(cache);
}

int mdm_plan_cache_find(const mdm_plan_cache *cache, const mdm_gpu_convolution *shape,
                        mdm_plan_choice *choice) {
    int32_t key[KEY_NUMBERS];
    make_key(shape, key);
    int at = find(cache, key), is_there = at >= 0 && is_sound(&cache->entries[at]);
    if (is_there) *choice = cache->entries[at].choice;
    return is_there;
}

void mdm_plan_cache_put(mdm_plan_cache *cache, const mdm_gpu_convolution *shape,
                        const mdm_plan_choice *choice) {
    entry e = {.choice = *choice};
    make_key(shape, e.key);
    int at = find(cache, e.key);
    if (at >= 0)
        cache->entries[at] = e;
    else
        append(cache, &e);
    cache->changed = 1;
}

/* By one that nobody believes, or what the file says would come back when it is written. */
int mdm_plan_cache_forget(mdm_plan_cache *cache, const mdm_gpu_convolution *shape) {
    mdm_plan_choice choice;
    if (!mdm_plan_cache_find(cache, shape, &choice)) return 0;
    choice.engine = -1;
    mdm_plan_cache_put(cache, shape, &choice);
    return 1;
}

static mdm_status write_file(const mdm_plan_cache *cache) {
    file_head head = {.version = VERSION, .count = (uint32_t)cache->count};
    size_t entries = sizeof(entry) * (size_t)cache->count, bytes = sizeof head + entries + sizeof(uint64_t);
    char *content;
    MDM_TRY(mdm_make_folders(cache->folder));
    MDM_TRY(MDM_ALLOCATE(content, bytes, "cuDNN's plans"));
    memcpy(head.magic, magic, sizeof magic);
    memcpy(head.machine, cache->machine, sizeof head.machine);
    memcpy(content, &head, sizeof head);
    if (entries) memcpy(content + sizeof head, cache->entries, entries);
    uint64_t sum = XXH3_64bits(content, sizeof head + entries);
    memcpy(content + sizeof head + entries, &sum, sizeof sum);
    mdm_status status = mdm_write_file(cache->path, content, bytes);
    free(content);
    return status;
}

void mdm_plan_cache_save(mdm_plan_cache *cache) {
    if (!cache->changed || !cache->is_kept) return;
    cache->changed = 0;
    read_file(cache); /* what others have added */
    if (write_file(cache) == MDM_OK) return;
    cache->is_kept = 0;
    mdm_debug("cuDNN's plans are not kept for the next start: %s", mdm_last_message());
}

void mdm_plan_cache_folder(char *folder, size_t size) {
    const char *own = getenv("MDM_CACHE_FOLDER"), *caches = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int length = 0;
    folder[0] = '\0';
    if (own)
        length = snprintf(folder, size, "%s", own);
    else if (caches && caches[0] == '/') /* the specification has relative ones ignored */
        length = snprintf(folder, size, "%s/mdm-dist", caches);
    else if (home && home[0])
        length = snprintf(folder, size, "%s/.cache/mdm-dist", home);
    if (length < 0 || (size_t)length >= size) folder[0] = '\0';
}

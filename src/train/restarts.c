/* A run that dies again and again at the same place must not go round for ever in a queue: starts since the
 * last new checkpoint are counted in restarts.json, and the fourth is refused. Rank 0 only. */
#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include "trainer.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_STARTS = 3, FILE_LIMIT = 4096 };

/* The newest checkpoint's name, or "none". */
static void newest_checkpoint(const mdm_trainer *t, char *name, size_t size) {
    char path[4096], *content;
    size_t bytes;
    snprintf(name, size, "none");
    snprintf(path, sizeof path, "%s/checkpoints/latest", t->folder->path);
    if (access(path, F_OK) != 0 || mdm_read_file(path, FILE_LIMIT, &content, &bytes) != MDM_OK) return;
    content[strcspn(content, "\n")] = 0;
    snprintf(name, size, "%s", content);
    free(content);
}

/* Earlier starts from that checkpoint with these settings; 0 where the file tells of another, or nothing. */
static int64_t earlier_starts(const char *path, const char *checkpoint, const char *settings) {
    char *content;
    size_t bytes;
    int64_t starts = 0;
    if (access(path, F_OK) != 0 || mdm_read_file(path, FILE_LIMIT, &content, &bytes) != MDM_OK) return 0;
    json_t *file = json_loadb(content, bytes, 0, NULL);
    const char *from = json_string_value(json_object_get(file, "checkpoint")),
               *with = json_string_value(json_object_get(file, "settings"));
    if (from && with && strcmp(from, checkpoint) == 0 && strcmp(with, settings) == 0)
        starts = json_integer_value(json_object_get(file, "starts"));
    json_decref(file);
    free(content);
    return starts > 0 ? starts : 0;
}

mdm_status mdm_restarts_count(const mdm_trainer *t) {
    char path[4096], checkpoint[256], settings[32], text[512];
    snprintf(path, sizeof path, "%s/restarts.json", t->folder->path);
    newest_checkpoint(t, checkpoint, sizeof checkpoint);
    snprintf(settings, sizeof settings, "%016" PRIx64, mdm_config_hash(&t->config));
    int64_t starts = t->options.force ? 0 : earlier_starts(path, checkpoint, settings);
    if (starts >= MOST_STARTS)
        return mdm_fail(
            MDM_LOST,
            "%d starts from checkpoint %s ended without a newer one; mdm-dist doctor %s tells what was "
            "seen of it. Once the cause is gone remove %s and start again",
            MOST_STARTS, checkpoint, t->folder->path, path);
    int length = snprintf(text, sizeof text,
                          "{\"checkpoint\": \"%s\", \"settings\": \"%s\", \"starts\": %" PRId64 "}\n",
                          checkpoint, settings, starts + 1);
    if (mdm_write_file(path, text, (size_t)length) != MDM_OK)
        mdm_warn("starts are not counted: %s", mdm_last_message());
    return MDM_OK;
}

void mdm_restarts_forget(const mdm_trainer *t) {
    char path[4096];
    snprintf(path, sizeof path, "%s/restarts.json", t->folder->path);
    (void)unlink(path); /* what stays behind only counts once more */
}

/* From a failure to the message that goes with it, and from a wish for memory to memory or such a failure. */
#include "mdm/base/status.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_SIZE = 1024 };

static _Thread_local char last_message[MESSAGE_SIZE];

mdm_status mdm_fail(mdm_status code, const char *format, ...) {
    char text[MESSAGE_SIZE]; /* the arguments may hold the previous message itself */
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0) snprintf(text, sizeof text, "failure without a message (%s)", format);
    if (length >= (int)sizeof text) memcpy(text + sizeof text - 4, "...", 4);
    /* Library messages come with line ends; ours is one line. */
    size_t end = strlen(text);
    while (end > 0 && (text[end - 1] == '\n' || text[end - 1] == ' ')) text[--end] = '\0';
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20) *c = ' ';
    memcpy(last_message, text, sizeof text);
    return code;
}

const char *mdm_last_message(void) {
    return last_message;
}

mdm_status mdm_allocate(void **memory, long long count, long long size, const char *what) {
    enum { ALIGNMENT = 64 };
    *memory = NULL;
    if (count < 0 || size < 0 || (size > 0 && count > (INT64_MAX - ALIGNMENT) / size))
        return mdm_fail(MDM_RESOURCE, "cannot allocate %lld x %lld bytes for %s: the size is impossible",
                        count, size, what);
    size_t bytes = count > 0 && size > 0 ? (size_t)count * (size_t)size : 1;
    void *block = memalign(ALIGNMENT, bytes); /* of any size, so that sanitizers see what is touched behind */
    if (!block)
        return mdm_fail(MDM_RESOURCE, "not enough memory for %s (%.1f MiB)", what,
                        (double)bytes / (1024.0 * 1024.0));
    memset(block, 0, bytes);
    *memory = block;
    return MDM_OK;
}

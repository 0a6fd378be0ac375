/* Every parser of a user's file as a function of bytes, for libFuzzer and for the truncation test. */
#ifndef MDM_TESTS_FUZZ_TARGETS_H
#define MDM_TESTS_FUZZ_TARGETS_H

#include "mdm/base/status.h"
#include <stddef.h>
#include <stdint.h>

typedef struct fuzz_target {
    const char *name; /* also the folder of its samples in corpus/ */
    mdm_status (*read)(const uint8_t *bytes, size_t size);
    int strict; /* no beginning of a sound file is sound itself */
} fuzz_target;

extern const fuzz_target fuzz_targets[];
extern const int fuzz_target_count;
const fuzz_target *fuzz_target_find(const char *name);

#endif

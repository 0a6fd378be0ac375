/* libFuzzer's entry for the target named by FUZZ_TARGET. A finding is a crash, a sanitizer's report, a hang,
 * or a status that no input may have. */
#include "targets.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static const fuzz_target *target;
    if (!target && !(target = fuzz_target_find(FUZZ_TARGET))) abort();
    mdm_status status = target->read(bytes, size);
    if (status != MDM_OK && status != MDM_INPUT && status != MDM_USAGE && status != MDM_RESOURCE) abort();
    return 0;
}

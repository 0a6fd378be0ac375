/* How often the emulated device was called, but for what graphs call. */
#ifndef MDM_TESTS_EMULATED_COUNTS_H
#define MDM_TESTS_EMULATED_COUNTS_H

#include <stdint.h>

typedef struct emulated_counts {
    int64_t launches; /* kernels, convolutions, products, copies and zeroing within the device */
    int64_t uploads, downloads, collectives, marks;
    int64_t recorded, replayed; /* graphs */
} emulated_counts;

/* Of the device that was opened last. */
emulated_counts emulated_counts_of_latest(void);

#endif

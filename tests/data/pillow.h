/* What Pillow and torchvision computed: the operations of golden.h5 and the cases of pillow.h5
 * (make_pillow_cases.py), for the tests of augmentation on the CPU and on devices. */
#ifndef MDM_TESTS_PILLOW_H
#define MDM_TESTS_PILLOW_H

#include "mdm/data/augment.h"
#include <hdf5.h>
#include <stdint.h>

typedef struct golden_operation {
    const char *name; /* of the result in /augment, less "_u8"; fill 0 */
    mdm_augment_kind kind;
    double magnitude;
} golden_operation;
extern const golden_operation golden_operations[23];

/* A whole dataset of pillow.h5, which lies beside the golden file; converted to `type`. */
void *pillow_read(const char *group, const char *name, hid_t type, int64_t *count);
/* Image 0 to 2: 28x28x1, 32x32x3, 21x33x3. */
uint8_t *pillow_image(int which, const char **name, int *height, int *width, int *channels);
uint64_t pillow_hash(const uint8_t *bytes, int64_t count);

/* Every operation at every level and sign on one of the images, fill 128. */
typedef struct pillow_cases {
    const char *name;
    int height, width, channels;
    int64_t count;
    uint8_t *image, *kind, *level, *negative; /* [H,W,C], [count] */
    uint64_t *hash;                           /* of the results */
    uint8_t *output;                          /* the results, where there is one channel */
} pillow_cases;
void pillow_cases_read(int which, pillow_cases *cases);
void pillow_cases_free(pillow_cases *cases);
/* A case's magnitude as mdm_augment_apply takes it. */
double pillow_magnitude(const pillow_cases *cases, int64_t number);

#endif

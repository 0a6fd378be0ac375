/* Transition tables: CIFAR-10's similar pairs, CIFAR-100's superclasses, or a user's matrix. */
#include "noise_tables.h"
#include "mdm/base/text.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* CIFAR-100's coarse label of every fine label (alphabetical order), from the data set's description. */
static const unsigned char superclass[100] = {
    4,  1,  14, 8,  0,  6,  7,  7, 18, 3,  3,  14, 9, 18, 7,  11, 3,  9, 7,  11, 6,  11, 5,  10, 7,
    6,  13, 15, 3,  15, 0,  11, 1, 10, 12, 14, 16, 9, 11, 5,  5,  19, 8, 8,  15, 13, 14, 17, 18, 10,
    16, 4,  17, 4,  2,  0,  17, 4, 18, 17, 10, 3,  2, 12, 12, 16, 12, 1, 9,  19, 2,  10, 0,  1,  16,
    12, 9,  13, 15, 13, 16, 19, 2, 4,  6,  19, 5,  5, 8,  19, 18, 1,  2, 15, 6,  0,  17, 8,  14, 13};

/* The class that asymmetric noise mistakes `c` for. */
static int cifar10_partner(int c) {
    switch (c) {
    case 9:
        return 1; /* truck -> automobile */
    case 2:
        return 0; /* bird -> airplane */
    case 4:
        return 7; /* deer -> horse */
    case 3:
        return 5; /* cat <-> dog */
    case 5:
        return 3;
    default:
        return c;
    }
}

/* The next one of its superclass, of which each has five. */
static int cifar100_partner(int c) {
    int next = c;
    do next = (next + 1) % 100;
    while (superclass[next] != superclass[c]);
    return next;
}

static mdm_status built_in(const mdm_dataset *source, const int *remap, int classes, double *matrix) {
    int cifar = source->channels == 3 && source->height == 32 && source->width == 32;
    if (!cifar || (source->classes != 10 && source->classes != 100))
        return mdm_fail(MDM_USAGE,
                        "--asymmetric knows similar classes of CIFAR-10 and CIFAR-100 only; give "
                        "--transition-matrix FILE "
                        "with %d x %d numbers",
                        classes, classes);
    for (int c = 0; c < source->classes; c++) {
        int partner = source->classes == 10 ? cifar10_partner(c) : cifar100_partner(c);
        if (remap[c] < 0) continue;
        if (remap[partner] < 0) partner = c; /* the partner was held out */
        matrix[remap[c] * classes + remap[partner]] = 1.0;
    }
    return MDM_OK;
}

static mdm_status read_matrix(const char *path, int classes, double *matrix) {
    char *text, *next;
    size_t bytes;
    int count = 0, wanted = classes * classes;
    MDM_TRY(mdm_read_file(path, (size_t)64 << 20, &text, &bytes));
    mdm_status status = MDM_OK;
    for (char *at = text; status == MDM_OK; at = next) {
        while (*at == ',' || *at == ' ' || *at == '\t' || *at == '\n' || *at == '\r') at++;
        if (!*at) break;
        double value = strtod(at, &next);
        if (next == at || !isfinite(value) || value < 0)
            status = mdm_fail(MDM_INPUT, "%s: number %d is no share of at least 0", path, count + 1);
        else if (count < wanted)
            matrix[count] = value;
        count++;
    }
    if (status == MDM_OK && count != wanted)
        status = mdm_fail(MDM_INPUT, "%s has %d numbers; expected %d x %d", path, count, classes, classes);
    for (int c = 0; status == MDM_OK && c < classes; c++) {
        double sum = 0;
        for (int k = 0; k < classes; k++) sum += matrix[c * classes + k];
        if (fabs(sum - 1) > 1e-3)
            status = mdm_fail(MDM_INPUT, "%s: row %d sums to %g, expected 1", path, c, sum);
    }
    free(text);
    return status;
}

mdm_status mdm_noise_transitions(const mdm_dataset *source, const int *remap, int classes, const char *path,
                                 double **matrix) {
    MDM_TRY(MDM_ALLOCATE(*matrix, (int64_t)classes * classes, "the transition matrix"));
    return path ? read_matrix(path, classes, *matrix) : built_in(source, remap, classes, *matrix);
}

/* Classes that nothing shows: most often labels that begin at 1, or a folder's name with a typing error. And
 * classes that two files number otherwise. */
#include "mdm/base/log.h"
#include "mdm/base/text.h"
#include "mdm/data/dataset_file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMED = 5 };

/* "0, 4, 7, ...": the first few of the empty classes. */
static void list_empty(const int64_t *counts, int classes, char *text, size_t size) {
    int told = 0;
    *text = 0;
    for (int c = 0; c < classes; c++) {
        if (counts[c] > 0) continue;
        size_t length = strlen(text);
        if (told++ == NAMED) {
            snprintf(text + length, size - length, ", ...");
            return;
        }
        snprintf(text + length, size - length, "%s%d", length ? ", " : "", c);
    }
}

void mdm_warn_of_empty_classes(const int32_t *labels, int64_t count, int classes, const char *cure) {
    char list[128];
    int empty = 0;
    int64_t *counts = calloc((size_t)classes, sizeof *counts);
    if (!counts) return;
    for (int64_t i = 0; i < count; i++) counts[labels[i]]++;
    for (int c = 0; c < classes; c++) empty += counts[c] == 0;
    list_empty(counts, classes, list, sizeof list);
    if (empty == 1 && counts[0] == 0)
        mdm_warn("class 0 has no training picture: do the labels count from 1? %s", cure);
    else if (empty > 0)
        mdm_warn("%d of %d classes have no training picture (%s); %s", empty, classes, list, cure);
    free(counts);
}

int mdm_warn_of_other_name(const char *path, int label, const char *name, const char *expected) {
    char shown[2][128]; /* names come from files: no control characters on the terminal */
    if (!name || !expected || strcmp(name, expected) == 0) return 0;
    mdm_warn("%s: class %d is '%s', but '%s' in the training set; labels are compared by number, so the "
             "accuracy is wrong if the classes stand in another order (data import --classes sets it)",
             path, label, mdm_printable(name, shown[0], sizeof shown[0]),
             mdm_printable(expected, shown[1], sizeof shown[1]));
    return 1;
}

/* Classes that nothing shows: most often labels that begin at 1, or a folder's name with a typing error. */
#include "mdm/base/log.h"
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

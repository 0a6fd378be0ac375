/* The one pickle layout in which CIFAR's Python archives hold their batches: a dictionary of texts to lists
 * of numbers or texts, and one numpy array of bytes. Nothing in the file is ever called or looked up by name.
 */
#ifndef MDM_DATA_PICKLE_H
#define MDM_DATA_PICKLE_H

#include "mdm/base/status.h"
#include <stddef.h>
#include <stdint.h>

typedef struct mdm_pickle mdm_pickle;

/* Reads `size` bytes, which must outlive the result: texts and arrays point into them. MDM_INPUT for
 * everything but that layout. `name` is for messages. */
MDM_MUST_CHECK mdm_status mdm_pickle_read(const uint8_t *bytes, size_t size, const char *name,
                                          mdm_pickle **pickle);
void mdm_pickle_free(mdm_pickle *pickle);

/* The list under `key`: its length, or -1 when there is no such list. */
int64_t mdm_pickle_list(const mdm_pickle *pickle, const char *key);
/* Entry of that list as a number (0 when it is none), or as a text that is not zero-terminated (NULL when
 * none). */
int mdm_pickle_number(const mdm_pickle *pickle, const char *key, int64_t index, int64_t *value);
const char *mdm_pickle_text(const mdm_pickle *pickle, const char *key, int64_t index, size_t *length);
/* The uint8 array [rows,columns] under `key` in C order, or NULL. */
const uint8_t *mdm_pickle_array(const mdm_pickle *pickle, const char *key, int64_t *rows, int64_t *columns);

#endif

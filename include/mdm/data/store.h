/* The store: a data set file opened by all ranks, its labels, and its pictures by index.
 *
 * File format: CONTRACT section 3. Pictures that fit live in memory once per node (a shared window filled by
 * all ranks of the node); otherwise they are read from the file, and mdm_store_prefetch lets a thread read
 * the next step's pictures while the present step computes.
 *
 * MDM_RESIDENT_AUTO keeps pictures in memory when they take less than half of what every node has left
 * (MemAvailable and the control group's limit) and the shared window can be had; otherwise it streams.
 * Chunked or compressed pictures have no fixed place in the file: streamed, they are read by mdm_store_fetch
 * itself, and prefetching does nothing.
 */
#ifndef MDM_DATA_STORE_H
#define MDM_DATA_STORE_H

#include "mdm/base/status.h"
#include "mdm/comm/comm.h"
#include <stdint.h>

typedef struct mdm_store mdm_store;
typedef enum mdm_resident { MDM_RESIDENT_AUTO, MDM_RESIDENT_HOST, MDM_RESIDENT_STREAM } mdm_resident;
typedef enum mdm_split { MDM_TRAIN, MDM_TEST } mdm_split;

typedef struct mdm_store_info {
    int64_t train_count, test_count; /* samples; test_count is 0 when the file has no test set */
    int height, width, channels;     /* channels is 1 or 3 */
    int classes;                     /* from class_names where present, else 1 + the largest label */
    float mean[3], std[3];           /* per channel, of pixel / 255 */
    int resident;                    /* 1: pictures in memory, 0: streamed */
    uint64_t fingerprint; /* XXH3 of shapes, labels and a sample of the pictures: tells one data set from
                             another */
    const char *path;
} mdm_store_info;

/* Collective. Opens and checks the file: everything wrong with it is found here, on rank 0, and all ranks
 * return the same MDM_INPUT. The store is owned by the caller; mdm_store_close is collective. */
MDM_MUST_CHECK mdm_status mdm_store_open(mdm_comm *comm, const char *path, mdm_resident resident,
                                         mdm_store **store);
/* The same with the test set of another file: its /test group, or its /train group when it has no /test.
 * NULL: as above. */
MDM_MUST_CHECK mdm_status mdm_store_open_with_test(mdm_comm *comm, const char *path, const char *test_path,
                                                   mdm_resident resident, mdm_store **store);
/* The same for the pictures that a network is to judge: streamed, and its `mean` and `std` [3] are taken
 * where the file has none, so that no more pictures are read than are fetched, and samples for the
 * fingerprint. */
MDM_MUST_CHECK mdm_status mdm_store_open_to_judge(mdm_comm *comm, const char *path, const char *test_path,
                                                  const float *mean, const float *std, mdm_store **store);
void mdm_store_close(mdm_store *store);
/* Collective. Gives back the memory of resident pictures, which others have copied; what is fetched from now
 * on is read from the file. */
MDM_MUST_CHECK mdm_status mdm_store_let_go(mdm_store *store);
/* Collective. MDM_INPUT on all ranks where a streamed file was overwritten since it was opened: size and
 * times tell of a write, and then the pictures that the fingerprint samples are read again. A file that was
 * only touched, or whose name another has taken, is as it was. Labels are in memory and not looked at. */
MDM_MUST_CHECK mdm_status mdm_store_check_unchanged(mdm_store *store);
const mdm_store_info *mdm_store_get_info(const mdm_store *store);

/* Given labels [count] of a split; the true ones [train_count], or NULL when the file has none (-1: no class
 * of this set). */
const int32_t *mdm_store_labels(const mdm_store *store, mdm_split split);
const int32_t *mdm_store_true_labels(const mdm_store *store);
/* The sample's id from /train/ids, or NULL when the file has none. */
const char *mdm_store_id(const mdm_store *store, int64_t index);
/* The class's name from /class_names, or NULL. */
const char *mdm_store_class_name(const mdm_store *store, int label);

/* Announces which pictures the next call of mdm_store_fetch will ask for; reading starts in the background
 * (streamed stores; nothing to do for resident ones). The indices are copied. */
MDM_MUST_CHECK mdm_status mdm_store_prefetch(mdm_store *store, mdm_split split, const int64_t *index,
                                             int64_t count);
/* Runs of neighbouring training pictures that an order by blocks (mdm_random_shuffle_blocks) is made of:
 * about one MiB each. */
int64_t mdm_store_block(const mdm_store *store);
enum { MDM_STORE_WINDOW = 128 }; /* runs in use at a time */
/* Tells that fetches will follow such an order, so that whole runs are read into the page cache at their
 * first use. */
void mdm_store_expect_blocks(mdm_store *store);

/* Points pictures[i] at the uint8 [H,W,C] picture of index[i]. Valid until the next fetch. Not collective.
 * Indices may repeat. Allocates only when `count` exceeds every earlier call's (streamed stores). */
MDM_MUST_CHECK mdm_status mdm_store_fetch(mdm_store *store, mdm_split split, const int64_t *index,
                                          int64_t count, const uint8_t **pictures);
enum { MDM_STORE_MOST_RUN = 512 };
/* The same for pictures [first, first + count), at most MDM_STORE_MOST_RUN; the next so many, up to `end`,
 * are announced. */
MDM_MUST_CHECK mdm_status mdm_store_fetch_run(mdm_store *store, mdm_split split, int64_t first, int64_t count,
                                              int64_t end, const uint8_t **pictures);

#endif

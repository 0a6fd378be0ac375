/* Exact nearest neighbours on a CUDA device: what one rank does with its own rows and with those that visit
 * it. The divide room calls these functions in turn, for all ranks together (src/divide/knn_device.c).
 *
 * Unit rows in half precision are multiplied tile by tile; every query keeps its k + MDM_NEIGHBOUR_SPARE most
 * similar rows, which are scored again in double from the rows themselves, in the CPU's order of summation:
 * the same similarities to the bit. A query whose k-th similarity could be reached by a row that was left
 * out, given the largest error that half precision can have made (mdm_similarity_bound in
 * src/device/cuda/kernels_rows.h), is unproven, and is searched again without leaving anything out.
 *
 * "Kept" are the rows that take part; the others are nobody's neighbour and have no answer here. Memory: the
 * rows in half precision, the lists and one tile, 32 MiB at most; once more in half precision the rows of the
 * largest block that visits. All of it is reserved by mdm_neighbours_create.
 */
#ifndef MDM_DEVICE_NEIGHBOURS_H
#define MDM_DEVICE_NEIGHBOURS_H

#include "mdm/device/device.h"

enum {
    MDM_NEIGHBOUR_SPARE = 22, /* candidates beyond k, so that the proof has a gap to find */
    MDM_NEIGHBOURS_MOST = 100 /* k at most */
};

typedef struct mdm_neighbours mdm_neighbours;

typedef struct mdm_neighbours_shape {
    int64_t rows, first; /* this rank's: [rows, dimension], of which row 0 has the global index `first` */
    int64_t visitors;    /* rows of the largest block that visits; 0: none will */
    int dimension, k;    /* 1 <= k <= MDM_NEIGHBOURS_MOST */
    int tile_rows, tile_columns; /* 0: as the device likes them; else multiples of 64, columns >= rows */
} mdm_neighbours_shape;

/* `rows` [shape.rows, dimension] are in the device's memory and stay there, unchanged, until
 * mdm_neighbours_destroy. */
MDM_MUST_CHECK mdm_status mdm_neighbours_create(mdm_device *device, const mdm_neighbours_shape *shape,
                                                const float *rows, mdm_neighbours **neighbours);
void mdm_neighbours_destroy(mdm_neighbours *neighbours);

/* Lengths of this rank's rows, in double, and 128-bit hashes of their bytes, to host memory: norm [rows],
 * hash [rows, 2]. */
MDM_MUST_CHECK mdm_status mdm_neighbours_measure(mdm_neighbours *neighbours, double *norm, uint64_t *hash);

/* Begins the search of this rank's rows, those of each of its tiles among themselves: a small part of the
 * work where there are many. `kept` [count], in host memory: global indices, ascending. Before any other
 * search it may be begun anew, with other rows. */
MDM_MUST_CHECK mdm_status mdm_neighbours_begin(mdm_neighbours *neighbours, const int32_t *kept,
                                               int64_t count);

/* The rest of the search of this rank's rows among themselves. */
MDM_MUST_CHECK mdm_status mdm_neighbours_search_own(mdm_neighbours *neighbours);

/* A block of another rank's rows. */
typedef struct mdm_visiting_rows {
    const float *row; /* [count, dimension], in the device's memory; row 0 has the global index `first` */
    int64_t first, count;
    const int32_t *kept; /* [kept_count] global indices, ascending, in host memory */
    int64_t kept_count;
} mdm_visiting_rows;

/* Searches this rank's rows among those of a block, which are read in order with what else is queued on the
 * device; every block is to come once. */
MDM_MUST_CHECK mdm_status mdm_neighbours_search_visitors(mdm_neighbours *neighbours,
                                                         const mdm_visiting_rows *visitors);

/* How many tiles have been multiplied, by the searches above. */
int64_t mdm_neighbours_tiles(const mdm_neighbours *neighbours);

/* Answers all queries from their candidates and tells how many are unproven. */
MDM_MUST_CHECK mdm_status mdm_neighbours_answer(mdm_neighbours *neighbours, int64_t *unproven);

/* The second search, for the unproven ones alone: begin, this rank's rows, then every block once more, end.
 */
MDM_MUST_CHECK mdm_status mdm_neighbours_again_begin(mdm_neighbours *neighbours);
MDM_MUST_CHECK mdm_status mdm_neighbours_again_own(mdm_neighbours *neighbours);
MDM_MUST_CHECK mdm_status mdm_neighbours_again_visitors(mdm_neighbours *neighbours,
                                                        const mdm_visiting_rows *visitors);
void mdm_neighbours_again_end(mdm_neighbours *neighbours);

/* In place of the first search and of mdm_neighbours_again_begin, where only some rows may be neighbours:
 * every row of this rank is a query of the second search. `all` [count], in host memory: their global
 * indices, ascending. Afterwards every block comes once, as visitors, this rank's own too, and
 * mdm_neighbours_again_end; shape.visitors counts own rows. */
MDM_MUST_CHECK mdm_status mdm_neighbours_begin_among(mdm_neighbours *neighbours, const int32_t *all,
                                                     int64_t count);

/* To host memory: score [rows], the mean of 1 - similarity over the k nearest; index [rows, k], global, and
 * similarity [rows, k], by (similarity descending, index ascending); each may be NULL. */
MDM_MUST_CHECK mdm_status mdm_neighbours_read(mdm_neighbours *neighbours, float *score, int32_t *index,
                                              double *similarity);

#endif

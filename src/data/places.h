/* Where the pictures of a split lie in a data set file: what a child process finds there with HDF5, and what
 * the program reads them by, without it. */
#ifndef MDM_DATA_PLACES_H
#define MDM_DATA_PLACES_H

#include "mdm/base/status.h"
#include <stddef.h>
#include <stdint.h>

enum {
    MDM_MOST_CHUNK = 256 << 20,   /* bytes of a chunk, unpacked */
    MDM_MOST_ENCODED = 256 << 20, /* bytes of one picture kept as JPEG or PNG */
    MDM_MOST_FILTERS = 32
};

typedef enum mdm_places_kind { MDM_PLACES_PLAIN, MDM_PLACES_CHUNKED, MDM_PLACES_ENCODED } mdm_places_kind;

/* How a filter is undone. A shuffle is nothing to pictures, whose values are bytes. */
typedef enum mdm_filter { MDM_FILTER_NOTHING, MDM_FILTER_DEFLATE, MDM_FILTER_CHECKSUM } mdm_filter;

/* One piece of memory, so that it can be sent as it is. */
typedef struct mdm_places {
    int64_t bytes;                     /* of all this */
    int64_t count;                     /* of pictures */
    int32_t kind, split;               /* split: 0 train, 1 test, for messages */
    int32_t height, width, channels;   /* of a picture as it is read */
    int32_t fill;                      /* CHUNKED: what chunks hold that were never written */
    int64_t begin;                     /* PLAIN: of the first picture; ENCODED: of the first one's file */
    int64_t chunk[4];                  /* CHUNKED: lengths of a chunk [pictures,height,width,channels] */
    int32_t filters[MDM_MOST_FILTERS]; /* CHUNKED: as a writer applies them */
    int32_t filter_count, unused;
    int64_t entry_count,
        entries[]; /* CHUNKED: see mdm_places_get_chunk(); ENCODED: begins of the files, and the end */
} mdm_places;

/* As `shape` but for the entries, of which there is room for so many. The caller frees it with free(). */
MDM_MUST_CHECK mdm_status mdm_places_create(const mdm_places *shape, int64_t entry_count,
                                            mdm_places **places);
/* Whether these are places of `count` pictures of that shape within a file of `file_bytes` bytes; `bytes` is
 * how many there are of them. */
int mdm_places_are_possible(const mdm_places *places, size_t bytes, int64_t count, int height, int width,
                            int channels, int64_t file_bytes);
/* How many chunks lie along each dimension; returns how many there are in all. */
int64_t mdm_places_chunks(const mdm_places *places, int64_t along[4]);
/* How many bytes a chunk takes in the file at most. */
int64_t mdm_places_most_packed(const mdm_places *places);
/* The name of what lies there, in messages. */
const char *mdm_places_name(const mdm_places *places);

enum { MDM_PLACE_NOWHERE = -1, MDM_PLACE_HERE = -2 };
/* A chunk's entry. */
typedef struct mdm_chunk_place {
    int64_t at; /* in the file; NOWHERE: never written; HERE: the only chunk, behind its own entry */
    uint32_t bytes, left_out; /* left_out: bits of filters that this chunk went without */
} mdm_chunk_place;
mdm_chunk_place mdm_places_get_chunk(const mdm_places *places, int64_t number);
void mdm_places_set_chunk(mdm_places *places, int64_t number, mdm_chunk_place place);

/* Bytes of an open file from `at` on; MDM_INPUT, naming `path`, when there are not so many. */
MDM_MUST_CHECK mdm_status mdm_read_at(int descriptor, const char *path, int64_t at, int64_t bytes,
                                      uint8_t *to);

#endif

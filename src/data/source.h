/* Where an importer's files come from: a folder, or a tar archive, gzipped or not, that is read in place. */
#ifndef MDM_DATA_SOURCE_H
#define MDM_DATA_SOURCE_H

#include "mdm/data/dataset_file.h"
#include <stddef.h>
#include <stdint.h>

typedef struct mdm_source_member {
    char name[104]; /* without its folders */
    int64_t offset, bytes;
} mdm_source_member;

typedef struct mdm_source {
    const char *path;
    int is_archive, member_count;
    mdm_source_member *members; /* regular files of the archive */
} mdm_source;

/* Whether a file's name ends as archives' do: .tar, .tar.gz, .tgz. */
int mdm_source_is_archive(const char *path);
/* Lists an archive (reading it once to its end, so that damage is found); `path` must outlive the source.
 * MDM_INPUT for a damaged archive. */
MDM_MUST_CHECK mdm_status mdm_source_open(const char *path, mdm_source *source);
void mdm_source_close(mdm_source *source);
/* Whether the source holds `name` or `name`.gz; the path found, for messages, in `path`. */
int mdm_source_find(const mdm_source *source, const char *name, char *path, size_t size);
/* Reads the first bytes of the file (gzip or plain), at most `size`. */
MDM_MUST_CHECK mdm_status mdm_source_read_head(const mdm_source *source, const char *name,
                                               unsigned char *bytes, size_t size, size_t *count);
/* Reads the file, at most `limit` bytes; MDM_INPUT when missing, damaged or larger. The caller frees. */
MDM_MUST_CHECK mdm_status mdm_source_read(const mdm_source *source, const char *name, size_t limit,
                                          unsigned char **bytes, size_t *count);
/* Lines of a text file as class names of the data set, where it has exactly that many; otherwise none are
 * set. */
MDM_MUST_CHECK mdm_status mdm_source_class_names(const mdm_source *source, const char *name,
                                                 mdm_dataset *dataset);

#endif

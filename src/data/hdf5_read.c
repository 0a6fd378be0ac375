/* From a path to data sets whose place, type and shape have been looked at before a byte of them is read. */
#include "hdf5_read.h"

#include "mdm/base/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_CACHE = 64 << 20, CHUNK_SLOTS = 12421 };

void hdf5_read_be_quiet(void) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5PLset_loading_state(0);
}

/* The library says "truncated file" somewhere in its stack of reasons. */
static herr_t look_for_truncation(unsigned n, const H5E_error2_t *reason, void *found) {
    (void)n;
    if (reason->desc && strncmp(reason->desc, "truncated file", 14) == 0) *(int *)found = 1;
    return 0;
}

mdm_status hdf5_read_open(const char *path, hid_t *file) {
    hdf5_read_be_quiet();
    struct stat state;
    *file = -1;
    if (stat(path, &state) != 0)
        return mdm_fail(MDM_INPUT, "cannot open data set file %s: %s", path, strerror(errno));
    if (!S_ISREG(state.st_mode))
        return mdm_fail(MDM_INPUT, "%s is not a file; give a data set file (mdm-dist data import makes one)", path);
    if (access(path, R_OK) != 0)
        return mdm_fail(MDM_INPUT, "cannot read data set file %s: %s", path, strerror(errno));
    if (H5Fis_hdf5(path) <= 0)
        return mdm_fail(MDM_INPUT,
                        "%s is not an HDF5 file (or its beginning is lost); mdm-dist data import turns IDX and CIFAR "
                        "files into a data set file",
                        path);
    hid_t how = H5Pcreate(H5P_FILE_ACCESS);
    if (how < 0 || H5Pset_file_locking(how, 1, 1) < 0 || H5Pset_cache(how, 0, CHUNK_SLOTS, CHUNK_CACHE, 0.75) < 0) {
        if (how >= 0) H5Pclose(how);
        return mdm_fail(MDM_RESOURCE, "the HDF5 library refuses its settings; not enough memory?");
    }
    *file = H5Fopen(path, H5F_ACC_RDONLY, how);
    int reason = errno, truncated = 0;
    if (*file < 0) H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, look_for_truncation, &truncated);
    H5Pclose(how);
    if (*file >= 0) return MDM_OK;
    if (truncated)
        return mdm_fail(MDM_INPUT, "%s is cut short: it ends after %lld bytes; copy or make it again", path,
                        (long long)state.st_size);
    if (reason == EAGAIN || reason == EWOULDBLOCK)
        return mdm_fail(MDM_INPUT, "%s is open for writing in another program; close it there first", path);
    return mdm_fail(MDM_INPUT, "%s is damaged: its HDF5 structure cannot be read; copy or make it again", path);
}

/* Every component of the path must be a hard link: soft and external ones could lead out of the file. */
int hdf5_read_has(hid_t file, const char *name) {
    char part[HDF5_READ_LONGEST_TEXT];
    size_t length = strlen(name);
    H5L_info_t link;
    if (length >= sizeof part) return 0;
    for (size_t i = 1; i <= length; i++) {
        if (name[i] != '/' && name[i] != '\0') continue;
        memcpy(part, name, i);
        part[i] = '\0';
        if (H5Lexists(file, part, H5P_DEFAULT) <= 0 || H5Lget_info(file, part, &link, H5P_DEFAULT) < 0 ||
            link.type != H5L_TYPE_HARD)
            return 0;
    }
    return 1;
}

static mdm_status damaged(const char *path, const char *name) {
    return mdm_fail(MDM_INPUT, "%s: %s cannot be read, the file is damaged; copy or make it again", path, name);
}

/* Only filters that the library itself brings and that check what they decode. */
static mdm_status check_filters(hid_t creation, const char *path, const char *name) {
    int filters = H5Pget_nfilters(creation);
    for (int i = 0; i < filters; i++) {
        size_t count = 0;
        unsigned flags, config;
        H5Z_filter_t filter = H5Pget_filter2(creation, (unsigned)i, &flags, &count, NULL, 0, NULL, &config);
        if (filter == H5Z_FILTER_DEFLATE || filter == H5Z_FILTER_SHUFFLE || filter == H5Z_FILTER_FLETCHER32) continue;
        return mdm_fail(MDM_INPUT,
                        "%s: %s is compressed with HDF5 filter %d, which is not read; use gzip or none (h5repack -f "
                        "NONE)",
                        path, name, (int)filter);
    }
    return filters >= 0 ? MDM_OK : damaged(path, name);
}

static mdm_status file_bytes(const char *path, int64_t *bytes) {
    struct stat state;
    if (stat(path, &state) != 0) return mdm_fail(MDM_INPUT, "cannot read %s: %s", path, strerror(errno));
    *bytes = (int64_t)state.st_size;
    return MDM_OK;
}

/* Whether every chunk has been written: those a full disk swallowed would read as zeros. */
static int chunks_are_whole(const hdf5_set *set, hid_t creation) {
    hsize_t chunk[HDF5_READ_MAX_RANK], stored = 0;
    double wanted = 1;
    hid_t space = H5Dget_space(set->id);
    int good = space >= 0 && H5Pget_chunk(creation, set->rank, chunk) == set->rank &&
               H5Dget_num_chunks(set->id, space, &stored) >= 0;
    if (space >= 0) H5Sclose(space);
    for (int d = 0; good && d < set->rank; d++)
        wanted *= (double)((set->dims[d] + (int64_t)chunk[d] - 1) / (int64_t)chunk[d]);
    return good && (double)stored == wanted;
}

static mdm_status check_storage(hdf5_set *set, const char *path, const char *name) {
    int64_t size = 0;
    MDM_TRY(file_bytes(path, &size));
    hid_t creation = H5Dget_create_plist(set->id);
    if (creation < 0) return damaged(path, name);
    H5D_layout_t layout = H5Pget_layout(creation);
    int external = H5Pget_external_count(creation) != 0;
    mdm_status status = MDM_OK;
    if (external || layout == H5D_VIRTUAL)
        status = mdm_fail(MDM_INPUT, "%s: %s keeps its data in another file, which is refused; h5repack makes it whole",
                          path, name);
    if (status == MDM_OK) status = check_filters(creation, path, name);
    double bytes = (double)set->elements * (double)set->size;
    if (status == MDM_OK && bytes > 1100.0 * (double)size)
        status = mdm_fail(MDM_INPUT, "%s: %s declares %.0f bytes, the whole file has %lld; make it again", path, name,
                          bytes, (long long)size);
    set->offset = -1;
    if (status == MDM_OK && set->elements > 0) {
        if (layout == H5D_CONTIGUOUS) {
            haddr_t offset = H5Dget_offset(set->id);
            if (offset == HADDR_UNDEF)
                status = mdm_fail(MDM_INPUT, "%s: %s was declared but never written; make the file again", path, name);
            else if ((double)offset + bytes > (double)size)
                status = mdm_fail(MDM_INPUT, "%s: %s needs bytes up to %.0f, the file ends at %lld; copy it again",
                                  path, name, (double)offset + bytes, (long long)size);
            else
                set->offset = (int64_t)offset;
        } else if (layout == H5D_CHUNKED && !chunks_are_whole(set, creation)) {
            status = mdm_fail(MDM_INPUT, "%s: parts of %s were never written; make the file again", path, name);
        }
    }
    H5Pclose(creation);
    return status;
}

static int describe(hdf5_set *set) {
    hsize_t sizes[H5S_MAX_RANK];
    hid_t type = H5Dget_type(set->id), space = H5Dget_space(set->id);
    int good = type >= 0 && space >= 0;
    if (good) {
        set->kind = H5Tget_class(type);
        set->size = H5Tget_size(type);
        set->is_signed = set->kind != H5T_INTEGER || H5Tget_sign(type) == H5T_SGN_2;
        set->rank = H5Sget_simple_extent_ndims(space);
        good = set->rank >= 0 && set->rank <= HDF5_READ_MAX_RANK && H5Sget_simple_extent_type(space) != H5S_NULL;
    }
    if (good && set->rank > 0) good = H5Sget_simple_extent_dims(space, sizes, NULL) == set->rank;
    set->elements = 1;
    for (int d = 0; good && d < set->rank; d++) {
        good = sizes[d] <= INT64_MAX / 2;
        set->dims[d] = (int64_t)sizes[d];
        if (good) good = !__builtin_mul_overflow(set->elements, set->dims[d], &set->elements);
    }
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    return good;
}

mdm_status hdf5_read_open_set(hid_t file, const char *path, const char *name, int optional, hdf5_set *set) {
    memset(set, 0, sizeof *set);
    set->id = -1;
    set->offset = -1;
    if (!hdf5_read_has(file, name))
        return optional ? MDM_OK
                        : mdm_fail(MDM_INPUT,
                                   "%s has no data set %s; a data set file needs /train/images and /train/labels", path,
                                   name);
    set->id = H5Dopen2(file, name, H5P_DEFAULT);
    if (set->id < 0) return mdm_fail(MDM_INPUT, "%s: %s is not a data set, or is damaged", path, name);
    mdm_status status = describe(set) ? check_storage(set, path, name) : damaged(path, name);
    if (status != MDM_OK) hdf5_read_close_set(set);
    return status;
}

void hdf5_read_close_set(hdf5_set *set) {
    if (set->id >= 0) H5Dclose(set->id);
    set->id = -1;
}

mdm_status hdf5_read_rows(const hdf5_set *set, const char *path, const char *name, hid_t type, int64_t first,
                          int64_t count, void *out) {
    hsize_t start[HDF5_READ_MAX_RANK] = {(hsize_t)first}, length[HDF5_READ_MAX_RANK] = {(hsize_t)count};
    if (count == 0) return MDM_OK;
    for (int d = 1; d < set->rank; d++) length[d] = (hsize_t)set->dims[d];
    hid_t space = H5Dget_space(set->id), memory = H5Screate_simple(set->rank, length, NULL);
    int good = space >= 0 && memory >= 0 &&
               H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, length, NULL) >= 0 &&
               H5Dread(set->id, type, memory, space, H5P_DEFAULT, out) >= 0;
    if (memory >= 0) H5Sclose(memory);
    if (space >= 0) H5Sclose(space);
    return good ? MDM_OK : damaged(path, name);
}

static mdm_status too_long(const char *path, const char *name, int64_t row) {
    return mdm_fail(MDM_INPUT, "%s: text %lld of %s is longer than %d bytes; shorten it", path, (long long)row, name,
                    HDF5_READ_LONGEST_TEXT - 1);
}

static mdm_status read_variable_texts(const hdf5_set *set, hid_t type, const char *path, const char *name, char **texts,
                                      int *width) {
    char **pointers = NULL;
    size_t longest = 0;
    mdm_status status;
    MDM_TRY(MDM_ALLOCATE(pointers, set->elements + 1, "texts of the data set"));
    hid_t space = H5Dget_space(set->id);
    if (space < 0 || H5Dread(set->id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers) < 0) {
        status = damaged(path, name);
        goto end;
    }
    for (int64_t i = 0; i < set->elements; i++) {
        size_t length = pointers[i] ? strnlen(pointers[i], HDF5_READ_LONGEST_TEXT) : 0;
        if (length == HDF5_READ_LONGEST_TEXT) {
            status = too_long(path, name, i);
            goto reclaim;
        }
        if (length > longest) longest = length;
    }
    *width = (int)longest + 1;
    MDM_TRY_OR(status, mdm_allocate((void **)texts, set->elements, *width, name), reclaim);
    for (int64_t i = 0; i < set->elements; i++)
        if (pointers[i]) memcpy(*texts + i * *width, pointers[i], strlen(pointers[i]));
reclaim:
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, pointers);
end:
    if (space >= 0) H5Sclose(space);
    free(pointers);
    return status;
}

static mdm_status read_fixed_texts(const hdf5_set *set, hid_t type, const char *path, const char *name, char **texts,
                                   int *width) {
    if (set->size >= HDF5_READ_LONGEST_TEXT) return too_long(path, name, 0);
    *width = (int)set->size + 1;
    if (H5Tset_size(type, (size_t)*width) < 0 || H5Tset_strpad(type, H5T_STR_NULLTERM) < 0) return damaged(path, name);
    MDM_TRY(mdm_allocate((void **)texts, set->elements, *width, name));
    if (set->elements == 0 || H5Dread(set->id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *texts) >= 0) return MDM_OK;
    free(*texts);
    *texts = NULL;
    return damaged(path, name);
}

mdm_status hdf5_read_texts(const hdf5_set *set, const char *path, const char *name, char **texts, int *width) {
    *texts = NULL;
    *width = 0;
    if (set->kind != H5T_STRING || set->rank != 1)
        return mdm_fail(MDM_INPUT, "%s: %s must be a list of strings, one a row", path, name);
    hid_t own = H5Dget_type(set->id), type = H5Tcopy(H5T_C_S1);
    mdm_status status = damaged(path, name);
    if (own >= 0 && type >= 0 && H5Tset_cset(type, H5Tget_cset(own)) >= 0) {
        htri_t variable = H5Tis_variable_str(own);
        if (variable > 0 && H5Tset_size(type, H5T_VARIABLE) >= 0)
            status = read_variable_texts(set, type, path, name, texts, width);
        else if (variable == 0)
            status = read_fixed_texts(set, type, path, name, texts, width);
    }
    if (type >= 0) H5Tclose(type);
    if (own >= 0) H5Tclose(own);
    return status;
}

int hdf5_read_text_attribute(hid_t file, const char *name, char *text, size_t size) {
    if (H5Aexists(file, name) <= 0) return 0;
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT), own = attribute >= 0 ? H5Aget_type(attribute) : -1,
          space = attribute >= 0 ? H5Aget_space(attribute) : -1, type = -1;
    int found = -1;
    text[0] = '\0';
    if (own < 0 || space < 0 || H5Tget_class(own) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1) goto end;
    type = H5Tcopy(H5T_C_S1);
    if (type < 0 || H5Tset_cset(type, H5Tget_cset(own)) < 0) goto end;
    if (H5Tis_variable_str(own) > 0) {
        char *value = NULL;
        if (H5Tset_size(type, H5T_VARIABLE) < 0 || H5Aread(attribute, type, &value) < 0 || !value) goto end;
        if (strlen(value) < size) {
            memcpy(text, value, strlen(value) + 1);
            found = 1;
        }
        H5free_memory(value);
    } else if (H5Tget_size(own) < size) {
        if (H5Tset_size(type, size) < 0 || H5Aread(attribute, type, text) < 0) goto end;
        text[size - 1] = '\0';
        found = 1;
    }
end:
    if (type >= 0) H5Tclose(type);
    if (own >= 0) H5Tclose(own);
    if (space >= 0) H5Sclose(space);
    if (attribute >= 0) H5Aclose(attribute);
    return found;
}

int hdf5_read_number_attribute(hid_t file, const char *name, double *numbers, int count) {
    if (H5Aexists(file, name) <= 0) return 0;
    hid_t attribute = H5Aopen(file, name, H5P_DEFAULT), own = attribute >= 0 ? H5Aget_type(attribute) : -1,
          space = attribute >= 0 ? H5Aget_space(attribute) : -1;
    int found = -1;
    if (own >= 0 && space >= 0 && (H5Tget_class(own) == H5T_FLOAT || H5Tget_class(own) == H5T_INTEGER) &&
        H5Sget_simple_extent_npoints(space) == count && H5Aread(attribute, H5T_NATIVE_DOUBLE, numbers) >= 0)
        found = 1;
    if (own >= 0) H5Tclose(own);
    if (space >= 0) H5Sclose(space);
    if (attribute >= 0) H5Aclose(attribute);
    return found;
}

/* From arrays to the bytes of an HDF5 file and back, all in memory. */
#include "hdf5_image.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { GROWTH = 8 * 1024 * 1024, LONGEST_NAME = 256 };

/* Failures come back as status with our own message; the library's stack on stderr would be noise. */
static void be_quiet(void) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static mdm_status no_memory(const char *name) {
    return mdm_fail(MDM_RESOURCE, "cannot add %s to a file in memory: out of memory, or a doubled name",
                    name);
}

/* The library takes images of one name for one file, and refuses an image whose name exists on disk; below
 * /dev/null nothing exists. */
static void unique_name(char name[64]) {
    static atomic_ullong count;
    snprintf(name, 64, "/dev/null/image-%llu", atomic_fetch_add(&count, 1) + 1);
}

mdm_status image_create(size_t bytes, hid_t *file) {
    size_t growth = bytes > GROWTH ? bytes : GROWTH; /* the library copies everything at each growth */
    be_quiet();
    char name[64];
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    unique_name(name);
    *file = -1;
    if (access >= 0 && H5Pset_fapl_core(access, growth, 0) >= 0)
        *file = H5Fcreate(name, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    if (access >= 0) H5Pclose(access);
    return *file >= 0 ? MDM_OK : mdm_fail(MDM_RESOURCE, "cannot create an HDF5 file in memory");
}

static hid_t make_space(int rank, const int64_t *dims) {
    hsize_t sizes[IMAGE_MAX_RANK];
    if (rank == 0) return H5Screate(H5S_SCALAR);
    if (rank < 0 || rank > IMAGE_MAX_RANK) return -1;
    for (int d = 0; d < rank; d++) {
        if (dims[d] < 0) return -1;
        sizes[d] = (hsize_t)dims[d];
    }
    return H5Screate_simple(rank, sizes, NULL);
}

mdm_status image_put(hid_t place, const char *name, hid_t type, int rank, const int64_t *dims,
                     const void *data) {
    be_quiet();
    hid_t space = make_space(rank, dims), links = H5Pcreate(H5P_LINK_CREATE),
          creation = H5Pcreate(H5P_DATASET_CREATE), set = -1;
    int good = space >= 0 && links >= 0 && creation >= 0 && H5Pset_create_intermediate_group(links, 1) >= 0 &&
               H5Pset_obj_track_times(creation, 0) >= 0 &&
               H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER) >= 0;
    if (good) set = H5Dcreate2(place, name, type, space, links, creation, H5P_DEFAULT);
    hssize_t points = set >= 0 ? H5Sget_simple_extent_npoints(space) : -1;
    good = points >= 0;
    if (points > 0) good = H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0;
    if (set >= 0 && H5Dclose(set) < 0) good = 0;
    if (creation >= 0) H5Pclose(creation);
    if (links >= 0) H5Pclose(links);
    if (space >= 0) H5Sclose(space);
    return good ? MDM_OK : no_memory(name);
}

/* A zero-terminated type of the text's own length; h5py reads it as one string. */
static hid_t text_type(const char *text) {
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type >= 0 && (H5Tset_size(type, strlen(text) + 1) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)) {
        H5Tclose(type);
        type = -1;
    }
    return type;
}

mdm_status image_put_text(hid_t place, const char *name, const char *text) {
    hid_t type = text_type(text);
    mdm_status status = type >= 0 ? image_put(place, name, type, 0, NULL, text) : no_memory(name);
    if (type >= 0) H5Tclose(type);
    return status;
}

mdm_status image_put_attribute(hid_t place, const char *name, const char *attribute, hid_t type, int count,
                               const void *data) {
    be_quiet();
    int64_t dims[1] = {count};
    hid_t space = make_space(count > 1 ? 1 : 0, dims), created = -1;
    if (space >= 0)
        created =
            H5Acreate_by_name(place, name, attribute, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    int good = created >= 0 && H5Awrite(created, type, data) >= 0;
    if (created >= 0 && H5Aclose(created) < 0) good = 0;
    if (space >= 0) H5Sclose(space);
    return good ? MDM_OK : no_memory(attribute);
}

mdm_status image_put_text_attribute(hid_t place, const char *name, const char *attribute, const char *text) {
    hid_t type = text_type(text);
    mdm_status status =
        type >= 0 ? image_put_attribute(place, name, attribute, type, 1, text) : no_memory(attribute);
    if (type >= 0) H5Tclose(type);
    return status;
}

mdm_status image_finish(hid_t file, size_t prefix, char **content, size_t *bytes) {
    be_quiet();
    *content = NULL;
    *bytes = 0;
    int good = H5Fflush(file, H5F_SCOPE_GLOBAL) >= 0;
    ssize_t size = good ? H5Fget_file_image(file, NULL, 0) : -1;
    mdm_status status = size > 0
                            ? MDM_ALLOCATE(*content, prefix + (size_t)size, "a file put together in memory")
                            : mdm_fail(MDM_RESOURCE, "cannot put an HDF5 file together: out of memory");
    if (status == MDM_OK && H5Fget_file_image(file, *content + prefix, (size_t)size) != size)
        status = mdm_fail(MDM_RESOURCE, "cannot put an HDF5 file together: out of memory");
    if (H5Fclose(file) < 0 && status == MDM_OK)
        status = mdm_fail(MDM_RESOURCE, "cannot put an HDF5 file together: it does not close");
    if (status != MDM_OK) {
        free(*content);
        *content = NULL;
    } else {
        *bytes = prefix + (size_t)size;
    }
    return status;
}

/* The library copies an image three times unless these tell it that the one buffer will do. */
static void *lend(size_t size, H5FD_file_image_op_t operation, void *buffer) {
    (void)size, (void)operation;
    return buffer;
}

static void *lend_copy(void *to, const void *from, size_t size, H5FD_file_image_op_t operation,
                       void *buffer) {
    (void)size, (void)operation, (void)buffer;
    return to == from ? to : NULL;
}

static herr_t lend_end(void *from, H5FD_file_image_op_t operation, void *buffer) {
    (void)from, (void)operation, (void)buffer;
    return 0;
}

static void *keep(void *buffer) {
    return buffer;
}

static herr_t keep_end(void *buffer) {
    (void)buffer;
    return 0;
}

mdm_status image_open(void *content, size_t bytes, const char *label, hid_t *file) {
    be_quiet();
    H5FD_file_image_callbacks_t callbacks = {.image_malloc = lend,
                                             .image_memcpy = lend_copy,
                                             .image_free = lend_end,
                                             .udata_copy = keep,
                                             .udata_free = keep_end,
                                             .udata = content};
    char name[64];
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    unique_name(name);
    *file = -1;
    if (access >= 0 && H5Pset_fapl_core(access, GROWTH, 0) >= 0 &&
        H5Pset_file_image_callbacks(access, &callbacks) >= 0 &&
        H5Pset_file_image(access, content, bytes) >= 0)
        *file = H5Fopen(name, H5F_ACC_RDONLY, access);
    if (access >= 0) H5Pclose(access);
    return *file >= 0 ? MDM_OK : mdm_fail(MDM_INPUT, "%s does not hold a sound HDF5 file", label);
}

/* Every component of the path must be a hard link: soft and external ones could lead out of the file. */
int image_has(hid_t place, const char *name) {
    char path[LONGEST_NAME];
    size_t length = strlen(name);
    H5L_info_t link;
    be_quiet();
    if (length == 0 || length >= sizeof path || name[0] == '/') return 0;
    for (size_t i = 1; i <= length; i++) {
        if (name[i] != '/' && name[i] != '\0') continue;
        memcpy(path, name, i);
        path[i] = '\0';
        if (H5Lexists(place, path, H5P_DEFAULT) <= 0 || H5Lget_info(place, path, &link, H5P_DEFAULT) < 0 ||
            link.type != H5L_TYPE_HARD)
            return 0;
    }
    return 1;
}

static int is_plain(hid_t set) {
    hid_t creation = H5Dget_create_plist(set);
    if (creation < 0) return 0;
    H5D_layout_t layout = H5Pget_layout(creation);
    int plain = (layout == H5D_CONTIGUOUS || layout == H5D_COMPACT) && H5Pget_external_count(creation) == 0;
    H5Pclose(creation);
    return plain;
}

static int describe(image_dataset *set) {
    hsize_t sizes[H5S_MAX_RANK];
    hid_t type = H5Dget_type(set->id), space = H5Dget_space(set->id);
    int good = type >= 0 && space >= 0 && is_plain(set->id);
    if (good) {
        set->kind = H5Tget_class(type);
        set->size = H5Tget_size(type);
        set->is_signed = set->kind != H5T_INTEGER || H5Tget_sign(type) == H5T_SGN_2;
        set->rank = H5Sget_simple_extent_ndims(space);
        good = set->size > 0 && set->rank >= 0 && set->rank <= IMAGE_MAX_RANK &&
               H5Sget_simple_extent_type(space) != H5S_NULL;
    }
    if (good && set->rank > 0) good = H5Sget_simple_extent_dims(space, sizes, NULL) == set->rank;
    set->elements = 1;
    for (int d = 0; good && d < set->rank; d++) {
        good = sizes[d] <= INT64_MAX;
        set->dims[d] = (int64_t)sizes[d];
        if (good) good = !__builtin_mul_overflow(set->elements, set->dims[d], &set->elements);
    }
    if (type >= 0) H5Tclose(type);
    if (space >= 0) H5Sclose(space);
    return good;
}

int64_t image_offset(hid_t place, const char *name) {
    be_quiet();
    hid_t set = H5Dopen2(place, name, H5P_DEFAULT);
    if (set < 0) return -1;
    haddr_t offset = H5Dget_offset(set);
    H5Dclose(set);
    return offset == HADDR_UNDEF || offset > INT64_MAX ? -1 : (int64_t)offset;
}

mdm_status image_open_dataset(hid_t place, const char *label, const char *name, image_dataset *set) {
    memset(set, 0, sizeof *set);
    set->id = -1;
    if (!image_has(place, name)) return mdm_fail(MDM_INPUT, "%s lacks %s", label, name);
    set->id = H5Dopen2(place, name, H5P_DEFAULT);
    if (set->id >= 0 && describe(set)) return MDM_OK;
    if (set->id >= 0) H5Dclose(set->id);
    set->id = -1;
    return mdm_fail(MDM_INPUT, "%s: %s is not an array as this program writes them", label, name);
}

mdm_status image_get(hid_t place, const char *label, const char *name, hid_t type, int64_t count, void *out) {
    image_dataset set;
    mdm_status status = MDM_OK;
    H5T_class_t kind = H5Tget_class(type);
    int is_signed = kind != H5T_INTEGER || H5Tget_sign(type) == H5T_SGN_2;
    MDM_TRY(image_open_dataset(place, label, name, &set));
    if (set.kind != kind || set.size != H5Tget_size(type) || set.is_signed != is_signed)
        status = mdm_fail(MDM_INPUT, "%s: %s holds another type of number than expected", label, name);
    else if (set.elements != count)
        status = mdm_fail(MDM_INPUT, "%s: %s has %" PRId64 " elements, %" PRId64 " were expected", label,
                          name, set.elements, count);
    else if (count > 0 && H5Dread(set.id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) < 0)
        status = mdm_fail(MDM_INPUT, "%s: %s cannot be read", label, name);
    H5Dclose(set.id);
    return status;
}

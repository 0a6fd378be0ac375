/* Opening a data set file and its parts by HDF5: what is not there or of another form is told in one line. */
#include "dataset_hdf5.h"
#include "hdf5_driver.h"
#include <stdio.h>
#include <string.h>

void mdm_dataset_quiet(void) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* our one line is enough */
}

mdm_status mdm_reader_open(const char *path, hid_t *file) {
    mdm_dataset_quiet();
    if (H5Fis_hdf5(path) <= 0)
        return mdm_fail(MDM_INPUT, "%s is not an HDF5 file; mdm-dist data import converts other formats",
                        path);
    hid_t access = mdm_driver_access(); /* no locks either, which NFS and Lustre may not have */
    if (access < 0) return mdm_fail(MDM_RESOURCE, "no memory for reading %s", path);
    *file = H5Fopen(path, H5F_ACC_RDONLY, access);
    H5Pclose(access);
    if (*file < 0)
        return mdm_fail(MDM_INPUT, "%s is damaged or was cut short (HDF5 cannot open it); write it again",
                        path);
    return MDM_OK;
}

int mdm_reader_has(const mdm_reader *r, const char *name) {
    char parent[64];
    snprintf(parent, sizeof parent, "%s", name);
    char *slash = strrchr(parent, '/');
    if (slash && slash != parent) {
        *slash = 0;
        if (H5Lexists(r->file, parent, H5P_DEFAULT) == 0) return 0;
    }
    return H5Lexists(r->file, name, H5P_DEFAULT) != 0;
}

int mdm_reader_is_elsewhere(const mdm_reader *r, hid_t array) {
    H5O_info_t ours, its;
    return H5Oget_info2(r->file, &ours, H5O_INFO_BASIC) < 0 ||
           H5Oget_info2(array, &its, H5O_INFO_BASIC) < 0 || ours.fileno != its.fileno;
}

mdm_status mdm_reader_open_array(const mdm_reader *r, const char *name, int rank, hsize_t *dims,
                                 hid_t *array) {
    if (!mdm_reader_has(r, name))
        return mdm_fail(MDM_INPUT, "%s: %s is missing; docs/formats.md describes the file", r->path, name);
    *array = H5Dopen2(r->file, name, H5P_DEFAULT);
    if (*array < 0)
        return mdm_fail(MDM_INPUT, "%s: %s cannot be opened as a data set; the file is damaged", r->path,
                        name);
    hid_t space = H5Dget_space(*array), plist = H5Dget_create_plist(*array);
    int actual = H5Sget_simple_extent_ndims(space), external = H5Pget_external_count(plist);
    if (actual == rank && H5Sget_simple_extent_dims(space, dims, NULL) != rank) actual = -1;
    H5Sclose(space);
    H5Pclose(plist);
    mdm_status status = MDM_OK;
    if (actual != rank)
        status =
            mdm_fail(MDM_INPUT, "%s: %s has %d dimension%s, expected %d%s", r->path, name, actual,
                     actual == 1 ? "" : "s", rank, rank == 4 ? " ([N,H,W,C]; C is 1 for grey pictures)" : "");
    else if (mdm_reader_is_elsewhere(r, *array))
        status = mdm_fail(MDM_INPUT, "%s: %s is a link into another file, which is refused; copy the data",
                          r->path, name);
    else if (external > 0)
        status =
            mdm_fail(MDM_INPUT, "%s: %s keeps its values in other files, which is refused", r->path, name);
    if (status != MDM_OK) H5Dclose(*array);
    return status;
}

mdm_status mdm_reader_check_type(const mdm_reader *r, const char *name, hid_t array, int bytes) {
    hid_t type = H5Dget_type(array);
    size_t size = H5Tget_size(type), bits = H5Tget_precision(type);
    int first = H5Tget_offset(type);
    int right = H5Tget_class(type) == H5T_INTEGER && size >= 1 && size <= 8 && bits >= 1 && first >= 0 &&
                bits + (size_t)first <= 8 * size &&
                (bytes == 0 || ((int)size == bytes && H5Tget_sign(type) == H5T_SGN_NONE));
    H5Tclose(type);
    if (right) return MDM_OK;
    return mdm_fail(MDM_INPUT, "%s: %s has the wrong type; expected %s", r->path, name,
                    bytes ? "uint8 (0 to 255)" : "integers (int32)");
}

hssize_t mdm_reader_elements(hid_t attribute) {
    hid_t space = H5Aget_space(attribute);
    hssize_t count = H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    return count;
}

/* Readers of what Pillow and torchvision computed. */
#include "pillow.h"
#include "golden.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const golden_operation golden_operations[23] = {{"shear_x_m0.3", MDM_SHEAR_X, -0.3},
                                                {"shear_x_0.3", MDM_SHEAR_X, 0.3},
                                                {"shear_y_m0.3", MDM_SHEAR_Y, -0.3},
                                                {"shear_y_0.3", MDM_SHEAR_Y, 0.3},
                                                {"translate_x_m7", MDM_TRANSLATE_X, -7},
                                                {"translate_x_7", MDM_TRANSLATE_X, 7},
                                                {"translate_y_m7", MDM_TRANSLATE_Y, -7},
                                                {"translate_y_7", MDM_TRANSLATE_Y, 7},
                                                {"rotate_m20", MDM_ROTATE, -20},
                                                {"rotate_20", MDM_ROTATE, 20},
                                                {"brightness_0.3", MDM_BRIGHTNESS, 0.3},
                                                {"brightness_1.8", MDM_BRIGHTNESS, 1.8},
                                                {"color_0.3", MDM_COLOR, 0.3},
                                                {"color_1.8", MDM_COLOR, 1.8},
                                                {"contrast_0.3", MDM_CONTRAST, 0.3},
                                                {"contrast_1.8", MDM_CONTRAST, 1.8},
                                                {"sharpness_0.3", MDM_SHARPNESS, 0.3},
                                                {"sharpness_1.8", MDM_SHARPNESS, 1.8},
                                                {"posterize_5", MDM_POSTERIZE, 5},
                                                {"solarize_100", MDM_SOLARIZE, 100},
                                                {"autocontrast", MDM_AUTOCONTRAST, 0},
                                                {"equalize", MDM_EQUALIZE, 0},
                                                {"invert", MDM_INVERT, 0}};

void *pillow_read(const char *group, const char *name, hid_t type, int64_t *count) {
    static const char golden[] = MDM_GOLDEN_FILE;
    char file_name[1024], path[64];
    const char *folder = getenv("MDM_GOLDEN_FOLDER"); /* on a machine without the sources */
    int length = (int)(strrchr(golden, '/') - golden);
    snprintf(file_name, sizeof file_name, "%.*s/pillow.h5", folder ? (int)strlen(folder) : length,
             folder ? folder : golden);
    snprintf(path, sizeof(path), "%s/%s", group, name);
    hid_t file = H5Fopen(file_name, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    hid_t dataset = H5Dopen2(file, path, H5P_DEFAULT);
    assert_true(dataset >= 0);
    hid_t space = H5Dget_space(dataset);
    *count = (int64_t)H5Sget_simple_extent_npoints(space);
    void *values = malloc((size_t)*count * H5Tget_size(type));
    assert_non_null(values);
    assert_true(H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Sclose(space);
    H5Dclose(dataset);
    H5Fclose(file);
    return values;
}

uint64_t pillow_hash(const uint8_t *bytes, int64_t count) {
    uint64_t hash = 0xCBF29CE484222325ull;
    for (int64_t i = 0; i < count; i++) hash = (hash ^ bytes[i]) * 0x100000001B3ull;
    return hash;
}

uint8_t *pillow_image(int which, const char **name, int *height, int *width, int *channels) {
    static const char *const names[3] = {"grey", "rgb", "odd"};
    static const int shapes[3][3] = {{28, 28, 1}, {32, 32, 3}, {21, 33, 3}};
    int64_t count;
    *name = names[which];
    *height = shapes[which][0];
    *width = shapes[which][1];
    *channels = shapes[which][2];
    uint8_t *image = pillow_read(*name, "image", H5T_NATIVE_UINT8, &count);
    assert_int_equal(count, *height * *width * *channels);
    return image;
}

void pillow_cases_read(int which, pillow_cases *c) {
    int64_t count;
    c->image = pillow_image(which, &c->name, &c->height, &c->width, &c->channels);
    c->kind = pillow_read(c->name, "kind", H5T_NATIVE_UINT8, &c->count);
    c->level = pillow_read(c->name, "level", H5T_NATIVE_UINT8, &c->count);
    c->negative = pillow_read(c->name, "negative", H5T_NATIVE_UINT8, &c->count);
    c->hash = pillow_read(c->name, "hash", H5T_NATIVE_UINT64, &c->count);
    c->output = c->channels == 1 ? pillow_read(c->name, "output", H5T_NATIVE_UINT8, &count) : NULL;
    assert_int_equal(c->count, 9 * 20 + 2 * 10 + 3);
}

void pillow_cases_free(pillow_cases *c) {
    void *arrays[] = {c->image, c->kind, c->level, c->negative, c->hash, c->output};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
}

double pillow_magnitude(const pillow_cases *c, int64_t i) {
    mdm_augment_kind kind = (mdm_augment_kind)c->kind[i];
    double magnitude =
        mdm_augment_magnitude(kind, c->level[i], c->height, c->width) * (c->negative[i] ? -1 : 1);
    return kind >= MDM_BRIGHTNESS && kind <= MDM_SHARPNESS ? 1.0 + magnitude : magnitude;
}

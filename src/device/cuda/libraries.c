/* From names of NVIDIA's libraries to their functions. */
#include "libraries.h"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* The first folder that has it; the loader's message of the first attempt is the one worth telling. */
static void *open_library(const char *file, char *why, size_t why_size) {
    char path[512];
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library) return library;
    snprintf(why, why_size, "%s", dlerror());
    snprintf(path, sizeof path, "%s/%s", MDM_CUDA_LIBRARY_FOLDER, file);
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) (void)dlerror();
    return library;
}

static mdm_status find(void *library, const char *file, const char *name, void *function) {
    void *found = dlsym(library, name);
    if (!found)
        return mdm_fail(MDM_RESOURCE, "%s lacks %s: it is not the version that this build expects", file,
                        name);
    memcpy(function, &found, sizeof found);
    return MDM_OK;
}

#define STRING_OF(number) #number
#define CUDNN_FILE(major) "libcudnn.so." STRING_OF(major)

mdm_status mdm_cudnn_load(const mdm_cudnn **cudnn) {
    static mdm_cudnn table; /* functions of a library that stays open for the process */
    static int loaded;
    static const char file[] = CUDNN_FILE(CUDNN_MAJOR);
    char why[512];
    *cudnn = &table;
    if (loaded) return MDM_OK;
    void *library = open_library(file, why, sizeof why);
    if (!library)
        return mdm_fail(MDM_RESOURCE,
                        "cuDNN %d is not found (%s); install it or name its folder in LD_LIBRARY_PATH",
                        CUDNN_MAJOR, why);
#define FIND(name) MDM_TRY(find(library, file, #name, &table.name));
    MDM_CUDNN_FUNCTIONS(FIND)
    loaded = 1;
    return MDM_OK;
}

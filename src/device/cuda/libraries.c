/* From names of NVIDIA's libraries to their functions. */
#include "cublaslt.h"
#ifdef MDM_HAS_NCCL
#include "nccl_table.h"
#endif
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The first folder that has it. Of the loader's messages the one worth telling is the first, or that of a
 * file which is there and lacks another. */
static void *open_library(const char *file, char *why, size_t why_size) {
    static const char *const folders[] = {MDM_CUDA_LIBRARY_FOLDER, "/usr/local/cuda/lib64"};
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library) return library;
    snprintf(why, why_size, "%s", dlerror());
    for (size_t i = 0; !library && i < sizeof folders / sizeof *folders; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folders[i], file);
        if (access(path, F_OK) != 0) continue;
        library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!library) snprintf(why, why_size, "%s", dlerror());
    }
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

static mdm_status open_or_fail(const char *name, int major, const char *file, void **library) {
    char why[512];
    *library = open_library(file, why, sizeof why);
    if (*library) return MDM_OK;
    return mdm_fail(
        MDM_RESOURCE,
        "%s %d is not found (%s); install it or name its folder in LD_LIBRARY_PATH (Python packages "
        "have it in site-packages/nvidia/*/lib)",
        name, major, why);
}

#define STRING_OF(number)    #number
#define FILE_OF(stem, major) stem ".so." STRING_OF(major)
#define FIND(name)           MDM_TRY(find(library, file, #name, &table.name));

/* The tables hold functions of libraries that stay open for the process. */

mdm_status mdm_cudnn_load(const mdm_cudnn **cudnn) {
    static mdm_cudnn table;
    static int loaded;
    static const char file[] = FILE_OF("libcudnn", CUDNN_MAJOR);
    void *library;
    *cudnn = &table;
    if (loaded) return MDM_OK;
    MDM_TRY(open_or_fail("cuDNN", CUDNN_MAJOR, file, &library));
    MDM_CUDNN_FUNCTIONS(FIND)
    loaded = 1;
    return MDM_OK;
}

mdm_status mdm_cublaslt_load(const mdm_cublaslt **cublaslt) {
    static mdm_cublaslt table;
    static int loaded;
    static const char file[] = FILE_OF("libcublasLt", CUBLAS_VER_MAJOR);
    void *library;
    *cublaslt = &table;
    if (loaded) return MDM_OK;
    MDM_TRY(open_or_fail("cuBLASLt", CUBLAS_VER_MAJOR, file, &library));
    MDM_CUBLASLT_FUNCTIONS(FIND)
    loaded = 1;
    return MDM_OK;
}

#ifdef MDM_HAS_NCCL
mdm_status mdm_nccl_load(const mdm_nccl_table **nccl) {
    static mdm_nccl_table table;
    static int loaded;
    static const char file[] = FILE_OF("libnccl", NCCL_MAJOR);
    void *library;
    *nccl = &table;
    if (loaded) return MDM_OK;
    MDM_TRY(open_or_fail("NCCL", NCCL_MAJOR, file, &library));
    MDM_NCCL_FUNCTIONS(FIND)
    loaded = 1;
    return MDM_OK;
}
#endif

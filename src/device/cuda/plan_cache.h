/* Which of cuDNN's engines were found fastest, kept between runs, so that only the first start on a kind of
 * device measures. A file per kind of device and version of cuDNN:
 *
 *     magic, version, number of entries, the device in words; entries: shape, engine, knobs; checksum
 *
 * The file is a help and no input: whatever is wrong with it, it counts as empty and is written anew, and
 * what it says is built only where cuDNN still accepts it. Any number of ranks and programs may use it at
 * once; it is replaced as a whole, and what others added in the meantime is kept.
 */
#ifndef MDM_DEVICE_CUDA_PLAN_CACHE_H
#define MDM_DEVICE_CUDA_PLAN_CACHE_H

#include "gpu.h"

enum { MDM_MOST_KNOBS = 16 };

typedef struct mdm_plan_knob {
    int64_t type, value; /* as cuDNN counts them */
} mdm_plan_knob;

typedef struct mdm_plan_choice {
    int64_t engine; /* cuDNN's number of it for this shape */
    int32_t knob_count;
    float milliseconds; /* as measured; 0: there was no choice */
    mdm_plan_knob knobs[MDM_MOST_KNOBS];
} mdm_plan_choice;

typedef struct mdm_plan_cache mdm_plan_cache;

/* Reads the file of `machine`, which names all that a choice depends on beside the shape, in `folder`; "" is
 * no folder: choices are then kept for this process only. The caller closes it. */
MDM_MUST_CHECK mdm_status mdm_plan_cache_open(const char *folder, const char *machine,
                                              mdm_plan_cache **cache);
void mdm_plan_cache_close(mdm_plan_cache *cache);
/* 1 when there is a choice for this shape. */
int mdm_plan_cache_find(const mdm_plan_cache *cache, const mdm_gpu_convolution *shape,
                        mdm_plan_choice *choice);
/* Adds or replaces. Without memory for it nothing is kept. */
void mdm_plan_cache_put(mdm_plan_cache *cache, const mdm_gpu_convolution *shape,
                        const mdm_plan_choice *choice);
/* For one that does not run: a later start chooses anew, once this is saved. 0 when there was none. */
int mdm_plan_cache_forget(mdm_plan_cache *cache, const mdm_gpu_convolution *shape);
/* Writes the file if there is anything new. Where it cannot be written, that is said once (MDM_DEBUG=1) and
 * not tried again. */
void mdm_plan_cache_save(mdm_plan_cache *cache);

/* $MDM_CACHE_FOLDER, where that is set (empty: none), else $XDG_CACHE_HOME/mdm-dist, else
 * ~/.cache/mdm-dist; "" where none of them says. */
void mdm_plan_cache_folder(char *folder, size_t size);

#endif

/* Weights files of networks: safetensors under PyTorch's names, written with all that is needed to use them
 * again, and read from this program, from the reference, from contrastive pretraining and from torchvision.
 * Rank 0 only.
 */
#ifndef MDM_TRAIN_WEIGHTS_H
#define MDM_TRAIN_WEIGHTS_H

#include "mdm/base/text.h"
#include "mdm/model/network.h"

/* What a weights file of this program tells about itself in __metadata__. */
typedef struct mdm_model_notes {
    mdm_network_spec spec; /* architecture, sizes of the pictures, classes */
    float mean[3], std[3]; /* of pixel / 255, per channel: pictures were normalised with them */
    char **class_names;    /* [spec.classes] or NULL */
} mdm_model_notes;

/* Reads the notes of `path`. MDM_INPUT when the file was not written by mdm_weights_write. The caller calls
 * mdm_model_notes_free, also after a failure. */
MDM_MUST_CHECK mdm_status mdm_model_notes_read(const char *path, mdm_model_notes *notes);
void mdm_model_notes_free(mdm_model_notes *notes);

/* Writes weights and running statistics under the layout's names. */
MDM_MUST_CHECK mdm_status mdm_weights_write(const mdm_network *network, const mdm_model_notes *notes,
                                            const char *path);
/* Reads a file that mdm_weights_write wrote: every tensor must be there, in its shape and finite
 * (MDM_INPUT). */
MDM_MUST_CHECK mdm_status mdm_weights_read(mdm_network *network, const char *path);

typedef struct mdm_weights_fit {
    int encoder_fitted, encoder_count; /* tensors, running statistics included */
    int fitted, count;                 /* of all, heads included */
    int statistics_missing;            /* running statistics of the encoder that the file did not give */
} mdm_weights_fit;

/* Takes what fits of any safetensors file and leaves the rest as it is. Names are compared without the
 * prefixes that wrappers add (module., model., backbone., encoder., encoder_q., ...), with shortcut and
 * downsample, fc, linear and classifier taken as one. Adds to `table` what fitted, what did not, and why.
 * MDM_INPUT when nothing of the encoder fits, or the file is unsound. */
MDM_MUST_CHECK mdm_status mdm_weights_fit_file(mdm_network *network, const char *path, mdm_text *table,
                                               mdm_weights_fit *fit);

/* Writes one network, or the mean prediction of two (in one file), as ONNX. Input `pictures` float
 * [batch,channels,H,W] of grey levels 0 to 255, normalised inside; outputs `probabilities` [batch,classes]
 * and `logits`, or for two networks `logits_a` and `logits_b`. The batch is dynamic. */
MDM_MUST_CHECK mdm_status mdm_onnx_export(const mdm_network *const *networks, int count,
                                          const mdm_model_notes *notes, const char *path);

#endif

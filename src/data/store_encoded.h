/* A file's encoded pictures by index, decoded by threads one step ahead of their use. */
#ifndef MDM_DATA_STORE_ENCODED_H
#define MDM_DATA_STORE_ENCODED_H

#include "dataset_encoded.h"

typedef struct mdm_decoder mdm_decoder;

/* Takes `encoded` over, also on failure; pictures of `bytes` bytes when decoded. Starts up to `threads`
 * threads. */
MDM_MUST_CHECK mdm_status mdm_decoder_open(mdm_encoded *encoded, int64_t bytes, int threads,
                                           mdm_decoder **decoder);
void mdm_decoder_close(mdm_decoder *decoder);
/* Lets the threads decode these pictures. An earlier announcement that was not fetched is dropped. */
MDM_MUST_CHECK mdm_status mdm_decoder_prefetch(mdm_decoder *decoder, const int64_t *index, int64_t count);
/* Pictures in order, valid until the next fetch; those not announced are decoded now. MDM_INPUT for a damaged
 * picture. */
MDM_MUST_CHECK mdm_status mdm_decoder_fetch(mdm_decoder *decoder, const int64_t *index, int64_t count,
                                            const uint8_t **pictures);

#endif

/* Out-of-distribution scores of new pictures: cosine distance to training embeddings kept in a file. */
#include "ood_reference.h"
#include "mdm/device/device.h"
#include "mdm/report/safetensors.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 128, MOST_K = 1000 };

void mdm_ood_normalise(float *embedding, int64_t rows, int width) {
    for (int64_t r = 0; r < rows; r++) {
        float *row = embedding + r * width;
        double square = 0;
        for (int i = 0; i < width; i++) square += (double)row[i] * row[i];
        float scale = square > 0 ? (float)(1.0 / sqrt(square)) : 0.0f;
        for (int i = 0; i < width; i++) row[i] *= scale;
    }
}

/* Mean distance to the k largest of `count` similarities, but `own`; nearest [k] is scratch. */
static float mean_distance(const float *similarity, int64_t count, int64_t own, int k, float *nearest) {
    int found = 0;
    for (int64_t i = 0; i < count; i++) {
        float s = similarity[i];
        int at = found;
        if (i == own || (found == k && s <= nearest[k - 1])) continue;
        if (found < k) found++;
        if (at == k) at = k - 1;
        for (; at > 0 && nearest[at - 1] < s; at--) nearest[at] = nearest[at - 1];
        nearest[at] = s;
    }
    double sum = 0;
    for (int i = 0; i < found; i++) sum += 1.0 - nearest[i];
    return found ? (float)(sum / found) : 0.0f;
}

mdm_status mdm_ood_scores(const float *reference, int64_t count, int width, int k, const float *query,
                          const int64_t *own, int64_t rows, float *score) {
    float *similarity;
    MDM_TRY(MDM_ALLOCATE(similarity, BLOCK * count + k, "out-of-distribution scores"));
    float *nearest = similarity + BLOCK * count;
    for (int64_t done = 0; done < rows; done += BLOCK) {
        int n = (int)(rows - done < BLOCK ? rows - done : BLOCK);
        mdm_product_nt(n, (int)count, width, query + done * width, reference, 0.0f, similarity);
        for (int i = 0; i < n; i++)
            score[done + i] =
                mean_distance(similarity + i * count, count, own ? own[done + i] : -1, k, nearest);
    }
    free(similarity);
    return MDM_OK;
}

mdm_status mdm_ood_write(const char *path, const mdm_ood_reference *r) {
    static const char *const names[2] = {"a.embedding", "b.embedding"};
    mdm_safetensors_entry entries[2];
    char k[16], division[32], thresholds[2][32];
    for (int n = 0; n < r->networks; n++) {
        entries[n] = (mdm_safetensors_entry){names[n], 2, {r->count[n], r->width}, r->embedding[n]};
        snprintf(thresholds[n], sizeof thresholds[n], "%.9g", r->threshold[n]);
    }
    snprintf(k, sizeof k, "%d", r->k);
    snprintf(division, sizeof division, "%016" PRIx64, r->first_division);
    const mdm_safetensors_note notes[] = {{"format", "pt"},
                                          {"k", k},
                                          {"first_division", division},
                                          {"a.threshold", thresholds[0]},
                                          {"b.threshold", thresholds[1]}};
    return mdm_safetensors_write(path, entries, r->networks, notes, 3 + r->networks);
}

static mdm_status read_network(const mdm_safetensors *file, int n, const char *path, mdm_ood_reference *r) {
    char name[32];
    int64_t shape[MDM_SAFETENSORS_MAX_RANK];
    snprintf(name, sizeof name, "%c.embedding", 'a' + n);
    int64_t index = mdm_safetensors_find(file, name);
    if (index < 0 || mdm_safetensors_shape(file, index, shape) != 2 || shape[1] != r->width || shape[0] < 1 ||
        shape[0] > MDM_OOD_MOST_REFERENCES)
        return mdm_fail(MDM_INPUT, "%s: the tensor %s is missing or does not fit the network", path, name);
    snprintf(name, sizeof name, "%c.threshold", 'a' + n);
    const char *threshold = mdm_safetensors_note_value(file, name);
    r->threshold[n] = threshold ? strtod(threshold, NULL) : 0;
    if (!(r->threshold[n] > 0) || !isfinite(r->threshold[n]))
        return mdm_fail(MDM_INPUT, "%s: the note %s is missing or not above 0", path, name);
    r->count[n] = shape[0];
    MDM_TRY(MDM_ALLOCATE(r->embedding[n], shape[0] * shape[1], "training embeddings"));
    return mdm_safetensors_read(file, index, shape[0] * shape[1], 1, r->embedding[n]);
}

mdm_status mdm_ood_read(const char *path, int networks, int width, mdm_ood_reference *r) {
    mdm_safetensors *file;
    mdm_status status = MDM_OK;
    *r = (mdm_ood_reference){.networks = networks, .width = width};
    MDM_TRY(mdm_safetensors_open(path, &file));
    const char *k = mdm_safetensors_note_value(file, "k");
    long neighbours = k ? strtol(k, NULL, 10) : 0;
    if (neighbours < 1 || neighbours > MOST_K)
        status = mdm_fail(MDM_INPUT, "%s: the note k is missing or not between 1 and %d", path, MOST_K);
    r->k = (int)neighbours;
    const char *division = mdm_safetensors_note_value(file, "first_division");
    r->first_division = division ? strtoull(division, NULL, 16) : 0;
    for (int n = 0; status == MDM_OK && n < networks; n++) status = read_network(file, n, path, r);
    mdm_safetensors_close(file);
    return status;
}

void mdm_ood_free(mdm_ood_reference *r) {
    for (int n = 0; n < 2; n++) {
        free(r->embedding[n]);
        r->embedding[n] = NULL;
    }
}

/* From a run folder and pictures to class probabilities and out-of-distribution scores. */
#include "mdm/train/predictor.h"
#include "mdm/device/losses_host.h"
#include "mdm/model/executor.h"
#include "mdm/report/run_folder.h"
#include "mdm/train/run.h"
#include "ood_reference.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROWS = 128, MOST_NETWORKS = 2 };

struct mdm_predictor {
    mdm_model_notes notes;
    mdm_device *device;
    mdm_layout *layout;
    mdm_executor *executor;
    mdm_network *networks[MOST_NETWORKS];
    mdm_network *ood_networks[MOST_NETWORKS]; /* of the first division, or NULL: the same */
    int network_count, knows_ood;
    mdm_ood_reference ood;
    float *images, *embedding, *one, *score; /* [ROWS, ...] */
};

static mdm_status load_network(mdm_predictor *p, const char *path, int number) {
    if (number == 0) {
        MDM_TRY(mdm_model_notes_read(path, &p->notes));
        MDM_TRY(mdm_layout_create(&p->notes.spec, &p->layout));
    }
    MDM_TRY(mdm_network_create(p->layout, 0, number, &p->networks[number]));
    p->network_count = number + 1;
    return mdm_weights_read(p->networks[number], path);
}

static mdm_status load_networks(mdm_predictor *p, const char *run) {
    static const mdm_run_member members[MOST_NETWORKS] = {MDM_RUN_MODEL_A, MDM_RUN_MODEL_B};
    mdm_status status = MDM_OK;
    if (access(run, F_OK) != 0) return mdm_fail(MDM_INPUT, "there is no run folder %s", run);
    for (int n = 0; status == MDM_OK && n < MOST_NETWORKS; n++) {
        char *path = mdm_run_folder_member(run, members[n]);
        if (!path) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
        if (access(path, F_OK) == 0)
            status = load_network(p, path, n);
        else if (n == 0)
            status = mdm_fail(MDM_INPUT,
                              "%s has no model-a.safetensors: it is not a run folder, or the run "
                              "has not ended yet",
                              run);
        free(path);
    }
    return status;
}

static mdm_status load_ood_networks(mdm_predictor *p, const char *run) {
    static const mdm_run_member members[MOST_NETWORKS] = {MDM_RUN_OOD_A, MDM_RUN_OOD_B};
    for (int n = 0; n < p->network_count; n++) {
        char *path = mdm_run_folder_member(run, members[n]);
        mdm_status status = path ? mdm_network_create(p->layout, 0, n, &p->ood_networks[n])
                                 : mdm_fail(MDM_RESOURCE, "out of memory for a path");
        if (status == MDM_OK) status = mdm_weights_read(p->ood_networks[n], path);
        free(path);
        MDM_TRY(status);
    }
    return MDM_OK;
}

static mdm_status load_ood(mdm_predictor *p, const char *run) {
    char *path = mdm_run_folder_member(run, MDM_RUN_OOD_REFERENCE);
    mdm_status status = MDM_OK;
    if (!path) return mdm_fail(MDM_RESOURCE, "out of memory for a path");
    p->knows_ood = access(path, F_OK) == 0;
    if (p->knows_ood) status = mdm_ood_read(path, p->network_count, p->layout->embedding, &p->ood);
    free(path);
    return status == MDM_OK && p->ood.first_division ? load_ood_networks(p, run) : status;
}

static mdm_status make_room(mdm_predictor *p, mdm_comm *comm, int threads) {
    const mdm_network_spec *s = &p->notes.spec;
    MDM_TRY(mdm_device_create_cpu(threads, 1, &p->device));
    MDM_TRY(mdm_executor_create(p->device, comm, p->layout, MDM_FP32, MDM_BATCHNORM_SYNC, &p->executor));
    MDM_TRY(mdm_executor_plan(p->executor, ROWS, 1));
    MDM_TRY(MDM_ALLOCATE(p->images, (int64_t)ROWS * s->channels * s->height * s->width, "pictures"));
    MDM_TRY(MDM_ALLOCATE(p->embedding, ROWS * p->layout->embedding, "embeddings"));
    MDM_TRY(MDM_ALLOCATE(p->one, ROWS * s->classes, "predictions"));
    return MDM_ALLOCATE(p->score, ROWS, "scores");
}

mdm_status mdm_predictor_open(mdm_comm *comm, const char *run, mdm_predictor **predictor) {
    mdm_predictor *p;
    int threads;
    char text[256];
    *predictor = NULL;
    MDM_TRY(mdm_choose_threads(comm, 0, &threads, text, sizeof text));
    mdm_status status = MDM_ALLOCATE(p, 1, "the predictor");
    if (status == MDM_OK) status = load_networks(p, run);
    if (status == MDM_OK) status = load_ood(p, run);
    if (status == MDM_OK) status = make_room(p, comm, threads);
    status = mdm_comm_agree(comm, status);
    if (status == MDM_OK)
        *predictor = p;
    else
        mdm_predictor_close(p);
    return status;
}

void mdm_predictor_close(mdm_predictor *p) {
    if (!p) return;
    mdm_executor_destroy(p->executor);
    for (int n = 0; n < MOST_NETWORKS; n++) {
        mdm_network_destroy(p->networks[n]);
        mdm_network_destroy(p->ood_networks[n]);
    }
    mdm_layout_destroy(p->layout);
    mdm_device_destroy(p->device);
    mdm_ood_free(&p->ood);
    mdm_model_notes_free(&p->notes);
    free(p->images);
    free(p->embedding);
    free(p->one);
    free(p->score);
    free(p);
}

const mdm_model_notes *mdm_predictor_notes(const mdm_predictor *p) {
    return &p->notes;
}

int mdm_predictor_networks(const mdm_predictor *p) {
    return p->network_count;
}

const mdm_network *mdm_predictor_network(const mdm_predictor *p, int number) {
    return p->networks[number];
}

int mdm_predictor_knows_ood(const mdm_predictor *p) {
    return p->knows_ood;
}

/* uint8 [H,W,C] to normalised float [C,H,W]. */
static void normalise(const mdm_model_notes *notes, const uint8_t *picture, float *image) {
    int channels = notes->spec.channels, pixels = notes->spec.height * notes->spec.width;
    for (int c = 0; c < channels; c++)
        for (int i = 0; i < pixels; i++)
            image[c * pixels + i] =
                ((float)picture[i * channels + c] / 255.0f - notes->mean[c]) / notes->std[c];
}

static mdm_status ask_network(mdm_predictor *p, int network, int64_t rows, float *probability, float *ood) {
    int classes = p->notes.spec.classes, width = p->layout->embedding;
    float share = 1.0f / (float)p->network_count;
    mdm_outputs out;
    MDM_TRY(
        mdm_executor_forward(p->executor, p->networks[network], ROWS, p->images, MDM_PASS_EVALUATE, &out));
    mdm_softmax(out.logits, rows, classes, p->one);
    for (int64_t i = 0; i < rows * classes; i++) probability[i] += share * p->one[i];
    if (!ood) return MDM_OK;
    if (p->ood_networks[network])
        MDM_TRY(mdm_executor_forward(p->executor, p->ood_networks[network], ROWS, p->images,
                                     MDM_PASS_EVALUATE, &out));
    memcpy(p->embedding, out.embedding, sizeof(float) * (size_t)(rows * width));
    mdm_ood_normalise(p->embedding, rows, width);
    MDM_TRY(mdm_ood_scores(p->ood.embedding[network], p->ood.count[network], width, p->ood.k, p->embedding,
                           NULL, rows, p->score));
    for (int64_t i = 0; i < rows; i++) ood[i] += share * p->score[i] / (float)p->ood.threshold[network];
    return MDM_OK;
}

mdm_status mdm_predictor_run(mdm_predictor *p, const uint8_t *const *pictures, int64_t count,
                             float *probability, float *ood) {
    int classes = p->notes.spec.classes;
    int64_t image = (int64_t)p->notes.spec.channels * p->notes.spec.height * p->notes.spec.width;
    memset(probability, 0, sizeof(float) * (size_t)(count * classes));
    for (int64_t i = 0; ood && i < count; i++) ood[i] = p->knows_ood ? 0.0f : NAN;
    for (int64_t done = 0; done < count; done += ROWS) {
        int64_t rows = count - done < ROWS ? count - done : ROWS;
        for (int64_t i = 0; i < rows; i++) normalise(&p->notes, pictures[done + i], p->images + i * image);
        for (int n = 0; n < p->network_count; n++)
            MDM_TRY(ask_network(p, n, rows, probability + done * classes,
                                ood && p->knows_ood ? ood + done : NULL));
        for (int64_t i = 0; i < rows * classes; i++)
            if (!isfinite(probability[done * classes + i]))
                return mdm_fail(MDM_NUMERIC,
                                "picture %lld gets no finite numbers: the networks diverged in "
                                "training, or the picture is very unlike those they learnt from",
                                (long long)(done + i / classes));
    }
    return MDM_OK;
}

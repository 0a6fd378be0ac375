/* Spikes: steps whose gradient or loss is finite, but out of all proportion to the steps before. One of them
 * can undo hours of training. The rule looks at this network's latest steps of the same stage only, takes
 * numbers that are the same bits on every rank, and is part of the checkpoint, so that a resumed run decides
 * as one that was not stopped. */
#include "mdm/base/log.h"
#include "trainer.h"
#include <math.h>
#include <stdio.h>

enum { SEEN_BEFORE = 64, TIMES = 10, ONE_IN = 100 };

static double largest(const double *values, int64_t count) {
    double most = 0;
    for (int64_t i = 0; i < count; i++)
        if (values[i] > most) most = values[i];
    return most;
}

/* The window of this stage and network, empty when the stage has changed. */
static mdm_spike_window *window_of(mdm_trainer *t) {
    int64_t epoch;
    double stage = (double)mdm_stage_of(t, t->place.position, &epoch);
    mdm_spike_window *w = &t->spikes.window[t->place.network];
    if (w->stage != stage) {
        w->stage = stage;
        w->count = 0;
    }
    return w;
}

/* At most one in a hundred of a pass's steps, but one in any case. */
static int may_skip(mdm_trainer *t) {
    double pass = (double)(t->place.position * MDM_MOST_NETWORKS + t->place.network);
    if (t->spikes.pass != pass) {
        t->spikes.pass = pass;
        t->spikes.in_pass = 0;
    }
    return t->spikes.in_pass < (double)((t->steps + ONE_IN - 1) / ONE_IN);
}

static int64_t steps_seen(const mdm_spike_window *w) {
    int64_t steps = (int64_t)w->count;
    return steps < MDM_SPIKE_WINDOW ? steps : MDM_SPIKE_WINDOW;
}

void mdm_spike_limits(mdm_trainer *t, double *square_limit, double *loss_limit) {
    const mdm_spike_window *w = window_of(t);
    int64_t seen = steps_seen(w);
    double square_before = largest(w->square, seen), loss_before = largest(w->loss, seen);
    int is_judged = seen >= SEEN_BEFORE && may_skip(t);
    *square_limit = is_judged && square_before > 0 ? TIMES * TIMES * square_before : INFINITY;
    *loss_limit = is_judged && loss_before > 0 ? TIMES * loss_before : INFINITY;
}

void mdm_spike_count(mdm_trainer *t, double square, char *text, size_t size) {
    double square_limit, loss_limit;
    mdm_spike_limits(t, &square_limit, &loss_limit);
    t->spikes.in_pass++;
    t->spikes.total++;
    snprintf(text, size, "the %s is more than %d times the largest of the %lld steps before",
             square > square_limit ? "gradient" : "loss", TIMES, (long long)steps_seen(window_of(t)));
}

void mdm_spike_remember(mdm_trainer *t, double square, double loss) {
    mdm_spike_window *w = window_of(t);
    int64_t place = (int64_t)w->count % MDM_SPIKE_WINDOW;
    w->square[place] = square;
    w->loss[place] = loss;
    w->count++;
}

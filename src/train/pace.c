/* Whether one rank keeps the others waiting: a throttled processor, a busy node, a slow disk. Nothing fails
 * there, but every step takes as long as the slowest rank's. */
#include "mdm/base/log.h"
#include "trainer.h"
#include <stdlib.h>
#include <string.h>

/* What a rank tells of its part of an epoch: seconds in all, of its own (not waiting for other ranks), and of
 * these until its pictures were read, and for making views of them. */
typedef struct account {
    double seconds, own, reading, views;
    char host[64];
} account;

/* Told from here on: a smaller share of the median rank's speed, and at least so many seconds lost. */
static const double slow = 0.75, seconds_lost = 2;

void mdm_pace_begin(mdm_trainer *t) {
    t->pace.start = mdm_seconds();
    t->pace.waited_before = mdm_comm_waited(t->comm);
    t->pace.reading = t->pace.views = 0;
}

static account account_of(const mdm_trainer *t) {
    account mine;
    memset(&mine, 0, sizeof mine);
    mine.reading = t->pace.reading;
    mine.views = t->pace.views;
    mine.seconds = mdm_seconds() - t->pace.start;
    mine.own = mine.seconds - (mdm_comm_waited(t->comm) - t->pace.waited_before);
    /* The host cannot tell a device's work from its waiting for other devices: there reading alone counts. */
    if (mdm_group_is_queued(mdm_executor_group(t->executor))) mine.own = mine.reading;
    strncpy(mine.host, mdm_comm_host(t->comm), sizeof mine.host - 1);
    return mine;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The lower median of a member of all accounts. `sorted` [ranks] is scratch memory. */
static double median_of(const account *all, int ranks, size_t member, double *sorted) {
    for (int r = 0; r < ranks; r++) memcpy(&sorted[r], (const char *)&all[r] + member, sizeof *sorted);
    qsort(sorted, (size_t)ranks, sizeof *sorted, ascending);
    return sorted[(ranks - 1) / 2];
}

static void judge(mdm_trainer *t, const account *all, int ranks, double *sorted) {
    int worst = 0;
    for (int r = 1; r < ranks; r++)
        if (all[r].own > all[worst].own) worst = r;
    const account *w = &all[worst];
    double lost = w->own - median_of(all, ranks, offsetof(account, own), sorted),
           by_reading = w->reading - median_of(all, ranks, offsetof(account, reading), sorted),
           by_views = w->views - median_of(all, ranks, offsetof(account, views), sorted);
    t->pace.slowest = worst;
    t->pace.speed = w->seconds > 0 && lost > 0 ? 1 - lost / w->seconds : 1;
    if (t->pace.speed < 0) t->pace.speed = 0;
    if (t->pace.speed > slow || lost < seconds_lost || t->pace.told == worst + 1) return;
    t->pace.told = worst + 1;
    mdm_warn("rank %d on %s works at %.2f of the speed of the median rank (%s), and all wait for it; is its "
             "node busy, throttled, or its storage slow?",
             worst, w->host, t->pace.speed,
             by_reading > lost / 2 ? "reading pictures"
             : by_views > lost / 2 ? "augmentation"
                                   : "computing");
}

mdm_status mdm_pace_compare(mdm_trainer *t) {
    int ranks = mdm_comm_size(t->comm);
    account mine = account_of(t), *all = NULL;
    double *sorted = NULL;
    if (ranks == 1) return MDM_OK;
    mdm_status status = MDM_ALLOCATE(all, ranks, "the ranks' speeds");
    if (status == MDM_OK) status = MDM_ALLOCATE(sorted, ranks, "the ranks' speeds");
    status = mdm_comm_agree(t->comm, status);
    if (status == MDM_OK) status = mdm_comm_all_gather(t->comm, &mine, sizeof mine, all, NULL, MDM_BYTE);
    if (status == MDM_OK) judge(t, all, ranks, sorted);
    free(all);
    free(sorted);
    return status;
}

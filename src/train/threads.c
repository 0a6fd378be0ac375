/* How many threads each rank gets: the cores it may use, shared with the ranks that may use the same ones. */
#include "mdm/base/log.h"
#include "mdm/train/run.h"
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct rank_mask {
    cpu_set_t cores;
    char host[64];
} rank_mask;

/* "0-3,8" */
static void print_mask(const cpu_set_t *cores, char *text, size_t size) {
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < CPU_SETSIZE && used + 16 < size; i++) {
        if (!CPU_ISSET(i, cores)) continue;
        int end = i;
        while (end + 1 < CPU_SETSIZE && CPU_ISSET(end + 1, cores)) end++;
        used +=
            (size_t)snprintf(text + used, size - used, end > i ? "%s%d-%d" : "%s%d", used ? "," : "", i, end);
        i = end;
    }
}

mdm_status mdm_choose_threads(mdm_comm *comm, int configured, int *threads, char *text, int size) {
    int ranks = mdm_comm_size(comm), sharing = 0;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    rank_mask mine, *all;
    int64_t *counts;
    char cores[128];
    memset(&mine, 0, sizeof mine);
    if (sched_getaffinity(0, sizeof mine.cores, &mine.cores) != 0)
        for (int i = 0; i < online && i < CPU_SETSIZE; i++) CPU_SET(i, &mine.cores);
    snprintf(mine.host, sizeof mine.host, "%s", mdm_comm_host(comm));
    MDM_TRY(MDM_ALLOCATE(all, ranks, "the ranks' cores"));
    MDM_TRY(MDM_ALLOCATE(counts, ranks, "the ranks' cores"));
    for (int r = 0; r < ranks; r++) counts[r] = sizeof mine;
    mdm_status status = mdm_comm_all_gather(comm, &mine, sizeof mine, all, counts, MDM_BYTE);
    for (int r = 0; status == MDM_OK && r < ranks; r++)
        sharing += strcmp(all[r].host, mine.host) == 0 && CPU_EQUAL(&all[r].cores, &mine.cores);
    free(all);
    free(counts);
    MDM_TRY(status);
    int available = CPU_COUNT(&mine.cores);
    char shared[40] = "";
    if (sharing > 1) snprintf(shared, sizeof shared, ", shared by %d ranks", sharing);
    print_mask(&mine.cores, cores, sizeof cores);
    *threads = configured > 0 ? configured : available / sharing > 0 ? available / sharing : 1;
    snprintf(text, (size_t)size, "%d rank%s, %d thread%s each (rank 0 on %s: core%s %s%s)%s", ranks,
             ranks > 1 ? "s" : "", *threads, *threads > 1 ? "s" : "", mine.host, available > 1 ? "s" : "",
             cores, shared, configured > 0 ? ", as run.threads says" : "");
    if (configured <= 0 && available == 1 && online > 1 && (long)mdm_comm_node_size(comm) < online)
        mdm_warn(
            "each rank is bound to one core though the node has %ld; start with mpirun --bind-to none, or "
            "--map-by slot:PE=n for n cores a rank",
            online);
    if (sharing > available)
        mdm_warn("%d ranks share %d core%s on %s; fewer ranks would be as fast", sharing, available,
                 available > 1 ? "s" : "", mine.host);
    return MDM_OK;
}

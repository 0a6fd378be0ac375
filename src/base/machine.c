/* From the control groups, the resource limits and the machine to the memory that a process may use. */
#include "mdm/base/machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* The number in a file, negative when there is none ("max" is none). */
static double read_limit(const char *path) {
    char text[64] = "", *end;
    FILE *file = fopen(path, "r");
    if (!file) return -1;
    if (!fgets(text, sizeof text, file)) text[0] = 0;
    fclose(file);
    double value = strtod(text, &end);
    return end == text ? -1 : value;
}

static void take_smaller(double value, const char *name, double *least, char *source, size_t size) {
    /* cgroup v1 writes the largest number there is for no limit */
    if (value <= 0 || value > 9e18 || (*least >= 0 && value >= *least)) return;
    *least = value;
    snprintf(source, size, "%s", name);
}

/* The limit of a group and of all groups above it, which bound it as well. */
static void walk_up(const char *base, const char *group, const char *file, double *least, char *source,
                    size_t size) {
    char at[4096], path[8400];
    snprintf(at, sizeof at, "%s", group);
    for (;;) {
        snprintf(path, sizeof path, "%s%s/%s", base, strcmp(at, "/") == 0 ? "" : at, file);
        take_smaller(read_limit(path), path, least, source, size);
        char *slash = strrchr(at, '/');
        if (!slash || at[0] == 0) return;
        *slash = 0;
    }
}

double mdm_memory_limit_of(const char *root, const char *groups, double machine, char *source, size_t size) {
    double least = -1;
    char line[4200], base[4096];
    struct rlimit space;
    if (size > 0) source[0] = 0;
    take_smaller(machine, "the memory of the machine", &least, source, size);
    if (getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY)
        take_smaller((double)space.rlim_cur, "the address space limit (ulimit -v)", &least, source, size);
    FILE *file = fopen(groups, "r");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *controllers++ = 0;
        *group++ = 0;
        if (strcmp(line, "0") == 0 && !*controllers) {
            walk_up(root, group, "memory.max", &least, source, size);
        } else if (strcmp(controllers, "memory") == 0) {
            snprintf(base, sizeof base, "%s/memory", root);
            walk_up(base, group, "memory.limit_in_bytes", &least, source, size);
        }
    }
    if (file) fclose(file);
    return least;
}

double mdm_memory_limit(char *source, size_t size) {
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    double machine = pages > 0 && page > 0 ? (double)pages * (double)page : -1;
    return mdm_memory_limit_of("/sys/fs/cgroup", "/proc/self/cgroup", machine, source, size);
}

static long long read_kills(const char *path) {
    char line[128];
    long long kills = 0;
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "oom_kill ", 9) == 0) kills = strtoll(line + 9, NULL, 10);
    if (file) fclose(file);
    return kills;
}

long long mdm_memory_kills(void) {
    char line[4200], path[4300];
    long long kills = 0;
    FILE *file = fopen("/proc/self/cgroup", "r");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        char *group = strstr(line, ":memory:");
        if (group) {
            snprintf(path, sizeof path, "/sys/fs/cgroup/memory%s/memory.oom_control", group + 8);
            kills += read_kills(path);
        } else if (strncmp(line, "0::", 3) == 0) {
            snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.events", line + 3);
            kills += read_kills(path);
        }
    }
    if (file) fclose(file);
    return kills;
}

double mdm_watch_factor(void) {
    const char *text = getenv("MDM_WATCH_FACTOR");
    char *end;
    if (!text || !*text) return 1;
    double factor = strtod(text, &end);
    return *end == 0 && factor > 0 && factor <= 1e6 ? factor : -1;
}

mdm_status mdm_check_environment(void) {
    static const struct {
        const char *name, *values[2];
    } switches[] = {{"MDM_DEBUG", {"1", "0"}}, {"MDM_UNSUPERVISED", {"1", "0"}}, {"MDM_NCCL", {"off", "on"}}};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        const char *text = getenv(switches[i].name), *const *values = switches[i].values;
        if (text && *text && strcmp(text, values[0]) != 0 && strcmp(text, values[1]) != 0)
            return mdm_fail(MDM_USAGE, "the environment variable %s is '%.60s'; allowed are %s and %s",
                            switches[i].name, text, values[0], values[1]);
    }
    if (mdm_watch_factor() > 0) return MDM_OK;
    return mdm_fail(
        MDM_USAGE,
        "the environment variable MDM_WATCH_FACTOR is '%.60s'; allowed is a number above 0, up to 1000000",
        getenv("MDM_WATCH_FACTOR"));
}

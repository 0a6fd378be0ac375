/* From a worker that may die, stop, loop or wait for ever to one line, the right exit code and nobody left.
 *
 * It calls no library but libc, and allocates nothing while the worker runs. Signals arrive by sigtimedwait,
 * so nothing here runs inside a handler. The worker has a process group of its own: what the terminal or the
 * launcher sends to the group reaches it once, through here. */
#include "supervisor.h"
#include "flight.h"
#include "mdm/base/machine.h"
#include "mdm/base/watch.h"
#include "mdm/comm/comm.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CODE_VICTIM = 1, CODE_LIBRARY = 1, CODE_RESOURCE = 4, CODE_LOST = 6, CODE_STOPPED = 75 };
static const int64_t tick = 100000000, second = 1000000000;
static const double longest_stop = 30e9; /* ns, where the stage's limit is longer */

typedef struct supervisor {
    mdm_watch_page *page;
    pid_t worker, parent;
    int under_launcher;
    int64_t last_tick, excuse; /* ns that this process itself could not run since the last progress */
    int64_t excused_progress;  /* the note that the excuse belongs to */
    int64_t pulse, pulse_at;   /* the worker's latest, and when it was first seen */
    int64_t asleep_at;         /* when the worker was last seen to wait for storage */
    int64_t stopped_at;        /* when the worker was first seen stopped, 0: it is not */
    int64_t record_at;         /* when the record was written, 0: not yet */
    int64_t term_at;           /* when the launcher first sent TERM, 0: not yet */
    sigset_t passed_on;        /* signals that were sent on to the worker */
    long long out_of_memory;   /* kills of this process's memory group before the start */
    char host[64];
} supervisor;

static int known_rank(const supervisor *s) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"};
    int rank = atomic_load(&s->page->rank);
    for (size_t i = 0; rank < 0 && i < sizeof names / sizeof *names; i++) {
        const char *text = getenv(names[i]);
        if (text && *text >= '0' && *text <= '9') rank = atoi(text);
    }
    return rank < 0 ? 0 : rank;
}

/* R, S, D, T, Z as in /proc/PID/stat; '?' when unknown. */
static char state_of(pid_t process) {
    char path[64], text[512];
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)process);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    if (length <= 0) return '?';
    text[length] = 0;
    char *name_end = strrchr(text, ')');
    return name_end && name_end[1] == ' ' && name_end[2] ? name_end[2] : '?';
}

/* "semi epoch 4, network a, step 12; last collective: all-reduce 88": epochs as the log counts them. */
static void describe_place(const supervisor *s, char *text, size_t size) {
    mdm_watch_page *p = s->page;
    int used = snprintf(text, size, "%s", atomic_load(&p->stage));
    int64_t epoch = p->epoch, network = p->network, step = p->step, count = p->collectives;
    if (epoch >= 0) used += snprintf(text + used, size - (size_t)used, " epoch %lld", (long long)epoch + 1);
    if (network >= 0) used += snprintf(text + used, size - (size_t)used, ", network %c", 'a' + (char)network);
    if (step >= 0) used += snprintf(text + used, size - (size_t)used, ", step %lld", (long long)step);
    if (count > 0) {
        const mdm_watch_entry *entry = &p->ring[(count - 1) % MDM_WATCH_RING];
        snprintf(text + used, size - (size_t)used, "; last collective %s %lld, %s",
                 atomic_load(&entry->operation), (long long)entry->number,
                 entry->left ? "left" : "waiting in it");
    }
}

/* The one line, unless another rank's supervisor has spoken already. */
static void speak(const supervisor *s, const char *what) {
    char line[1024];
    int length = snprintf(line, sizeof line - 1,
                          "error: rank %d on %s: %s. Start the run again to go on from its last checkpoint",
                          known_rank(s), s->host, what);
    if (length >= (int)sizeof line - 1) length = (int)sizeof line - 2;
    if (!mdm_watch_claim(s->page, line)) return;
    line[length] = '\n';
    if (write(STDERR_FILENO, line, (size_t)length + 1) < 0) return;
}

static void record(supervisor *s, const char *why) {
    if (s->record_at) return;
    s->record_at = mdm_watch_now();
    mdm_flight_record(s->page, known_rank(s), s->host, state_of(s->worker), why);
}

static _Noreturn void end_worker(const supervisor *s, int code) {
    int status;
    kill(s->worker, SIGKILL);
    while (waitpid(s->worker, &status, 0) < 0 && errno == EINTR) {
    }
    _exit(code);
}

static _Noreturn void worker_died(supervisor *s, int number) {
    char place[256], what[512];
    int memory = number == SIGKILL && mdm_memory_kills() > s->out_of_memory;
    if (atomic_load(&s->page->told)) _exit(atomic_load(&s->page->told));
    /* before the run answers signals they just end the worker: there is no state to save yet */
    if (sigismember(&s->passed_on, number) == 1) {
        static const char told[] =
            "error: stopped by a signal before there was anything to save; start again\n";
        if (!s->under_launcher && write(STDERR_FILENO, told, sizeof told - 1) < 0) _exit(CODE_STOPPED);
        _exit(CODE_STOPPED);
    }
    describe_place(s, place, sizeof place);
    snprintf(what, sizeof what, "the worker was killed by signal %d (%s)%s in %s", number, strsignal(number),
             memory ? ", because the memory limit was hit," : "", place);
    record(s, what);
    speak(s, what);
    _exit(memory ? CODE_RESOURCE : CODE_LOST);
}

/* Before there is a run folder the supervisors of a node agree by a name that only one of them can take, and
 * that goes with its process: of ranks that fail alike one speaks. */
static int first_of_node(const supervisor *s) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (!s->under_launcher) return 1;
    int length =
        snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "mdm-dist-%ld-has-told", (long)s->parent);
    int place = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return place < 0 || bind(place, (const struct sockaddr *)&name,
                             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length)) == 0;
}

/* One that has spoken stays while others may still want to. */
static _Noreturn void leave_after_speaking(int code) {
    const struct timespec others = {.tv_sec = 1};
    (void)nanosleep(&others, NULL);
    _exit(code);
}

/* The program itself never ends with 1: Open MPI does where it cannot start, after a page of its own words.
 */
static _Noreturn void library_gave_up(supervisor *s) {
    char place[256], what[512];
    int starts = atomic_load(&s->page->ranks) < 0, code = starts ? CODE_RESOURCE : CODE_LOST;
    if (starts && !first_of_node(s)) _exit(code);
    describe_place(s, place, sizeof place);
    if (starts)
        snprintf(what, sizeof what,
                 "the MPI library cannot start, as it tells above; mdm-dist doctor looks for the cause");
    else
        snprintf(what, sizeof what, "the MPI library ended the worker, as it tells above, in %s", place);
    record(s, what);
    speak(s, what);
    leave_after_speaking(code);
}

/* Nothing, or the end, when the worker has left. */
static void reap(supervisor *s) {
    int status;
    pid_t ended = waitpid(s->worker, &status, WNOHANG);
    if (ended != s->worker) return;
    if (WIFSIGNALED(status)) worker_died(s, WTERMSIG(status));
    int code = WEXITSTATUS(status);
    if (code == CODE_LIBRARY && !atomic_load(&s->page->told)) library_gave_up(s);
    if (code != 0 && code != 2 && code != 75 && code != 130) record(s, "the worker ended with an error");
    _exit(code);
}

/* TERM from a launcher may mean that a rank is gone without a word, its supervisor too. The worker waits for
 * it to agree on the stop, and the launcher for the worker, under Slurm for half a minute. */
static void judge_after_term(supervisor *s, int64_t pause) {
    int64_t seen = 2 * s->page->longest, most = seen > 4 * second ? seen : 4 * second;
    if (!s->term_at || !s->under_launcher || !atomic_load(&s->page->inside) || pause <= most) return;
    char place[256], what[900], missing[300];
    /* before there is a run folder nothing tells who has spoken, and there is nothing to save */
    if (!atomic_load(&s->page->folder_known)) end_worker(s, CODE_VICTIM);
    describe_place(s, place, sizeof place);
    snprintf(what, sizeof what, "told to end (SIGTERM), but it waits for other ranks for %.0f s in %s",
             (double)pause / 1e9, place);
    record(s, what);
    mdm_flight_missing(s->page, known_rank(s), missing, sizeof missing);
    snprintf(what + strlen(what), sizeof what - strlen(what), "%s", missing);
    speak(s, what);
    end_worker(s, CODE_LOST);
}

/* How often a process has given up its core by itself, and 1; 0 when unknown. */
static int64_t sleeps_of(pid_t process) {
    static const char name[] = "\nvoluntary_ctxt_switches:";
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%ld/status", (long)process);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0) close(file);
    if (length <= 0) return 0;
    text[length] = 0;
    const char *place = strstr(text, name);
    return place ? 1 + strtoll(place + sizeof name - 1, NULL, 10) : 0;
}

/* The start of MPI counts no looks, but sleeps between them. */
static void take_pulse(supervisor *s, int64_t now, int takes_long) {
    int64_t pulse = s->page->pulse;
    if (pulse == 0 && takes_long && atomic_load(&s->page->inside)) pulse = sleeps_of(s->worker);
    if (pulse == s->pulse) return;
    s->pulse = pulse;
    s->pulse_at = now;
}

/* Whether the worker looks for other ranks. One that is inside a collective, but has not looked for half of
 * this pause, hangs there by itself. */
static int waits_for_others(const supervisor *s, char state, int64_t now, int64_t pause) {
    if (!atomic_load(&s->page->inside) || state == 'T' || state == 't' || state == 'D') return 0;
    return s->pulse == 0 || now - s->pulse_at < pause / 2;
}

/* No work takes long because its process is stopped. */
static int stopped_too_long(supervisor *s, int64_t now, int64_t pause) {
    int64_t most = (int64_t)(longest_stop * s->page->factor);
    char state = pause > most / 2 ? state_of(s->worker) : '?';
    if (state != 'T')
        s->stopped_at = 0;
    else if (!s->stopped_at)
        s->stopped_at = now;
    return s->stopped_at && now - s->stopped_at > most / 2;
}

/* Whether the worker waits for storage, or has until half of this pause ago. */
static int waits_for_storage(supervisor *s, int64_t now, int64_t pause) {
    const char state = state_of(s->worker);
    if (state == 'D' || (state == 'S' && atomic_load(&s->page->reads) > 0)) s->asleep_at = now;
    return now - s->asleep_at < pause / 2;
}

/* While files are read a rank that waits for nothing, and yet makes no progress, may do so for less long. */
static int busy_too_long(supervisor *s, int64_t now, int64_t pause) {
    const int64_t most = mdm_watch_allowed_busy(s->page);
    if (pause <= most / 2 || waits_for_storage(s, now, pause)) return 0;
    return pause > most && !waits_for_others(s, state_of(s->worker), now, pause);
}

/* A worker that is stopped, or computes, is the culprit and named at the limit; one that waits inside a
 * collective is probably a victim, and speaks later, when the culprit's own supervisor did not. */
static void judge(supervisor *s) {
    mdm_watch_page *p = s->page;
    int64_t now = mdm_watch_now(), note = atomic_load(&p->progress), limit = mdm_watch_allowed(p);
    int64_t late = now - s->last_tick - tick;
    if (note != s->excused_progress) s->excuse = 0, s->excused_progress = note;
    if (late > second) { /* a suspended job, a frozen machine: nobody could make progress */
        s->excuse += late;
        s->pulse_at += late;
        s->asleep_at += late;
    }
    s->last_tick = now;
    int64_t pause = now - note - s->excuse;
    take_pulse(s, now, pause > limit / 4);
    if (pause <= limit && !stopped_too_long(s, now, pause) && !busy_too_long(s, now, pause)) {
        judge_after_term(s, pause);
        return;
    }
    char place[256], what[900], missing[300] = "";
    char state = state_of(s->worker);
    int waiting = waits_for_others(s, state, now, pause);
    describe_place(s, place, sizeof place);
    snprintf(what, sizeof what, "no progress for %.0f s (%s) in %s", (double)pause / 1e9,
             state == 'T' || state == 't' ? "the worker is stopped"
             : state == 'D'               ? "the worker waits for a device or file system"
             : waiting                    ? "waiting for other ranks"
                                          : "computing",
             place);
    record(s, what);
    if (waiting && atomic_load(&p->ranks) != 1) {
        /* before the run folder is known nothing keeps two victims from speaking but their turn */
        int turn = known_rank(s) > 0 && !atomic_load(&p->folder_known) ? 2 : 1;
        if (now - s->record_at < turn * 3 * second) return;
        mdm_flight_missing(p, known_rank(s), missing, sizeof missing);
        snprintf(what + strlen(what), sizeof what - strlen(what), "%s", missing);
    }
    speak(s, what);
    end_worker(s, CODE_LOST);
}

static void handle(supervisor *s, int number) {
    switch (number) {
    case SIGCHLD:
        break;
    case SIGTSTP: /* Ctrl-Z: both stop, and both go on with SIGCONT */
        kill(s->worker, SIGSTOP);
        raise(SIGSTOP); /* judge() sees that it was away */
        break;
    case SIGCONT:
        kill(s->worker, SIGCONT);
        break;
    default:
        if (number == SIGTERM && !s->term_at) s->term_at = mdm_watch_now();
        if (number == SIGTERM) { /* perhaps the launcher ends all ranks, because one failed */
            char path[MDM_WATCH_PATH + 32];
            snprintf(path, sizeof path, "%s/flight/failure", s->page->folder);
            if (atomic_load(&s->page->folder_known) && access(path, F_OK) == 0) {
                /* The worker would wait for the failed rank to agree on a stop until it is killed. srun ends
                 * with the largest code of its tasks: this one must not hide the failed rank's. */
                record(s, "ended by the launcher");
                end_worker(s, CODE_VICTIM);
            }
        }
        sigaddset(&s->passed_on, number);
        kill(s->worker, number);
    }
}

static _Noreturn void watch(supervisor *s, const sigset_t *signals) {
    const struct timespec wait = {.tv_nsec = tick};
    s->last_tick = mdm_watch_now();
    for (;;) {
        siginfo_t info;
        int number = sigtimedwait(signals, &info, &wait);
        if (number > 0) handle(s, number);
        reap(s);
        if (s->under_launcher && getppid() != s->parent) end_worker(s, CODE_LOST);
        judge(s);
    }
}

/* Open MPI needs about 30 open files a rank on one node, and tells of it by pages. */
static void check_descriptors(const supervisor *s) {
    enum { LEAST = 48 };
    struct rlimit files;
    char what[256];
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= LEAST) return;
    int length = snprintf(
        what, sizeof what,
        "error: rank %d on %s may have %lld open files, and a run needs %d or more: ulimit -n 1024\n",
        known_rank(s), s->host, (long long)files.rlim_cur, LEAST);
    if (!first_of_node(s) || write(STDERR_FILENO, what, (size_t)length) < 0) _exit(CODE_RESOURCE);
    leave_after_speaking(CODE_RESOURCE);
}

/* OpenBLAS asks for its buffers when it is loaded, again and again for ever where the address space is too
 * small: about 370 MiB with all libraries. So this runs before the libraries begin. */
static void check_address_space(int argc, char **argv, char **variables) {
    enum { LEAST = 512 };
    supervisor s = {.parent = getppid()};
    struct rlimit space;
    char what[256];
    (void)argc;
    (void)argv;
    if (!environ) environ = variables; /* libc has not begun either */
    if (getrlimit(RLIMIT_AS, &space) != 0 || space.rlim_cur >> 20 >= LEAST) return;
    s.under_launcher = mdm_comm_has_launcher();
    if (gethostname(s.host, sizeof s.host - 1) != 0) snprintf(s.host, sizeof s.host, "this host");
    int length = snprintf(what, sizeof what,
                          "error: %s allows %lld MiB of address space, and mdm-dist needs %d or more: ulimit "
                          "-v unlimited\n",
                          s.host, (long long)(space.rlim_cur >> 20), LEAST);
    if (!first_of_node(&s) || write(STDERR_FILENO, what, (size_t)length) < 0) _exit(CODE_RESOURCE);
    if (!s.under_launcher) _exit(CODE_RESOURCE);
    leave_after_speaking(CODE_RESOURCE);
}
__attribute__((section(".preinit_array"),
               used)) static void (*const before_libraries)(int, char **, char **) = check_address_space;

void mdm_supervise(void) {
    static const int numbers[] = {SIGCHLD, SIGTERM, SIGINT,  SIGUSR1, SIGUSR2,
                                  SIGHUP,  SIGTSTP, SIGCONT, SIGQUIT};
    supervisor s = {.under_launcher = mdm_comm_has_launcher(), .parent = getppid()};
    const char *off = getenv("MDM_UNSUPERVISED");
    sigset_t signals, before;
    if (off && strcmp(off, "1") == 0) return;
    s.out_of_memory = mdm_memory_kills();
    if (gethostname(s.host, sizeof s.host - 1) != 0) snprintf(s.host, sizeof s.host, "this host");
    s.page = mdm_watch_create();
    if (!s.page) return;
    check_descriptors(&s);
    sigemptyset(&signals);
    sigemptyset(&s.passed_on);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaddset(&signals, numbers[i]);
    /* blocked before the fork, so that none is lost between it and the wait */
    if (sigprocmask(SIG_BLOCK, &signals, &before) != 0) return;
    /* A killed launcher leaves nobody behind. Alone, a run outlives the shell that started it. */
    if (s.under_launcher) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != s.parent) _exit(CODE_LOST);
    }
    pid_t self = getpid();
    s.worker = fork();
    if (s.worker == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != self) _exit(CODE_LOST);
        (void)setpgid(0, 0);
        (void)signal(SIGTTOU, SIG_IGN); /* a group in the background of the terminal may write to it */
        sigprocmask(SIG_SETMASK, &before, NULL);
        /* a crash is told by the supervisor in one line; Open MPI would write a page about it */
        (void)setenv("OMPI_MCA_opal_signal", "", 0);
        return;
    }
    if (s.worker < 0) { /* no process to spare: it runs without a supervisor */
        sigprocmask(SIG_SETMASK, &before, NULL);
        return;
    }
    (void)setpgid(s.worker, s.worker);
    watch(&s, &signals);
}

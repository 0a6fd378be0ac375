/* A supervisor and a worker that plays a part in front of it: what is said, and how both end. The supervisor
 * is a process of its own, as in a run; those that wait for their limits do so side by side. */
#include "golden.h"
#include "mdm/base/watch.h"
#include "supervisor.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct play {
    pid_t supervisor;
    int said, ready; /* what was written to stderr; a byte when the worker has come to its place */
    char folder[64];
    char text[4096];
} play;

static int ready_end;
static const char *folder; /* of the play that this process is in */
static int fork_fails, page_fails, memory_ran_out;

pid_t __real_fork(void);
pid_t __wrap_fork(void);
pid_t __wrap_fork(void) {
    if (!fork_fails) return __real_fork();
    errno = EAGAIN;
    return -1;
}

void *__real_mmap(void *place, size_t size, int protection, int flags, int file, off_t at);
void *__wrap_mmap(void *place, size_t size, int protection, int flags, int file, off_t at);
void *__wrap_mmap(void *place, size_t size, int protection, int flags, int file, off_t at) {
    return page_fails ? MAP_FAILED : __real_mmap(place, size, protection, flags, file, at);
}

/* The kills are counted once before the worker begins, and once after its death. */
long long __wrap_mdm_memory_kills(void);
long long __wrap_mdm_memory_kills(void) {
    static long long asked;
    return memory_ran_out ? asked++ : 0;
}

static void pause_for(double seconds) {
    const struct timespec time = {(time_t)seconds, (long)(1e9 * (seconds - (double)(time_t)seconds))};
    nanosleep(&time, NULL);
}

static void forget_launcher(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK",        "PMI_RANK",
                                        "SLURM_PROCID",         "MDM_WATCH_FACTOR", "MDM_UNSUPERVISED"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unsetenv(names[i]);
}

/* Raises the curtain: `before` in the process that becomes the supervisor, `worker` in its child. */
static void begin(play *p, void (*before)(void), void (*worker)(void)) {
    int said[2], ready[2];
    char flight[80];
    snprintf(p->folder, sizeof p->folder, "/tmp/mdm-supervisor-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    snprintf(flight, sizeof flight, "%s/flight", p->folder);
    assert_int_equal(mkdir(flight, 0700), 0);
    assert_true(pipe(said) == 0 && pipe(ready) == 0);
    p->supervisor = __real_fork();
    assert_true(p->supervisor >= 0);
    if (p->supervisor == 0) {
        dup2(said[1], STDERR_FILENO);
        for (int file = 3; file < 256; file++)
            if (file != ready[1]) close(file);
        (void)signal(SIGSEGV, SIG_DFL); /* which is cmocka's */
        ready_end = ready[1];
        folder = p->folder;
        forget_launcher();
        if (before) before();
        mdm_supervise();
        worker();
        _exit(0);
    }
    close(said[1]);
    close(ready[1]);
    p->said = said[0];
    p->ready = ready[0];
}

static void come_to_the_place(void) {
    if (write(ready_end, "x", 1) != 1) _exit(99);
}

static void wait_for_the_worker(const play *p) {
    char byte;
    assert_int_equal(read(p->ready, &byte, 1), 1);
}

static int holds(const play *p, const char *name, const char *words) {
    char path[128], content[4096] = "";
    snprintf(path, sizeof path, "%s/flight/%s", p->folder, name);
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    content[fread(content, 1, sizeof content - 1, file)] = 0;
    fclose(file);
    return strstr(content, words) != NULL;
}

/* The last act: the exit code, and what was said. */
static void end(play *p, int code) {
    size_t length = 0;
    ssize_t got;
    int status;
    while ((got = read(p->said, p->text + length, sizeof p->text - 1 - length)) > 0) length += (size_t)got;
    p->text[length] = 0;
    assert_int_equal(waitpid(p->supervisor, &status, 0), p->supervisor);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != code)
        fail_msg("status %x instead of code %d; it said: %s", (unsigned)status, code, p->text);
    close(p->said);
    close(p->ready);
}

/* One line that holds these words; NULL: no line. */
static void assert_said(const play *p, const char *words) {
    const char *line_end = strchr(p->text, '\n');
    if (words ? !strstr(p->text, words) || !line_end || line_end[1] : p->text[0])
        fail_msg("\"%s\" was expected, it said: %s", words ? words : "nothing", p->text);
}

static void clear(const play *p) {
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", p->folder);
    assert_int_equal(system(command), 0);
}

static void finish(play *p, int code, const char *words) {
    end(p, code);
    assert_said(p, words);
    clear(p);
}

/* Parts before the worker begins */

static void under_a_launcher(void) {
    setenv("SLURM_PROCID", "5", 1);
}

static void under_another_launcher(void) {
    setenv("PMI_RANK", "0", 1);
}

static void with_small_limits(void) {
    setenv("MDM_WATCH_FACTOR", "0.05", 1); /* a stopped worker is found after 1.5 s */
}

static void with_few_files(void) {
    const struct rlimit few = {40, 40};
    setrlimit(RLIMIT_NOFILE, &few);
}

static void with_few_files_under_a_launcher(void) {
    with_few_files();
    under_a_launcher();
}

static void unsupervised(void) {
    setenv("MDM_UNSUPERVISED", "1", 1);
}

static void without_processes(void) {
    fork_fails = 1;
}

static void without_a_page(void) {
    page_fails = 1;
}

static void where_memory_is_short(void) {
    memory_ran_out = 1;
}

/* Parts of the worker */

static const double soon =
    1.5; /* seconds without progress; a busy machine must have come to the place by then */

static void leave(void) {
}

static void leave_with_a_finding(void) {
    mdm_watch_folder(folder);
    _exit(3);
}

static void die_in_a_step(void) {
    mdm_watch_ranks(1, 2);
    mdm_watch_folder(folder);
    mdm_watch_stage("semi", 3, 0, 60);
    mdm_watch_step(12);
    mdm_watch_enter("all-reduce", 8);
    raise(SIGKILL);
}

static void die_in_a_stage_with_a_long_name(void) {
    static char name[2000];
    memset(name, 'x', sizeof name - 1);
    mdm_watch_stage(name, 0, 0, 60);
    raise(SIGSEGV);
}

static void die_after_the_line(void) {
    mdm_watch_told(5);
    raise(SIGKILL);
}

static void give_up_at_the_start(void) {
    _exit(1);
}

static void give_up_later(void) {
    mdm_watch_ranks(0, 2);
    _exit(1);
}

static void hang(void) {
    come_to_the_place();
    for (;;) pause();
}

static void end_at_usr1(int number) {
    (void)number;
    _exit(75);
}

static void save_when_told(void) {
    signal(SIGUSR1, end_at_usr1);
    hang();
}

static void compute_without_end(void) {
    mdm_watch_folder(folder);
    mdm_watch_stage("warmup", 0, -1, soon);
    hang();
}

static void stop(void) {
    mdm_watch_stage("open", -1, -1, 600);
    raise(SIGSTOP);
}

/* Half of what is read of a data set; the stage itself would allow ten minutes. */
static void begin_to_read(void) {
    mdm_watch_folder(folder);
    mdm_watch_stage("open", -1, -1, 600);
    mdm_watch_reading(soon);
    mdm_watch_read_begins();
    mdm_watch_read_ends();
}

static void loop_in_a_read(void) {
    begin_to_read();
    mdm_watch_read_begins();
    for (volatile int i = 0;; i++) {
    }
}

static void hang_between_reads(void) {
    begin_to_read();
    hang();
}

static void hang_inside_beside_a_reader(void) {
    begin_to_read();
    mdm_watch_pulse();
    mdm_watch_enter("broadcast", 8);
    hang();
}

static void read_slowly(void) {
    begin_to_read();
    mdm_watch_read_begins();
    pause_for(3 * soon);
    mdm_watch_read_ends();
    _exit(0);
}

static void wait_for_a_slow_reader(void) {
    mdm_watch_ranks(1, 3);
    begin_to_read();
    mdm_watch_enter("broadcast", 8);
    for (double waited = 0; waited < 3 * soon; waited += 0.01) {
        mdm_watch_pulse();
        pause_for(0.01);
    }
    _exit(0);
}

static void compute_for_long_after_reading(void) {
    begin_to_read();
    mdm_watch_reading(0);
    pause_for(3 * soon);
    _exit(0);
}

/* The parent of a vfork waits as for a device. */
static void wait_for_a_device(void) {
    mdm_watch_stage("open", -1, -1, soon);
    if (vfork() == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pause_for(60);
        _exit(0);
    }
}

/* Whoever waits for others sleeps between looks for them. */
static void enter_a_collective(int rank, int ranks, double floor) {
    mdm_watch_ranks(rank, ranks);
    mdm_watch_stage("divide", 2, 1, floor);
    mdm_watch_enter("all-gather", 8);
    come_to_the_place();
    for (;;) pause_for(0.01);
}

static void wait_inside_alone(void) {
    enter_a_collective(0, 1, soon);
}

static void wait_inside_without_a_folder(void) {
    enter_a_collective(1, 3, soon);
}

static void wait_inside_with_a_folder(void) {
    mdm_watch_folder(folder);
    enter_a_collective(1, 3, soon);
}

static void hang_inside_after_a_look(void) {
    mdm_watch_pulse();
    enter_a_collective(0, 3, soon);
}

static void hang_inside(void) {
    mdm_watch_stage("divide", 2, 1, soon);
    mdm_watch_enter("all-gather", 8);
    hang();
}

static void wait_inside_for_long(void) {
    mdm_watch_folder(folder);
    signal(SIGTERM, SIG_IGN);
    enter_a_collective(0, 3, 600);
}

static void wait_inside_for_long_without_a_folder(void) {
    signal(SIGTERM, SIG_IGN);
    enter_a_collective(0, 3, 600);
}

static void ends_of_a_worker_are_passed_on(void **state) {
    (void)state;
    play p;
    begin(&p, NULL, leave);
    finish(&p, 0, NULL);
    begin(&p, NULL, leave_with_a_finding);
    end(&p, 3);
    assert_said(&p, NULL);
    assert_true(holds(&p, "rank-0.json", "the worker ended with an error"));
    clear(&p);
    begin(&p, NULL, die_after_the_line);
    finish(&p, 5, NULL);
}

static void a_death_is_told_with_its_place(void **state) {
    (void)state;
    play p;
    begin(&p, NULL, die_in_a_step);
    end(&p, 6);
    assert_said(&p, "the worker was killed by signal 9 (Killed) in semi epoch 4, network a, step 12; last "
                    "collective all-reduce 0, waiting in it. Start the run again");
    assert_int_equal(strncmp(p.text, "error: rank 1 on ", 17), 0);
    assert_true(holds(&p, "failure", "killed by signal 9") && holds(&p, "rank-1.json", "all-reduce"));
    clear(&p);
    begin(&p, where_memory_is_short, die_in_a_step);
    finish(&p, 4, "because the memory limit was hit, in semi epoch 4");
    begin(&p, under_a_launcher, die_in_a_stage_with_a_long_name);
    finish(&p, 6, "error: rank 5 on ");
    begin(&p, under_another_launcher, die_in_a_stage_with_a_long_name);
    finish(&p, 6, "error: rank 0 on ");
}

static void a_library_that_gives_up_is_told_once_a_node(void **state) {
    (void)state;
    play p, q, r;
    begin(&p, NULL, give_up_later);
    begin(&q, under_a_launcher, give_up_at_the_start);
    begin(&r, under_a_launcher, give_up_at_the_start);
    finish(&p, 6, "the MPI library ended the worker, as it tells above, in start");
    end(&q, 4);
    end(&r, 4);
    assert_said(q.text[0] ? &q : &r, "the MPI library cannot start");
    assert_said(q.text[0] ? &r : &q, NULL);
    clear(&q);
    clear(&r);
}

static void limits_that_are_too_small_are_told_once_a_node(void **state) {
    (void)state;
    play p, q, r;
    begin(&p, with_few_files, leave);
    begin(&q, with_few_files_under_a_launcher, leave);
    begin(&r, with_few_files_under_a_launcher, leave);
    finish(&p, 4, "may have 40 open files, and a run needs 48 or more: ulimit -n 1024");
    end(&q, 4);
    end(&r, 4);
    assert_said(q.text[0] ? &q : &r, "error: rank 5 on ");
    assert_said(q.text[0] ? &r : &q, NULL);
    clear(&q);
    clear(&r);
}

static void too_small_an_address_space_is_told_before_the_libraries_begin(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* these need terabytes of it */
#endif
    for (int launched = 0; launched < 2; launched++) {
        char text[512] = "";
        int said[2], status;
        assert_int_equal(pipe(said), 0);
        pid_t child = __real_fork();
        if (child == 0) {
            const struct rlimit small = {(rlim_t)300 << 20, (rlim_t)300 << 20};
            dup2(said[1], STDERR_FILENO);
            forget_launcher();
            if (launched) under_a_launcher();
            setrlimit(RLIMIT_AS, &small);
            execl("/proc/self/exe", "test_supervisor", (char *)NULL);
            _exit(99);
        }
        close(said[1]);
        assert_true(read(said[0], text, sizeof text - 1) >= 0);
        close(said[0]);
        assert_int_equal(waitpid(child, &status, 0), child);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 4 ||
            !strstr(text,
                    "allows 300 MiB of address space, and mdm-dist needs 512 or more: ulimit -v unlimited"))
            fail_msg("status %x: %s", (unsigned)status, text);
    }
}

static void where_none_can_be_made_the_run_goes_on_without_a_supervisor(void **state) {
    (void)state;
    void (*const reasons[])(void) = {unsupervised, without_processes, without_a_page};
    for (int i = 0; i < 3; i++) {
        play p;
        begin(&p, reasons[i], give_up_later);
        finish(&p, 1, NULL); /* the worker's own code: nobody judges it */
    }
}

static void signals_reach_the_worker(void **state) {
    (void)state;
    play p;
    begin(&p, NULL, save_when_told);
    wait_for_the_worker(&p);
    kill(p.supervisor, SIGUSR1);
    finish(&p, 75, NULL);
    begin(&p, NULL, hang); /* one that does not answer yet has nothing to save */
    wait_for_the_worker(&p);
    kill(p.supervisor, SIGTERM);
    finish(&p, 75, "stopped by a signal before there was anything to save");
}

static void both_stop_at_the_terminal_and_go_on_without_an_alarm(void **state) {
    (void)state;
    play p;
    int status;
    begin(&p, with_small_limits, save_when_told);
    wait_for_the_worker(&p);
    kill(p.supervisor, SIGTSTP);
    assert_int_equal(waitpid(p.supervisor, &status, WUNTRACED), p.supervisor);
    assert_true(WIFSTOPPED(status));
    pause_for(1.5);
    kill(p.supervisor, SIGCONT);
    pause_for(0.5);
    kill(p.supervisor, SIGUSR1);
    finish(&p, 75, NULL);
}

static void a_launcher_that_ends_all_because_of_a_failure_is_obeyed_at_once(void **state) {
    (void)state;
    play p;
    char path[128];
    begin(&p, under_a_launcher, wait_inside_for_long);
    wait_for_the_worker(&p);
    snprintf(path, sizeof path, "%s/flight/failure", p.folder);
    fclose(fopen(path, "w"));
    kill(p.supervisor, SIGTERM);
    end(&p, 1); /* the smallest of the codes, so that the failed rank's is the launcher's */
    assert_said(&p, NULL);
    assert_true(holds(&p, "rank-0.json", "ended by the launcher"));
    clear(&p);
}

static void workers_without_progress_are_told_with_what_they_do(void **state) {
    (void)state;
    enum { CASES = 17 };
    static const struct {
        void (*before)(void), (*worker)(void);
        int sent, code;
        const char *words;
    } cases[CASES] = {
        {NULL, compute_without_end, 0, 6, "(computing) in warmup epoch 1"},
        {with_small_limits, stop, 0, 6, "(the worker is stopped) in open"},
        {NULL, wait_for_a_device, 0, 6, "(the worker waits for a device or file system) in open"},
        {NULL, wait_inside_alone, 0, 6, "(waiting for other ranks) in divide epoch 3, network b"},
        {NULL, wait_inside_without_a_folder, 0, 6, "(waiting for other ranks) in divide epoch 3, network b"},
        {NULL, wait_inside_with_a_folder, 0, 6, "it lacks rank 0 (silent), 2 (silent)"},
        {NULL, hang_inside_after_a_look, 0, 6, "(computing) in divide"},
        {NULL, hang_inside, 0, 6, "(computing) in divide"},
        {under_a_launcher, wait_inside_for_long, SIGTERM, 6,
         "told to end (SIGTERM), but it waits for other ranks"},
        {under_a_launcher, wait_inside_for_long_without_a_folder, SIGTERM, 1, NULL},
        {NULL, loop_in_a_read, 0, 6, "(computing) in open"},
        {NULL, hang_between_reads, 0, 6, "(computing) in open"},
        {NULL, hang_inside_beside_a_reader, 0, 6, "(computing) in open"},
        {NULL, read_slowly, 0, 0, NULL},
        {NULL, wait_for_a_slow_reader, 0, 0, NULL},
        {NULL, compute_for_long_after_reading, 0, 0, NULL},
        {NULL, compute_without_end, -1, 6, NULL}, /* another rank has spoken */
    };
    play plays[CASES];
    for (int i = 0; i < CASES; i++) {
        begin(&plays[i], cases[i].before, cases[i].worker);
        if (cases[i].sent) wait_for_the_worker(&plays[i]);
        if (cases[i].sent > 0) kill(plays[i].supervisor, cases[i].sent);
        if (cases[i].sent < 0) {
            char path[128];
            snprintf(path, sizeof path, "%s/flight/failure", plays[i].folder);
            fclose(fopen(path, "w"));
        }
    }
    for (int i = 0; i < CASES; i++) finish(&plays[i], cases[i].code, cases[i].words);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_of_a_worker_are_passed_on),
        cmocka_unit_test(a_death_is_told_with_its_place),
        cmocka_unit_test(a_library_that_gives_up_is_told_once_a_node),
        cmocka_unit_test(limits_that_are_too_small_are_told_once_a_node),
        cmocka_unit_test(too_small_an_address_space_is_told_before_the_libraries_begin),
        cmocka_unit_test(where_none_can_be_made_the_run_goes_on_without_a_supervisor),
        cmocka_unit_test(signals_reach_the_worker),
        cmocka_unit_test(both_stop_at_the_terminal_and_go_on_without_an_alarm),
        cmocka_unit_test(a_launcher_that_ends_all_because_of_a_failure_is_obeyed_at_once),
        cmocka_unit_test(workers_without_progress_are_told_with_what_they_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

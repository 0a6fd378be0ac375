/* Signals only set flags; the ranks agree on them between two steps. */
#include "trainer.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stop_asked, save_asked;

static void on_signal(int number) {
    if (number == SIGUSR2) {
        save_asked = 1;
        return;
    }
    if (stop_asked && number == SIGINT) _exit(130); /* a second Ctrl-C: the last checkpoint stands */
    stop_asked = 1;
}

void mdm_signals_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    int numbers[4] = {SIGUSR1, SIGTERM, SIGINT, SIGUSR2};
    for (int i = 0; i < 4; i++) sigaction(numbers[i], &action, NULL);
    action.sa_handler = SIG_IGN; /* writes report these as errors */
    sigaction(SIGPIPE, &action, NULL);
    sigaction(SIGXFSZ, &action, NULL);
}

int mdm_signals_stop(void) {
    return stop_asked;
}

int mdm_signals_time_is_up(double seconds_needed) {
    const char *text = getenv("SLURM_JOB_END_TIME");
    char *end;
    if (!text || !*text) return 0;
    double limit = strtod(text, &end);
    return !*end && limit > 0 && limit - (double)time(NULL) < seconds_needed;
}

int mdm_signals_take_save(void) {
    if (!save_asked) return 0; /* and none that comes by now is lost */
    save_asked = 0;
    return 1;
}

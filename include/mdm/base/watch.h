/* What a worker tells the process that watches over it: a page of memory that both share.
 *
 * The process that a launcher starts forks the worker and then only watches (src/cli/supervisor.c). The
 * worker notes here where it is and each collective it enters and leaves; a note costs tens of nanoseconds.
 * Every note counts as progress. Without a supervisor the functions do nothing. Only the thread that runs the
 * training may call them. Texts are literals: both processes are one program, so an address means the same in
 * both.
 */
#ifndef MDM_BASE_WATCH_H
#define MDM_BASE_WATCH_H

#include <stdatomic.h>
#include <stdint.h>

enum { MDM_WATCH_RING = 256, MDM_WATCH_PATH = 3072 };

/* One collective: entered and left at these nanoseconds of the monotonic clock (left 0: still inside). */
typedef struct mdm_watch_entry {
    _Atomic(const char *) operation;
    _Atomic int64_t number, bytes, entered, left;
} mdm_watch_entry;

typedef struct mdm_watch_page {
    _Atomic int rank, ranks;              /* -1 until known */
    _Atomic(const char *) stage;          /* "start", "warmup", "divide", ... */
    _Atomic int64_t epoch, network, step; /* -1: none */
    _Atomic int64_t progress;             /* when the last note was made, ns */
    _Atomic int64_t longest;              /* ns between two notes, in this stage */
    _Atomic int64_t floor;                /* ns: the limit is never below it */
    _Atomic int64_t busy_floor;           /* ns: the limit of mdm_watch_reading(), 0: none */
    _Atomic int reads;                    /* of files, under way */
    double factor;                        /* of MDM_WATCH_FACTOR, on all limits */
    _Atomic int64_t collectives;          /* entered so far */
    _Atomic int inside;                   /* a collective is under way */
    _Atomic int64_t pulse;                /* looks for the other ranks while it waits; 0: not counted */
    _Atomic int told;                     /* the worker has written the error line and ends with this code */
    _Atomic int folder_known;             /* the text below is complete */
    char folder[MDM_WATCH_PATH];          /* the run folder, where failures are claimed and records left */
    mdm_watch_entry ring[MDM_WATCH_RING]; /* of the latest collectives, number modulo its size */
} mdm_watch_page;

/* Makes the page, before the fork; NULL when out of memory. */
mdm_watch_page *mdm_watch_create(void);
/* The page of this process, NULL without a supervisor. */
mdm_watch_page *mdm_watch_page_get(void);

void mdm_watch_ranks(int rank, int ranks);
/* From now on a stage of this name, in which a pause may last `floor` seconds, or five times the longest one
 * seen in it. Stages that come back keep what was seen. */
void mdm_watch_stage(const char *stage, int64_t epoch, int64_t network, double floor);
void mdm_watch_step(int64_t step);
void mdm_watch_progress(void);
/* For a while something else, with a floor of its own: a save, an evaluation; then back to where it was. Not
 * nested. */
void mdm_watch_aside(const char *stage, double floor);
void mdm_watch_back(void);
/* Another floor for the rest of this stage. */
void mdm_watch_floor(double floor);
/* For a while, in this stage, much is read from files: the stage's floor is then for who waits for storage or
 * for other ranks, and a rank that does neither may pause for so many seconds, since a read ended at the
 * latest; 0: no more. */
void mdm_watch_reading(double floor);
/* Around a read of a file, of a size that takes a second at most where storage is not slow; by any thread. */
void mdm_watch_read_begins(void);
void mdm_watch_read_ends(void);
/* In a child of the worker: what it does is not the worker's doing. */
void mdm_watch_forget(void);
void mdm_watch_enter(const char *operation, int64_t bytes);
void mdm_watch_leave(void);
/* Counts a look for the other ranks inside a collective: a rank whose count stands still does not wait for
 * them, it keeps them waiting. No progress. */
void mdm_watch_pulse(void);
/* The run folder, once it is there and flight/ in it is empty. */
void mdm_watch_folder(const char *folder);

/* One line for one failure, however many ranks see it: 1 for the first to call this in a run folder, whose
 * line it is, 0 for the others. 1 while no folder is known. The text is kept in flight/failure. */
int mdm_watch_claim(mdm_watch_page *page, const char *line);

/* Tells the supervisor that this process has written its error line and will end with `code`. */
void mdm_watch_told(int code);

int64_t mdm_watch_now(void);

/* How long, in ns, a pause may last in the stage that the page tells of: when the supervisor steps in. */
int64_t mdm_watch_allowed(const mdm_watch_page *page);
/* The same for one that waits neither for storage nor for other ranks. */
int64_t mdm_watch_allowed_busy(const mdm_watch_page *page);
/* Seconds that a wait inside the process may last: a little longer where a supervisor, which knows of the
 * other ranks, is to speak first. */
double mdm_watch_limit(void);

#endif

/* Teams of threads: OpenMP's, with serial twins.
 *
 * With CNN_CORE_PTHREADS they are plain POSIX threads, made anew for each team: slow, but
 * ThreadSanitizer sees every lock and barrier between them, as it does not inside libgomp. */
#ifndef CNN_CORE_TEAM_H
#define CNN_CORE_TEAM_H

#include <stddef.h>
#include <stdlib.h>
#include "pause.h"

#if defined(_OPENMP) || defined(CNN_CORE_PTHREADS)
#define TEAM_HAS_THREADS
#endif
#if defined(TEAM_HAS_THREADS) && !defined(_WIN32)
#include <pthread.h>
#endif

/* What every member of a team runs, with its number. */
typedef void (*team_member)(void *work, int thread);

/* The number of the next piece of work, which no other thread gets. */
static inline ptrdiff_t team_claim(ptrdiff_t *next) {
    return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
}

/* Wait for about a microsecond or less. */
static inline void team_hesitate(void) {
    for (int i = 0; i < 16; i++) pause_briefly();
}

/* The number that the next call of team_claim will give, or a smaller one. */
static inline ptrdiff_t team_unclaimed(const ptrdiff_t *next) {
    return __atomic_load_n(next, __ATOMIC_RELAXED);
}

#ifdef CNN_CORE_PTHREADS
#include <unistd.h>

typedef struct {
    team_member member;
    void *work;
    int thread;
    pthread_t handle;
    pthread_barrier_t *meeting;
} team_place;

static __thread pthread_barrier_t *team_meeting;

static inline int team_openmp_version(void) { return 0; }
static inline int team_offered(void) { return (int)sysconf(_SC_NPROCESSORS_ONLN); }
static inline int team_inside(void) { return 0; }
static inline void team_barrier(void) { pthread_barrier_wait(team_meeting); }

static void *team_take_place(void *argument) {
    team_place *place = argument;
    team_meeting = place->meeting;
    place->member(place->work, place->thread);
    return NULL;
}

static void team_run(team_member member, void *work, int threads) {
    pthread_barrier_t meeting;
    team_place *places = malloc(threads * sizeof *places);
    if (places == NULL || pthread_barrier_init(&meeting, NULL, threads))
        abort();
    for (int t = 0; t < threads; t++) {
        places[t] = (team_place){member, work, t, pthread_self(), &meeting};
        if (t > 0 && pthread_create(&places[t].handle, NULL, team_take_place, &places[t]))
            abort();
    }
    team_take_place(&places[0]);
    for (int t = 1; t < threads; t++)
        pthread_join(places[t].handle, NULL);
    pthread_barrier_destroy(&meeting);
    free(places);
}
#elif defined(_OPENMP)
#include <omp.h>

static inline int team_openmp_version(void) { return _OPENMP; }
static inline int team_offered(void) { return omp_get_max_threads(); }
static inline int team_inside(void) { return omp_in_parallel(); }

static inline void team_barrier(void) {
#pragma omp barrier
}

static void team_run(team_member member, void *work, int threads) {
#pragma omp parallel num_threads(threads)
    member(work, omp_get_thread_num());
}
#else
static inline int team_openmp_version(void) { return 0; }
static inline int team_offered(void) { return 1; }
static inline int team_inside(void) { return 0; }
static inline void team_barrier(void) {}
static void team_run(team_member member, void *work, int threads) { member(work, 0); }
#endif

#if defined(TEAM_HAS_THREADS) && !defined(_WIN32)
static void *team_pass_gate(void *gate) {
    pthread_mutex_lock(gate);
    pthread_mutex_unlock(gate);
    return NULL;
}

/* Whether so many threads more, with stacks of so many bytes (0: the default), can exist now. */
static int team_try_threads(int count, size_t stack) {
    pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
    pthread_attr_t attributes;
    pthread_t *threads = malloc(count * sizeof *threads);
    int made = 0;
    if (threads == NULL || pthread_attr_init(&attributes)) {
        free(threads);
        return 0;
    }
    if (stack)
        pthread_attr_setstacksize(&attributes, stack); /* refused: the default, as in libgomp */
    pthread_mutex_lock(&gate);
    while (made < count && !pthread_create(&threads[made], &attributes, team_pass_gate, &gate))
        made++;
    pthread_mutex_unlock(&gate);
    for (int t = 0; t < made; t++)
        pthread_join(threads[t], NULL);
    pthread_attr_destroy(&attributes);
    free(threads);
    return made == count;
}

/* Whether this thread can have a team of so many. OpenMP ends the process where a thread of a team
 * cannot be made, so the first team of a size is preceded by a trial. */
static int team_possible(int threads, size_t stack) {
    static __thread int largest = 1;
    if (threads > largest) {
        if (!team_try_threads(threads - 1, stack))
            return 0;
        largest = threads;
    }
    return 1;
}
#else
static int team_possible(int threads, size_t stack) { return 1; }
#endif

#endif

/* A pool of threads that help with a product.

   A job is a number of chunks. Whoever is free takes the next one, so that uneven cores share the
   work as they can; the caller takes part, and a worker that comes too late finds nothing left and
   is not waited for. One job runs at a time: who finds the pool busy does its chunks alone. */
#define _GNU_SOURCE
#include <fenv.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "nkblas.h"

enum {
    MAX_WORKERS = 1023,
    SPIN = 100000, /* nanoseconds that an idle worker looks out for a job before it sleeps */
    STACK = 1 << 19
};

/* The job: written while its ticket is closed, so that who takes a chunk has read the right one. */
static struct {
    _Atomic(void (*)(void *, int64_t)) work;
    _Atomic(void *) argument;
    atomic_int_least64_t chunks;
    atomic_int workers; /* that may take part */
    fenv_t environment; /* the caller's: rounding, flushing to zero */
} job;

enum { CLOSED = UINT32_MAX };
static atomic_uint_least64_t ticket; /* number of the job << 32 | its next chunk, or CLOSED */
static atomic_int_least64_t done;    /* chunks */
static atomic_int flags;             /* floating-point exceptions that workers met */
static atomic_flag busy = ATOMIC_FLAG_INIT;

static struct {
    _Alignas(64) atomic_int asleep; /* a futex */
    pthread_t thread;
} workers[MAX_WORKERS];
static int started;          /* workers; `busy` guards it, and the mask */
static cpu_set_t their_mask; /* the CPUs that workers may run on */

static atomic_int num_threads = 1;

void nk_set_num_threads(int32_t threads) { atomic_store(&num_threads, threads); }

int32_t nk_get_num_threads(void) { return atomic_load(&num_threads); }

static void futex(atomic_int *word, int operation, int value)
{
    syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Do chunks of the job `number` for as long as there are any. */
static void take_chunks(uint64_t number, int worker)
{
    uint64_t t = atomic_load(&ticket);
    int first = 1;
    while (t >> 32 == number) {
        void (*work)(void *, int64_t) = atomic_load(&job.work);
        void *argument = atomic_load(&job.argument);
        int64_t chunk = (int64_t)(t & UINT32_MAX);
        if (chunk >= atomic_load(&job.chunks) || worker >= atomic_load(&job.workers))
            return;
        if (!atomic_compare_exchange_weak(&ticket, &t, t + 1))
            continue;
        if (worker >= 0 && first)
            fesetenv(&job.environment);
        first = 0;
        work(argument, chunk);
        if (worker >= 0)
            atomic_fetch_or(&flags, fetestexcept(FE_ALL_EXCEPT));
        atomic_fetch_add(&done, 1);
        t = atomic_load(&ticket);
    }
}

static void *serve(void *argument)
{
    int me = (int)(intptr_t)argument;
    uint64_t seen = 0;
    for (;;) {
        int64_t start = now();
        uint64_t number;
        while ((number = atomic_load(&ticket) >> 32) == seen) {
            if (now() - start < SPIN) {
                sched_yield();
                continue;
            }
            atomic_store(&workers[me].asleep, 1);
            if (atomic_load(&ticket) >> 32 == seen)
                futex(&workers[me].asleep, FUTEX_WAIT, 1);
            atomic_store(&workers[me].asleep, 0);
        }
        seen = number;
        take_chunks(number, me);
    }
    return NULL;
}

/* A fork takes the caller alone along: its child starts with no workers and no job. */
static void forget(void)
{
    started = 0;
    atomic_store(&ticket, 0);
    atomic_flag_clear(&busy);
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, forget); }

/* Have `wanted` workers, or as many as the system grants. */
static int start(int wanted)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    if (started >= wanted)
        return wanted;

    sigset_t all, before;
    pthread_attr_t attributes;
    sigfillset(&all); /* signals are for the user's threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, STACK);
    while (started < wanted) {
        atomic_store(&workers[started].asleep, 0);
        if (pthread_create(&workers[started].thread, &attributes, serve,
                           (void *)(intptr_t)started))
            break;
        pthread_setaffinity_np(workers[started].thread, sizeof their_mask, &their_mask);
        pthread_setname_np(workers[started].thread, "nkblas");
        started++;
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

/* Workers for a job of `threads` threads, on the CPUs that the caller may use now. */
static int call_up(int threads)
{
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (!sched_getaffinity(0, sizeof mask, &mask)) {
        if (threads > CPU_COUNT(&mask))
            threads = CPU_COUNT(&mask);
        if (!CPU_EQUAL(&mask, &their_mask)) {
            their_mask = mask;
            for (int i = 0; i < started; i++)
                pthread_setaffinity_np(workers[i].thread, sizeof mask, &mask);
        }
    }
    return start(threads - 1 < MAX_WORKERS ? threads - 1 : MAX_WORKERS);
}

void nk_parallel(int32_t threads, int64_t chunks, void (*work)(void *job, int64_t chunk),
                 void *argument)
{
    if (threads > chunks)
        threads = (int32_t)chunks;
    int helpers = 0, alone = threads < 2 || chunks > INT32_MAX || atomic_flag_test_and_set(&busy);
    if (!alone && (helpers = call_up(threads)) < 1) {
        atomic_flag_clear(&busy);
        alone = 1;
    }
    if (alone) {
        for (int64_t chunk = 0; chunk < chunks; chunk++)
            work(argument, chunk);
        return;
    }

    uint64_t number = (atomic_load(&ticket) >> 32) + 2;
    atomic_store(&ticket, (number - 1) << 32 | CLOSED);
    atomic_store(&job.work, work);
    atomic_store(&job.argument, argument);
    atomic_store(&job.chunks, chunks);
    atomic_store(&job.workers, helpers);
    fegetenv(&job.environment);
    atomic_store(&done, 0);
    atomic_store(&flags, 0);
    atomic_store(&ticket, number << 32);
    for (int i = 0; i < helpers; i++)
        if (atomic_exchange(&workers[i].asleep, 0))
            futex(&workers[i].asleep, FUTEX_WAKE, 1);

    take_chunks(number, -1);
    while (atomic_load(&done) < chunks)
        sched_yield();
    int met = atomic_load(&flags);
    atomic_flag_clear(&busy);
    if (met)
        feraiseexcept(met);
}

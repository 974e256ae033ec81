/* A pool of threads that help with a product.

   A job is a number of chunks. Whoever is free takes the next one, so that uneven cores share the
   work as they can; the caller takes part, and a worker that comes too late finds nothing left and
   is not waited for. One job runs at a time: who finds the pool busy does its chunks alone. */
#define _GNU_SOURCE
#include <fenv.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "nkblas.h"

enum {
    MAX_WORKERS = 1023,
    STACK = 1 << 19,
    SPIN = 100000,       /* nanoseconds that who waits looks out before it sleeps */
    WORTH_WAKING = 60000 /* nanoseconds of a job that is worth waking workers for */
};

/* The number of a job << CHUNK_BITS | its next chunk, or CLOSED. (A number comes again after 2^40
   of them: nobody hesitates for days between reading a ticket and taking it.) */
enum { CHUNK_BITS = 24, CLOSED = (1 << CHUNK_BITS) - 1 };
static _Alignas(64) atomic_uint_least64_t ticket = CLOSED;

/* The job: written while the ticket is closed, so that who takes a chunk has read the right one. */
static struct {
    _Alignas(64) _Atomic(void (*)(void *, int64_t)) work;
    _Atomic(void *) argument;
    atomic_int_least64_t chunks;
    atomic_int workers; /* that may take part */
    fenv_t environment; /* the caller's: rounding, flushing to zero */
} job;

static _Alignas(64) atomic_int left; /* chunks that are not done; a futex */
static atomic_int flags;             /* floating-point exceptions that workers met */
static atomic_int_least64_t ended;   /* when there was a job last */
static atomic_flag busy = ATOMIC_FLAG_INIT;

/* `busy` guards all that is not atomic. */
static struct {
    _Alignas(64) atomic_int asleep; /* a futex */
    pthread_t thread;
    cpu_set_t mask;
} workers[MAX_WORKERS];
static int started;
static atomic_int stopping;

static atomic_int num_threads = 1;

void nk_set_num_threads(int32_t threads) { atomic_store(&num_threads, threads < 1 ? 1 : threads); }

int32_t nk_get_num_threads(void) { return atomic_load(&num_threads); }

static void futex(atomic_int *word, int operation, int value)
{
    syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

int64_t nk_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static uint64_t job_number(void) { return atomic_load(&ticket) >> CHUNK_BITS; }

/* Issue a ticket with a number of its own. */
static uint64_t issue(uint64_t chunk)
{
    atomic_store(&ticket, (job_number() + 1) << CHUNK_BITS | chunk);
    return job_number();
}

/* Do chunks of the job `number` for as long as there are any. */
static void take_chunks(uint64_t number, int worker)
{
    uint64_t t = atomic_load(&ticket);
    int first = 1;
    while (t >> CHUNK_BITS == number) {
        void (*work)(void *, int64_t) = atomic_load(&job.work);
        void *argument = atomic_load(&job.argument);
        int64_t chunk = (int64_t)(t & CLOSED);
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
        if (atomic_fetch_sub(&left, 1) == 1 && worker >= 0)
            futex(&left, FUTEX_WAKE, 1);
        t = atomic_load(&ticket);
    }
}

static void *serve(void *argument)
{
    int me = (int)(intptr_t)argument;
    uint64_t seen = 0, number;
    while (!atomic_load(&stopping)) {
        int64_t start = nk_clock();
        while ((number = job_number()) == seen) {
            if (nk_clock() - start < SPIN) {
                sched_yield();
                continue;
            }
            atomic_store(&workers[me].asleep, 1);
            if (job_number() == seen)
                futex(&workers[me].asleep, FUTEX_WAIT, 1);
            atomic_store(&workers[me].asleep, 0);
        }
        seen = number;
        take_chunks(number, me);
    }
    return NULL;
}

static void wake(int count)
{
    for (int i = 0; i < count; i++)
        if (atomic_exchange(&workers[i].asleep, 0))
            futex(&workers[i].asleep, FUTEX_WAKE, 1);
}

static void wait_for_chunks(void)
{
    int64_t start = nk_clock();
    for (int n; (n = atomic_load(&left)) > 0;) {
        if (nk_clock() - start < SPIN)
            sched_yield();
        else
            futex(&left, FUTEX_WAIT, n);
    }
}

/* Have `wanted` workers, or as many as the system grants. */
static int start(int wanted)
{
    if (started >= wanted)
        return wanted;

    /* Signals are for the user's threads, but for those that a thread brings upon itself. */
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t all, before;
    pthread_attr_t attributes;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        sigdelset(&all, own[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    while (started < wanted) {
        atomic_store(&workers[started].asleep, 0);
        CPU_ZERO(&workers[started].mask);
        if (pthread_create(&workers[started].thread, &attributes, serve,
                           (void *)(intptr_t)started))
            break;
        pthread_setname_np(workers[started].thread, "nkblas");
        started++;
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static void stop(void)
{
    atomic_store(&stopping, 1);
    issue(CLOSED);
    wake(started);
    while (started > 0)
        pthread_join(workers[--started].thread, NULL);
    atomic_store(&stopping, 0);
}

/* Up to `wanted` workers, on the CPUs that the caller may use now; but not on the one that it is
   on, where the system likes to wake them. */
static int call_up(int wanted)
{
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (!sched_getaffinity(0, sizeof mask, &mask)) {
        int others = CPU_COUNT(&mask) - 1;
        if (wanted > others)
            wanted = others;
        CPU_CLR(sched_getcpu(), &mask);
    }
    wanted = start(wanted < MAX_WORKERS ? wanted : MAX_WORKERS);
    for (int i = 0; i < wanted; i++) {
        if (CPU_EQUAL(&workers[i].mask, &mask))
            continue;
        workers[i].mask = mask;
        pthread_setaffinity_np(workers[i].thread, sizeof mask, &mask);
    }
    return wanted;
}

void nk_parallel(int32_t threads, double nanoseconds, int64_t chunks,
                 void (*work)(void *job, int64_t chunk), void *argument)
{
    int helpers = 0;
    if (threads > chunks)
        threads = (int32_t)chunks;
    /* Workers are asleep by now, or awake since there were jobs a moment ago. */
    int asleep = nk_clock() - atomic_load(&ended) > SPIN;
    if (threads > 1 && chunks < CLOSED && !(asleep && nanoseconds < WORTH_WAKING) &&
        !atomic_flag_test_and_set(&busy)) {
        helpers = call_up(threads - 1);
        if (!helpers)
            atomic_flag_clear(&busy);
    }
    if (!helpers) {
        for (int64_t chunk = 0; chunk < chunks; chunk++)
            work(argument, chunk);
        atomic_store(&ended, nk_clock());
        return;
    }

    issue(CLOSED);
    atomic_store(&job.work, work);
    atomic_store(&job.argument, argument);
    atomic_store(&job.chunks, chunks);
    atomic_store(&job.workers, helpers);
    fegetenv(&job.environment);
    atomic_store(&left, (int)chunks);
    atomic_store(&flags, 0);
    uint64_t number = issue(0);
    wake(helpers);
    take_chunks(number, -1);
    wait_for_chunks();
    int met = atomic_load(&flags) & ~fetestexcept(FE_ALL_EXCEPT);
    atomic_store(&ended, nk_clock());
    atomic_flag_clear(&busy);
    if (met)
        feraiseexcept(met);
}

/* A fork takes the caller alone along, into a child whose other threads' doings stay half done
   for ever. So an idle pool ends before a fork: a process without other threads forks without
   them, which Python 3.12 asks for. A busy one is forgotten by the child. */
static _Thread_local int held;

static void before_fork(void)
{
    held = !atomic_flag_test_and_set(&busy);
    if (held)
        stop();
}

static void after_fork(void)
{
    if (held)
        atomic_flag_clear(&busy);
}

static void after_fork_in_child(void)
{
    started = 0;
    atomic_store(&ticket, CLOSED);
    atomic_flag_clear(&busy);
}

__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* A pool of worker threads that help with a product.

   A job is divided into chunks. Any thread that is free takes the next chunk, so that cores of
   different speed share the work; the caller takes part, and does not wait for a worker that comes
   too late to find a chunk. One job runs at a time: a caller that finds the pool busy does all its
   chunks itself. */
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
    STACK_BYTES = 1 << 19,
    SPIN_NS = 100000, /* nanoseconds for which a thread spins before it sleeps */
    WAKE_NS = 60000   /* the least nanoseconds of a job for which sleeping workers are woken */
};

/* The number of a job << CHUNK_BITS | its next chunk, or CLOSED. (Numbers repeat after 2^40 jobs: no
   thread is delayed for days between reading a ticket and taking it.) */
enum { CHUNK_BITS = 24, CLOSED = (1 << CHUNK_BITS) - 1 };
static _Alignas(64) atomic_uint_least64_t ticket = CLOSED;

/* The job: written while the ticket is closed, so that a thread that takes a chunk has read this
   job. */
static struct {
    _Alignas(64) _Atomic(void (*)(void *, int64_t)) work;
    _Atomic(void *) argument;
    atomic_int_least64_t chunks;
    atomic_int workers; /* how many may take part */
    fenv_t environment; /* the caller's: rounding mode, flush to zero */
} job;

static _Alignas(64) atomic_int chunks_left; /* not done yet; a futex */
static atomic_int flags;                    /* floating-point exceptions raised in workers */
static atomic_int_least64_t last_job_end;   /* nanoseconds */
static atomic_flag busy = ATOMIC_FLAG_INIT;

/* `busy` guards all variables that are not atomic. */
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

int64_t nk_monotonic_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static uint64_t job_number(void) { return atomic_load(&ticket) >> CHUNK_BITS; }

/* Start a new number; returns it. */
static uint64_t issue_ticket(uint64_t chunk)
{
    atomic_store(&ticket, (job_number() + 1) << CHUNK_BITS | chunk);
    return job_number();
}

/* Do chunks of job `number` until there are none. `worker` is -1 in the caller. */
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
        if (atomic_fetch_sub(&chunks_left, 1) == 1 && worker >= 0)
            futex(&chunks_left, FUTEX_WAKE, 1);
        t = atomic_load(&ticket);
    }
}

static void *serve(void *argument)
{
    int me = (int)(intptr_t)argument;
    uint64_t seen = 0, number;
    while (!atomic_load(&stopping)) {
        int64_t start = nk_monotonic_ns();
        while ((number = job_number()) == seen) {
            if (nk_monotonic_ns() - start < SPIN_NS) {
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
    int64_t start = nk_monotonic_ns();
    for (int n; (n = atomic_load(&chunks_left)) > 0;) {
        if (nk_monotonic_ns() - start < SPIN_NS)
            sched_yield();
        else
            futex(&chunks_left, FUTEX_WAIT, n);
    }
}

/* Start workers until there are `wanted`, or the system refuses; returns how many there are. */
static int start_workers(int wanted)
{
    if (started >= wanted)
        return wanted;

    /* Signals are for the user's threads, except those that a thread causes itself. */
    static const int synchronous[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t all, before;
    pthread_attr_t attributes;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof synchronous / sizeof *synchronous; i++)
        sigdelset(&all, synchronous[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    while (started < wanted) {
        atomic_store(&workers[started].asleep, 0);
        CPU_ZERO(&workers[started].mask);
        if (pthread_create(&workers[started].thread, &attributes, serve, (void *)(intptr_t)started))
            break;
        pthread_setname_np(workers[started].thread, "nkblas");
        started++;
    }
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}

static void stop_workers(void)
{
    atomic_store(&stopping, 1);
    issue_ticket(CLOSED);
    wake(started);
    while (started > 0)
        pthread_join(workers[--started].thread, NULL);
    atomic_store(&stopping, 0);
}

/* Up to `wanted` workers on the CPUs that the caller may use now, except the one that it runs on,
   where the system tends to wake them. */
static int assign_workers(int wanted)
{
    cpu_set_t mask;
    CPU_ZERO(&mask);
    if (!sched_getaffinity(0, sizeof mask, &mask)) {
        int others = CPU_COUNT(&mask) - 1;
        if (wanted > others)
            wanted = others;
        CPU_CLR(sched_getcpu(), &mask);
    }
    wanted = start_workers(wanted < MAX_WORKERS ? wanted : MAX_WORKERS);
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
    /* Workers spin for SPIN_NS after a job, and sleep then. */
    int are_asleep = nk_monotonic_ns() - atomic_load(&last_job_end) > SPIN_NS;
    if (threads > 1 && chunks < CLOSED && !(are_asleep && nanoseconds < WAKE_NS) &&
        !atomic_flag_test_and_set(&busy)) {
        helpers = assign_workers(threads - 1);
        if (!helpers)
            atomic_flag_clear(&busy);
    }
    if (!helpers) {
        for (int64_t chunk = 0; chunk < chunks; chunk++)
            work(argument, chunk);
        atomic_store(&last_job_end, nk_monotonic_ns());
        return;
    }

    issue_ticket(CLOSED);
    atomic_store(&job.work, work);
    atomic_store(&job.argument, argument);
    atomic_store(&job.chunks, chunks);
    atomic_store(&job.workers, helpers);
    fegetenv(&job.environment);
    atomic_store(&chunks_left, (int)chunks);
    atomic_store(&flags, 0);
    uint64_t number = issue_ticket(0);
    wake(helpers);
    take_chunks(number, -1);
    wait_for_chunks();
    int raised = atomic_load(&flags) & ~fetestexcept(FE_ALL_EXCEPT);
    atomic_store(&last_job_end, nk_monotonic_ns());
    atomic_flag_clear(&busy);
    if (raised)
        feraiseexcept(raised);
}

/* A fork copies the calling thread alone: what other threads were doing stays half done in the child.
   So an idle pool is stopped before a fork (Python 3.12 warns of forks with threads), and the child
   forgets a busy one. */
static _Thread_local int holds_pool;

static void before_fork(void)
{
    holds_pool = !atomic_flag_test_and_set(&busy);
    if (holds_pool)
        stop_workers();
}

static void after_fork(void)
{
    if (holds_pool)
        atomic_flag_clear(&busy);
}

static void after_fork_in_child(void)
{
    started = 0;
    atomic_store(&ticket, CLOSED);
    atomic_flag_clear(&busy);
}

__attribute__((constructor)) static void register_fork_handlers(void)
{
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* A test of the thread pool: several callers at once, with jobs of every size. Each chunk must be
   done once, without a data race; test_threads.py compiles this with ThreadSanitizer. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "nkblas.h"

enum { CALLERS = 3, CPUS = 5, MAX_CHUNKS = 48 };
static int jobs;

/* Replaces the C library's: with more CPUs there are more workers. */
int sched_getaffinity(pid_t thread, size_t size, cpu_set_t *mask)
{
    (void)thread;
    CPU_ZERO_S(size, mask);
    for (int i = 0; i < CPUS; i++)
        CPU_SET_S(i, size, mask);
    return 0;
}

static void work(void *counts, int64_t chunk) { ((int *)counts)[chunk]++; }

static void *run_jobs(void *caller_seed)
{
    unsigned seed = (unsigned)(uintptr_t)caller_seed;
    for (int i = 0; i < jobs; i++) {
        int counts[MAX_CHUNKS] = {0}, chunks = 1 + rand_r(&seed) % MAX_CHUNKS;
        nk_parallel(1 + rand_r(&seed) % (CPUS + 1), rand_r(&seed) % 120000, chunks, work, counts);
        for (int chunk = 0; chunk < MAX_CHUNKS; chunk++)
            if (counts[chunk] != (chunk < chunks)) {
                printf("chunk %d of %d was done %d times\n", chunk, chunks, counts[chunk]);
                exit(1);
            }
        if (rand_r(&seed) % 32 == 0)
            usleep((useconds_t)rand_r(&seed) % 300); /* workers go to sleep */
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t callers[CALLERS];
    jobs = argc > 1 ? atoi(argv[1]) : 1;
    for (uintptr_t i = 0; i < CALLERS; i++)
        pthread_create(&callers[i], NULL, run_jobs, (void *)i);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
    puts("done");
    return 0;
}

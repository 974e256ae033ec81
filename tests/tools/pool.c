/* Callers of the pool at once, with jobs of every size: is each chunk done once, without a race?
   test_threads.py has ThreadSanitizer look on. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "nkblas.h"

enum { CALLERS = 3, CPUS = 5, MOST = 48 };
static int jobs;

/* As if there were more CPUs, so that there are more workers. */
int sched_getaffinity(pid_t thread, size_t size, cpu_set_t *mask)
{
    (void)thread;
    CPU_ZERO_S(size, mask);
    for (int i = 0; i < CPUS; i++)
        CPU_SET_S(i, size, mask);
    return 0;
}

static void work(void *counts, int64_t chunk) { ((int *)counts)[chunk]++; }

static void *call(void *seed_of_caller)
{
    unsigned seed = (unsigned)(uintptr_t)seed_of_caller;
    for (int i = 0; i < jobs; i++) {
        int counts[MOST] = {0}, chunks = 1 + rand_r(&seed) % MOST;
        nk_parallel(1 + rand_r(&seed) % (CPUS + 1), rand_r(&seed) % 120000, chunks, work, counts);
        for (int chunk = 0; chunk < MOST; chunk++)
            if (counts[chunk] != (chunk < chunks)) {
                printf("chunk %d of %d was done %d times\n", chunk, chunks, counts[chunk]);
                exit(1);
            }
        if (rand_r(&seed) % 32 == 0)
            usleep((useconds_t)rand_r(&seed) % 300); /* workers fall asleep */
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t callers[CALLERS];
    jobs = argc > 1 ? atoi(argv[1]) : 1;
    for (uintptr_t i = 0; i < CALLERS; i++)
        pthread_create(&callers[i], NULL, call, (void *)i);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
    puts("done");
    return 0;
}

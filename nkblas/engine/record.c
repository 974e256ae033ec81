/* Counts products by problem, while somebody records them. Counts only ever grow until nobody does:
   what a recording holds is the difference of two looks at them. No Python runs here, so that a
   signal that comes meanwhile reaches the program, and the GIL is left alone. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "nkblas.h"

int32_t nk_recordings;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static nk_record *records; /* open addressing; a free one has no products */
static size_t used, capacity; /* capacity is a power of two */

static void take(void) { pthread_mutex_lock(&lock); }

static void leave(void) { pthread_mutex_unlock(&lock); }

static void watch_forks(void) { pthread_atfork(take, leave, leave); }

void nk_start_recording(void)
{
    pthread_once(&once, watch_forks);
    __atomic_add_fetch(&nk_recordings, 1, __ATOMIC_RELAXED);
}

/* What comes in yet from products that began before this is nobody's. */
void nk_stop_recording(void)
{
    take();
    if (__atomic_sub_fetch(&nk_recordings, 1, __ATOMIC_RELAXED) == 0) {
        free(records);
        records = NULL;
        used = capacity = 0;
    }
    leave();
}

static nk_record *find(nk_record *in, size_t size, const nk_problem *problem)
{
    size_t i = nk_hash(problem) & (size - 1);
    while (in[i].products && memcmp(&in[i].problem, problem, sizeof *problem))
        i = (i + 1) & (size - 1);
    return &in[i];
}

static int grow(void)
{
    size_t size = capacity ? 2 * capacity : 64;
    nk_record *larger = calloc(size, sizeof *larger);
    if (!larger)
        return 0;
    for (size_t i = 0; i < capacity; i++)
        if (records[i].products)
            *find(larger, size, &records[i].problem) = records[i];
    free(records);
    records = larger;
    capacity = size;
    return 1;
}

void nk_note(const nk_problem *problem, int64_t products, int64_t nanoseconds)
{
    take();
    if (2 * (used + 1) <= capacity || grow()) { /* without memory it is not counted */
        nk_record *record = find(records, capacity, problem);
        used += !record->products;
        record->problem = *problem;
        record->products += products;
        record->nanoseconds += nanoseconds;
    }
    leave();
}

int64_t nk_recorded(nk_record *out, int64_t room)
{
    int64_t count = 0;
    take();
    for (size_t i = 0; i < capacity; i++)
        if (records[i].products && count++ < room)
            out[count - 1] = records[i];
    leave();
    return count;
}

/* Counts products by problem while recordings are active. Counts only grow: a recording is the
   difference of two snapshots. No Python runs here, so that signals reach the program and the GIL is
   not needed. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "nkblas.h"

int32_t nk_active_recordings;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static nk_record *records;    /* a hash table, open addressing; free entries have no products */
static size_t used, capacity; /* capacity is a power of two */
static int is_in_file;        /* a table of a fixed size, which is not freed (counters.c) */

static void acquire(void) { pthread_mutex_lock(&lock); }

static void release(void) { pthread_mutex_unlock(&lock); }

static void register_fork_handlers(void) { pthread_atfork(acquire, release, release); }

void nk_start_recording(void)
{
    pthread_once(&once, register_fork_handlers);
    __atomic_add_fetch(&nk_active_recordings, 1, __ATOMIC_RELAXED);
}

/* Products that are still running are not counted. */
void nk_stop_recording(void)
{
    acquire();
    int active = __atomic_sub_fetch(&nk_active_recordings, 1, __ATOMIC_RELAXED);
    if (active == 0 && !is_in_file) {
        free(records);
        records = NULL;
        used = capacity = 0;
    }
    release();
}

static nk_record *find(nk_record *table, size_t size, const nk_problem *problem)
{
    size_t i = nk_hash(problem) & (size - 1);
    while (table[i].products && memcmp(&table[i].problem, problem, sizeof *problem))
        i = (i + 1) & (size - 1);
    return &table[i];
}

static int grow(void)
{
    if (is_in_file)
        return 0;
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

void nk_record_products(const nk_problem *problem, int64_t products, int64_t nanoseconds)
{
    acquire();
    if (2 * (used + 1) <= capacity || grow()) { /* else out of memory: not counted */
        nk_record *record = find(records, capacity, problem);
        used += !record->products;
        record->problem = *problem;
        record->products += products;
        record->nanoseconds += nanoseconds;
    }
    release();
}

int64_t nk_recorded(nk_record *out, int64_t max_records)
{
    int64_t count = 0;
    acquire();
    for (size_t i = 0; i < capacity; i++)
        if (records[i].products && count++ < max_records)
            out[count - 1] = records[i];
    release();
    return count;
}

void nk_move_records(nk_record *table, nk_record *before)
{
    acquire();
    if (capacity > NK_FILE_RECORDS)
        used = capacity = 0; /* too many: counting starts again */
    for (size_t i = 0; i < capacity; i++)
        if (records[i].products) {
            nk_record *record = find(table, NK_FILE_RECORDS, &records[i].problem);
            *record = before[record - table] = records[i];
        }
    if (!is_in_file)
        free(records);
    records = table;
    capacity = NK_FILE_RECORDS;
    is_in_file = 1;
    release();
}

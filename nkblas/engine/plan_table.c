/* The plan table: a hash table from problems to plans, read without locks.

   Open addressing over pointers to plans; only a plan's tier-up counter and its trial change. A reader sees a slot
   empty or complete. A full table is replaced by a larger copy, a cleared one by NULL. Memory that
   can no longer be found is freed once every product that began before it was removed has ended.
   (Epoch-based reclamation: Fraser, "Practical lock-freedom", Cambridge UCAM-CL-TR-579, 2004.) */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "nkblas.h"

typedef _Atomic(nk_plan *) slot;

typedef struct {
    size_t capacity, used; /* capacity is a power of two */
    slot slots[];
} table;

static _Atomic(table *) current;

/* ---- readers ---- */

/* A thread that multiplies, or has done so. It is never freed: another thread reuses it. */
struct nk_reader {
    _Alignas(64) atomic_uint_least64_t inside; /* epoch in which its product began; 0: none runs */
    atomic_flag taken;
    nk_reader *next;
};

static _Atomic(nk_reader *) readers;
static atomic_uint_least64_t epoch = 1;
static _Thread_local nk_reader *own;
static pthread_key_t at_thread_exit;
static int has_key;

static void release_reader(void *reader) { atomic_flag_clear(&((nk_reader *)reader)->taken); }

/* After a fork, in the child: products of other threads never end. */
static void release_other_readers(void)
{
    for (nk_reader *r = atomic_load(&readers); r; r = r->next) {
        if (r == own)
            continue;
        atomic_store(&r->inside, 0);
        atomic_flag_clear(&r->taken);
    }
}

__attribute__((constructor)) static void initialize(void)
{
    has_key = !pthread_key_create(&at_thread_exit, release_reader);
    pthread_atfork(NULL, NULL, release_other_readers);
}

static nk_reader *acquire_reader(void)
{
    nk_reader *r = atomic_load(&readers);
    while (r && atomic_flag_test_and_set(&r->taken))
        r = r->next;
    if (!r) {
        r = aligned_alloc(_Alignof(nk_reader), sizeof *r);
        if (!r)
            return NULL;
        *r = (nk_reader){.taken = ATOMIC_FLAG_INIT};
        atomic_flag_test_and_set(&r->taken);
        r->next = atomic_load(&readers);
        while (!atomic_compare_exchange_weak(&readers, &r->next, r))
            ;
    }
    if (has_key) /* not if all 1024 keys of the process are taken */
        pthread_setspecific(at_thread_exit, r);
    return own = r;
}

nk_reader *nk_reader_enter(void)
{
    nk_reader *r = own ? own : acquire_reader();
    /* Before any look-up: a thread that removes a plan sees this, or the look-up sees the removal. */
    if (r)
        atomic_store(&r->inside, atomic_load(&epoch));
    return r;
}

void nk_reader_exit(nk_reader *reader)
{
    atomic_store_explicit(&reader->inside, 0, memory_order_release);
}

/* ---- reclamation ---- */

/* Memory that was removed from the table, and the last epoch in which it could be found. */
static struct {
    void *memory;
    uint64_t last_epoch;
} *garbage;
static size_t garbage_count, garbage_capacity;

static void discard(void *memory)
{
    if (garbage_count == garbage_capacity) {
        size_t capacity = garbage_capacity ? 2 * garbage_capacity : 64;
        void *larger = realloc(garbage, capacity * sizeof *garbage);
        if (!larger)
            return; /* it is never freed */
        garbage = larger;
        garbage_capacity = capacity;
    }
    garbage[garbage_count].memory = memory;
    garbage[garbage_count++].last_epoch = atomic_load(&epoch);
}

/* Begin an epoch, and free what no running product can have found. */
static void collect(void)
{
    if (!garbage_count)
        return;
    uint64_t oldest = atomic_fetch_add(&epoch, 1) + 1;
    for (nk_reader *r = atomic_load(&readers); r; r = r->next) {
        uint64_t began = atomic_load(&r->inside);
        if (began && began < oldest)
            oldest = began;
    }
    size_t left = 0;
    for (size_t i = 0; i < garbage_count; i++) {
        if (garbage[i].last_epoch < oldest)
            free(garbage[i].memory);
        else
            garbage[left++] = garbage[i];
    }
    garbage_count = left;
}

/* ---- the table ---- */

size_t nk_hash(const nk_problem *problem)
{
    uint64_t words[sizeof *problem / 8], h = 0x9e3779b97f4a7c15u;
    _Static_assert(sizeof words == sizeof *problem, "a problem has no padding");
    memcpy(words, problem, sizeof words);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        h = (h ^ words[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return (size_t)h;
}

/* The slot of a problem, and the plan that was seen there. (An empty slot may
   have another problem's plan when it is read again.) */
static slot *find_slot(table *t, const nk_problem *problem, nk_plan **plan)
{
    for (size_t i = nk_hash(problem);; i++) {
        slot *s = &t->slots[i & (t->capacity - 1)];
        *plan = atomic_load(s);
        if (!*plan || !memcmp(&(*plan)->problem, problem, sizeof *problem))
            return s;
    }
}

nk_plan *nk_table_find(const nk_problem *problem)
{
    table *t = atomic_load(&current);
    nk_plan *plan = NULL;
    if (t)
        find_slot(t, problem, &plan);
    return plan;
}

static table *enlarged(const table *old)
{
    size_t capacity = old ? 2 * old->capacity : 64;
    table *t = calloc(1, sizeof *t + capacity * sizeof(slot));
    if (!t)
        return NULL;
    t->capacity = capacity;
    for (size_t i = 0; old && i < old->capacity; i++) {
        nk_plan *plan = atomic_load_explicit(&old->slots[i], memory_order_relaxed), *none;
        if (plan) {
            atomic_store_explicit(find_slot(t, &plan->problem, &none), plan, memory_order_relaxed);
            t->used++;
        }
    }
    return t;
}

int nk_table_insert(const nk_plan *plan)
{
    nk_plan *copy = malloc(sizeof *copy + (plan->trial ? sizeof *plan->trial : 0));
    if (!copy)
        return -1;
    *copy = *plan;
    if (plan->trial) {
        copy->trial = (nk_trial *)(copy + 1); /* both are freed together */
        *copy->trial = *plan->trial;
    }
    table *t = atomic_load(&current);
    if (!t || 2 * (t->used + 1) > t->capacity) {
        table *old = t;
        t = enlarged(old);
        if (!t) {
            free(copy);
            return -1;
        }
        atomic_store(&current, t);
        if (old)
            discard(old);
    }
    nk_plan *replaced;
    atomic_store(find_slot(t, &copy->problem, &replaced), copy);
    if (replaced)
        discard(replaced);
    else
        t->used++;
    collect();
    return 0;
}

void nk_table_clear(void)
{
    table *old = atomic_exchange(&current, NULL);
    if (!old)
        return;
    for (size_t i = 0; i < old->capacity; i++) {
        nk_plan *plan = atomic_load_explicit(&old->slots[i], memory_order_relaxed);
        if (plan)
            discard(plan);
    }
    discard(old);
    collect();
}

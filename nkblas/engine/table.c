/* The plan table: from problem to plan, read without locks.

   Open addressing over pointers to plans, of which nothing changes but their patience. A reader sees
   a slot empty or whole; a full table is replaced by a larger copy, and any by an empty one. What
   nobody can find any more is freed once no product is under way that began before it was taken out.
   (Epochs: Fraser, "Practical lock-freedom", Cambridge UCAM-CL-TR-579, 2004.) */
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

/* A thread that multiplies, or has done so. It is never freed: another thread takes it over. */
struct nk_reader {
    _Alignas(64) atomic_uint_least64_t inside; /* the epoch in which its product began; 0: none */
    atomic_flag taken;
    nk_reader *next;
};

static _Atomic(nk_reader *) readers;
static atomic_uint_least64_t epoch = 1;
static _Thread_local nk_reader *mine;
static pthread_key_t at_thread_exit;
static int have_key;

static void leave_to_others(void *reader) { atomic_flag_clear(&((nk_reader *)reader)->taken); }

/* After a fork, in the child: other threads' products will never end. */
static void forget_others(void)
{
    for (nk_reader *r = atomic_load(&readers); r; r = r->next) {
        if (r == mine)
            continue;
        atomic_store(&r->inside, 0);
        atomic_flag_clear(&r->taken);
    }
}

__attribute__((constructor)) static void watch(void)
{
    have_key = !pthread_key_create(&at_thread_exit, leave_to_others);
    pthread_atfork(NULL, NULL, forget_others);
}

static nk_reader *enlist(void)
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
    if (have_key) /* there are 1024 for all of a process */
        pthread_setspecific(at_thread_exit, r);
    return mine = r;
}

nk_reader *nk_enter(void)
{
    nk_reader *r = mine ? mine : enlist();
    /* before any look into the table: who takes a plan out of it sees this, or is seen by it */
    if (r)
        atomic_store(&r->inside, atomic_load(&epoch));
    return r;
}

void nk_leave(nk_reader *reader)
{
    atomic_store_explicit(&reader->inside, 0, memory_order_release);
}

/* What was taken out, and the last epoch in which it could be found. */
static struct {
    void *memory;
    uint64_t until;
} *garbage;
static size_t pieces, room;

static void discard(void *memory)
{
    if (pieces == room) {
        size_t more = room ? 2 * room : 64;
        void *larger = realloc(garbage, more * sizeof *garbage);
        if (!larger)
            return; /* nobody will free it */
        garbage = larger;
        room = more;
    }
    garbage[pieces].memory = memory;
    garbage[pieces++].until = atomic_load(&epoch);
}

/* Begin an epoch, and free what belongs to those in which no product has begun that is under way. */
static void collect(void)
{
    if (!pieces)
        return;
    uint64_t oldest = atomic_fetch_add(&epoch, 1) + 1;
    for (nk_reader *r = atomic_load(&readers); r; r = r->next) {
        uint64_t began = atomic_load(&r->inside);
        if (began && began < oldest)
            oldest = began;
    }
    size_t left = 0;
    for (size_t i = 0; i < pieces; i++) {
        if (garbage[i].until < oldest)
            free(garbage[i].memory);
        else
            garbage[left++] = garbage[i];
    }
    pieces = left;
}

size_t nk_hash(const nk_problem *problem)
{
    uint64_t words[sizeof *problem / 8], h = 0x9e3779b97f4a7c15u;
    memcpy(words, problem, sizeof words);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        h = (h ^ words[i]) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return (size_t)h;
}

/* A problem's slot, and the plan that was seen there. (An empty one may be another problem's by the
   next look.) */
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

static table *larger(const table *old)
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
    nk_plan *copy = malloc(sizeof *copy);
    if (!copy)
        return -1;
    *copy = *plan;
    table *t = atomic_load(&current);
    if (!t || 2 * (t->used + 1) > t->capacity) {
        table *old = t;
        t = larger(old);
        if (!t) {
            free(copy);
            return -1;
        }
        atomic_store(&current, t);
        if (old)
            discard(old);
    }
    nk_plan *before;
    atomic_store(find_slot(t, &copy->problem, &before), copy);
    if (before)
        discard(before);
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

/* The plan table: from problem to plan, read without locks.

   Open addressing over pointers to plans, of which nothing changes but their patience. A reader sees a slot empty or whole;
   a full table is replaced by a larger copy, and the old one is kept, since a reader may still be
   in it (all old ones together are smaller than the current). */
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
        *plan = atomic_load_explicit(s, memory_order_acquire);
        if (!*plan || !memcmp(&(*plan)->problem, problem, sizeof *problem))
            return s;
    }
}

nk_plan *nk_table_find(const nk_problem *problem)
{
    table *t = atomic_load_explicit(&current, memory_order_acquire);
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
    table *t = atomic_load_explicit(&current, memory_order_relaxed);
    if (!t || 2 * (t->used + 1) > t->capacity) {
        table *next = larger(t);
        if (!next) {
            free(copy);
            return -1;
        }
        t = next;
        atomic_store_explicit(&current, t, memory_order_release);
    }
    nk_plan *before;
    slot *s = find_slot(t, &copy->problem, &before);
    if (!before)
        t->used++;
    atomic_store_explicit(s, copy, memory_order_release);
    return 0;
}

/* Packing buffers, and buffers for blocks. Those of one kind and thread are parts of one allocation on
   huge pages, which is kept between calls. (tests/tools/fenced.c replaces them by buffers between guard
   pages.) */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "nkblas.h"

typedef struct {
    void *data;
    size_t size;
} buffer;

enum { PACKING, BLOCKS, KINDS };

static _Thread_local buffer own[KINDS];
static pthread_key_t at_thread_exit;
static int has_key;

static const size_t huge_page = (size_t)2 << 20;

static void unmap(buffer *x)
{
    if (x->data)
        munmap(x->data, x->size);
    x->data = NULL;
    x->size = 0;
}

static void unmap_all(void *data)
{
    (void)data;
    for (int kind = 0; kind < KINDS; kind++)
        unmap(&own[kind]);
}

__attribute__((constructor)) static void make_key(void)
{
    has_key = !pthread_key_create(&at_thread_exit, unmap_all);
}

static size_t round_up(size_t size, size_t page) { return (size + page - 1) & ~(page - 1); }

/* At least `size` bytes; NULL: out of memory. */
static char *reserve(buffer *x, size_t size)
{
    if (size <= x->size)
        return x->data;
    unmap(x);

    /* Map one page more, and unmap what lies outside the aligned part. */
    size = round_up(size, huge_page);
    char *raw =
        mmap(NULL, size + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)raw & (huge_page - 1);
    if (before)
        munmap(raw, before);
    munmap(raw + before + size, huge_page - before);
    madvise(raw + before, size, MADV_HUGEPAGE); /* failure costs speed only */
    x->data = raw + before;
    x->size = size;
    if (has_key) /* not if all 1024 keys of the process are taken */
        pthread_setspecific(at_thread_exit, own);
    return x->data;
}

static int divide(int kind, const int64_t *sizes, char **buffers, int count)
{
    enum { PAGE = 4096 };
    size_t total = 0;
    for (int i = 0; i < count; i++)
        total += round_up((size_t)sizes[i], PAGE);
    char *next = reserve(&own[kind], total);
    for (int i = 0; next && i < count; i++) {
        buffers[i] = next;
        next += round_up((size_t)sizes[i], PAGE);
    }
    return next != NULL;
}

int nk_packing_buffers(const int64_t *sizes, char **buffers, int count)
{
    return divide(PACKING, sizes, buffers, count);
}

int nk_block_buffers(const int64_t *sizes, char **buffers, int count)
{
    return divide(BLOCKS, sizes, buffers, count);
}

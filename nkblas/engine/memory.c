/* Packing buffers: those of a thread are one piece of memory, kept between calls, on huge pages.
   (tests/fenced.c has others, which end where memory ends.) */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "nkblas.h"

typedef struct {
    void *data;
    size_t size;
} buffer;

static _Thread_local buffer mine;
static pthread_key_t at_thread_exit;
static int have_key;

static const size_t huge_page = (size_t)2 << 20;

static void unmap(void *data)
{
    (void)data;
    if (mine.data)
        munmap(mine.data, mine.size);
    mine.data = NULL;
    mine.size = 0;
}

__attribute__((constructor)) static void make_key(void)
{
    have_key = !pthread_key_create(&at_thread_exit, unmap);
}

static size_t whole(size_t size, size_t page) { return (size + page - 1) & ~(page - 1); }

/* Memory of this size at least; NULL: there is none. */
static char *reserve(size_t size)
{
    if (size <= mine.size)
        return mine.data;
    unmap(NULL);

    /* Map a page too many, and give back what lies outside the aligned part. */
    size = whole(size, huge_page);
    char *raw = mmap(NULL, size + huge_page, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)raw & (huge_page - 1);
    if (before)
        munmap(raw, before);
    munmap(raw + before + size, huge_page - before);
    madvise(raw + before, size, MADV_HUGEPAGE); /* a refusal costs speed only */
    mine.data = raw + before;
    mine.size = size;
    if (have_key) /* there are 1024 for all of a process */
        pthread_setspecific(at_thread_exit, mine.data);
    return mine.data;
}

int nk_buffers(const int64_t *sizes, char **parts, int count)
{
    enum { PAGE = 4096 };
    size_t all = 0;
    for (int i = 0; i < count; i++)
        all += whole((size_t)sizes[i], PAGE);
    char *next = reserve(all);
    for (int i = 0; next && i < count; i++) {
        parts[i] = next;
        next += whole((size_t)sizes[i], PAGE);
    }
    return next != NULL;
}

/* Replaces engine/memory.c for `make sanitize`: packing buffers that end at a page without access, or
   with NKBLAS_FENCES=before begin after one. They are filled with bytes
   0xff, a NaN in any float type. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "nkblas.h"

enum { PAGE = 4096, MAX_BUFFERS = 8, POISON = 0xff };

static _Thread_local struct {
    char *start;
    size_t size;
} buffers[2 * MAX_BUFFERS];

static char *fenced(int index, size_t size, int before)
{
    size_t whole = (size + PAGE - 1) / PAGE * PAGE;
    if (buffers[index].start)
        munmap(buffers[index].start, buffers[index].size);
    buffers[index].size = whole + 2 * PAGE;
    buffers[index].start =
        mmap(NULL, buffers[index].size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffers[index].start == MAP_FAILED)
        abort();
    char *first = buffers[index].start + PAGE;
    mprotect(first, whole, PROT_READ | PROT_WRITE);
    memset(first, POISON, whole);
    return before ? first : first + whole - size;
}

static int fence_all(int first, const int64_t *sizes, char **parts, int count)
{
    const char *fences = getenv("NKBLAS_FENCES");
    int before = fences && !strcmp(fences, "before");
    if (count > MAX_BUFFERS)
        abort();
    for (int i = 0; i < count; i++)
        parts[i] = fenced(first + i, (size_t)sizes[i], before);
    return 1;
}

int nk_packing_buffers(const int64_t *sizes, char **parts, int count)
{
    return fence_all(0, sizes, parts, count);
}

int nk_block_buffers(const int64_t *sizes, char **parts, int count)
{
    return fence_all(MAX_BUFFERS, sizes, parts, count);
}

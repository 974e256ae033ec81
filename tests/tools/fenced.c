/* In the place of engine/memory.c, for `make sanitize`: packing buffers that end where memory ends,
   or, with NKBLAS_FENCES=before, begin there. They hold what shows in any result. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "nkblas.h"

enum { PAGE = 4096, MOST = 8, NOTHING = 0xff };

static _Thread_local struct {
    char *start;
    size_t size;
} mine[MOST];

static char *fenced(int which, size_t size, int before)
{
    size_t whole = (size + PAGE - 1) / PAGE * PAGE;
    if (mine[which].start)
        munmap(mine[which].start, mine[which].size);
    mine[which].size = whole + 2 * PAGE;
    mine[which].start = mmap(NULL, mine[which].size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mine[which].start == MAP_FAILED)
        abort();
    char *first = mine[which].start + PAGE;
    mprotect(first, whole, PROT_READ | PROT_WRITE);
    memset(first, NOTHING, whole);
    return before ? first : first + whole - size;
}

int nk_packing_buffers(const int64_t *sizes, char **parts, int count)
{
    const char *fences = getenv("NKBLAS_FENCES");
    int before = fences && !strcmp(fences, "before");
    if (count > MOST)
        abort();
    for (int i = 0; i < count; i++)
        parts[i] = fenced(i, (size_t)sizes[i], before);
    return 1;
}

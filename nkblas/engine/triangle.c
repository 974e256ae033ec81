/* The lower triangle of a symmetric C, and its copy to the upper one. */
#include "cache_block.h"

int64_t nk_triangle_end(const nk_plan *plan, int64_t i)
{
    return nk_tile_of(&plan->n, nk_tile_start(&plan->m, i + 1) - 1) + 1;
}

void nk_mirror_tiles(const nk_cache_block *x, int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    const nk_tiling *m = &x->plan->m, *n = &x->plan->n;
    int64_t itemsize = x->itemsize->c, rs = x->c.rs;
    int64_t start = nk_tile_start(m, i0), end = nk_tile_start(m, i1);
    int64_t column = nk_tile_start(n, j0), last = nk_min(nk_tile_start(n, j1), end) - 1;
    while (column <= last) {
        /* row i of tiles is computed up to `computed`; so is each row before it, at most */
        int64_t i = nk_tile_of(m, last), computed = nk_tile_start(n, nk_triangle_end(x->plan, i));
        int64_t next = last + 1;
        if (computed > start) {
            i = nk_tile_of(m, column);
            computed = nk_tile_start(n, nk_triangle_end(x->plan, i));
            next = nk_min(nk_tile_start(m, i + 1), next);
        }
        int64_t first = nk_max(computed, start);
        if (first < end)
            x->plan->mirror(end - first, next - column, nk_element(x->c, first, column, itemsize),
                            rs, nk_element(x->c, column, first, itemsize), rs);
        column = next;
    }
}

/* A C of which only one triangle is computed: which tiles touch it, how tiles on the diagonal are stored,
   and the copy of a lower triangle to the upper one. */
#include <string.h>

#include "cache_block.h"

int64_t nk_triangle_begin(const nk_plan *plan, int64_t i)
{
    return plan->triangle == NK_UPPER ? nk_tile_of(&plan->n, nk_tile_start(&plan->m, i)) : 0;
}

int64_t nk_triangle_end(const nk_plan *plan, int64_t i)
{
    if (plan->triangle != NK_LOWER)
        return plan->n.tiles;
    return nk_tile_of(&plan->n, nk_tile_start(&plan->m, i + 1) - 1) + 1;
}

int64_t nk_triangle_first_row(const nk_plan *plan, int64_t j)
{
    return plan->triangle == NK_LOWER ? nk_tile_of(&plan->m, nk_tile_start(&plan->n, j)) : 0;
}

int64_t nk_triangle_row_end(const nk_plan *plan, int64_t j)
{
    if (plan->triangle != NK_UPPER)
        return plan->m.tiles;
    return nk_tile_of(&plan->m, nk_tile_start(&plan->n, j + 1) - 1) + 1;
}

int nk_is_on_diagonal(const nk_plan *plan, int64_t row, int64_t rows, int64_t column,
                      int64_t columns)
{
    if (plan->mirror)
        return 0;
    return plan->triangle == NK_LOWER ? column + columns - 1 > row : column < row + rows - 1;
}

void nk_copy_triangle(const nk_plan *plan, int64_t row, int64_t rows, int64_t column,
                      int64_t columns, nk_matrix source, nk_matrix target, int64_t itemsize)
{
    for (int64_t i = 0; i < rows; i++) {
        int64_t diagonal = row + i - column;
        int64_t first = plan->triangle == NK_UPPER ? nk_max(diagonal, 0) : 0;
        int64_t end = plan->triangle == NK_LOWER ? nk_min(diagonal + 1, columns) : columns;
        if (first >= end)
            continue;
        if (source.cs == 1 && target.cs == 1)
            memcpy(nk_element(target, i, first, itemsize), nk_element(source, i, first, itemsize),
                   (size_t)((end - first) * itemsize));
        else
            for (int64_t j = first; j < end; j++)
                memcpy(nk_element(target, i, j, itemsize), nk_element(source, i, j, itemsize),
                       (size_t)itemsize);
    }
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

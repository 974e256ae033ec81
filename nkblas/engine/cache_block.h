/* A cache block of a product: what the files that walk its tiles share. */
#ifndef NK_CACHE_BLOCK_H
#define NK_CACHE_BLOCK_H

#include "nkblas.h"

/* One cache block: rows of tiles [i0, i1), columns of tiles [j0, j1), k in [p0, p0 + kc); and the
   rectangle that is divided into such blocks: rows [first_i, last_i), columns [first_j, last_j). Of a
   triangle, only the tiles that touch it are computed. */
typedef struct {
    const nk_plan *plan;
    const nk_itemsizes *itemsize;
    nk_matrix a, b, c;
    nk_call_args args;
    int64_t first_i, last_i, first_j, last_j;
    int64_t p0, kc, k_steps;
    int64_t i0, i1, j0, j1;
    char *a_panels, *b_panels, *c_tile, *residual_tile, *partial_sums;
} nk_cache_block;

static inline int64_t nk_tile_length(const nk_tiling *tiling, int64_t tile)
{
    return tile < tiling->main_tiles ? tiling->tile : tiling->edge_tile;
}

/* The tile that contains a row (column). */
static inline int64_t nk_tile_of(const nk_tiling *tiling, int64_t row)
{
    int64_t edge = row - tiling->main_tiles * tiling->tile;
    return edge < 0 ? row / tiling->tile : tiling->main_tiles + edge / tiling->edge_tile;
}

/* Whether the caller has packed all of B. */
static inline int nk_b_is_prepacked(const nk_plan *plan) { return plan->problem.b == NK_PACKED; }

/* panels.c */

/* Bytes of the buffers of the panels, for a rectangle of tiles. */
int64_t nk_a_buffer_size(const nk_plan *plan, int64_t row_tiles);
int64_t nk_b_buffer_size(const nk_plan *plan, int64_t row_tiles, int64_t column_tiles);

int64_t nk_b_panel_size(const nk_plan *plan, int64_t kc);

/* The panels of the rows i, and of the columns j, of tiles. */
char *nk_a_panel(const nk_cache_block *x, int64_t i);
char *nk_b_panel(const nk_cache_block *x, int64_t j);

/* Pack the panel of row i, or those of columns [j, j1). Where groups are packed at once, the first one
   packs those after it. */
void nk_pack_a(const nk_cache_block *x, int64_t i);
void nk_pack_b(const nk_cache_block *x, int64_t j, int64_t j1);

/* triangle.c */

/* The tiles that are computed: of row i the columns [begin, end), of column j the rows [first_row,
   row_end); all of them, unless the plan has a triangle. */
int64_t nk_triangle_begin(const nk_plan *plan, int64_t i);
int64_t nk_triangle_end(const nk_plan *plan, int64_t i);
int64_t nk_triangle_first_row(const nk_plan *plan, int64_t j);
int64_t nk_triangle_row_end(const nk_plan *plan, int64_t j);

/* Of a plan with a triangle: whether a tile has elements outside of it, which must not be stored. */
int nk_is_on_diagonal(const nk_plan *plan, int64_t row, int64_t rows, int64_t column,
                      int64_t columns);

/* Copy the elements of such a tile that are in the triangle. */
void nk_copy_triangle(const nk_plan *plan, int64_t row, int64_t rows, int64_t column,
                      int64_t columns, nk_matrix source, nk_matrix target, int64_t itemsize);

/* Copy the tiles of rows [i0, i1) and columns [j0, j1) to the upper triangle, except for elements that
   tiles on the diagonal have computed there. */
void nk_mirror_tiles(const nk_cache_block *x, int64_t i0, int64_t i1, int64_t j0, int64_t j1);

#endif

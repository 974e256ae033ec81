/* The five loops jc, pc, ic, jr, ir around a microkernel, for a rectangle of C's tiles.

   (Van Zee and van de Geijn, "BLIS: A Framework for Rapidly Instantiating BLAS Functionality", ACM
   TOMS 41, 2015.) */
#include <string.h>

#include "cache_block.h"

/* ---- the tiles that are computed: all of them, or those of a triangle ---- */

/* The tiles of row i in this block, from the first one on. */
static int64_t column_begin(const nk_cache_block *x, int64_t i)
{
    return nk_max(nk_triangle_begin(x->plan, i), x->j0);
}

static int64_t column_end(const nk_cache_block *x, int64_t i)
{
    return nk_min(nk_triangle_end(x->plan, i), x->j1);
}

/* The first of the columns whose panels no tile before row i reads. */
static int64_t first_unpacked(const nk_cache_block *x, int64_t i)
{
    return i == x->first_i ? 0 : nk_triangle_end(x->plan, i - 1);
}

/* The first tile of column j: it packs the panel of B. */
static int64_t first_row(const nk_cache_block *x, int64_t j)
{
    return nk_max(nk_triangle_first_row(x->plan, j), x->first_i);
}

/* The end of the tiles of column j, and of those before it. */
static int64_t row_end(const nk_cache_block *x, int64_t j)
{
    return nk_min(nk_triangle_row_end(x->plan, j), x->last_i);
}

/* Whether tile (i, j) is the first that reads the panel of A of its row. */
static int is_first_of_row(const nk_cache_block *x, int64_t i, int64_t j)
{
    int64_t first = x->plan->keeps_a_panels ? x->first_j : x->j0;
    return j == nk_max(nk_triangle_begin(x->plan, i), first);
}

int64_t nk_k_steps(const nk_plan *plan, int64_t k) { return (k + plan->k_step - 1) / plan->k_step; }

/* ---- the three outer loops: jc, pc, ic ---- */

static void begin_ic(nk_cache_block *x, int64_t i0)
{
    x->i0 = i0;
    x->i1 = nk_min(i0 + x->plan->m.block_tiles, row_end(x, x->j1 - 1));
}

static void begin_pc(nk_cache_block *x, int64_t p0)
{
    x->p0 = p0;
    x->kc = nk_min(x->plan->kc, x->plan->problem.k - p0);
    x->k_steps = nk_k_steps(x->plan, x->kc);
    x->args.is_first_k_block = p0 == 0;
    x->args.is_last_k_block = p0 + x->kc == x->plan->problem.k;
    begin_ic(x, first_row(x, x->j0));
}

static void begin_jc(nk_cache_block *x, int64_t j0)
{
    x->j0 = j0;
    x->j1 = nk_min(j0 + x->plan->n.block_tiles, x->last_j);
    begin_pc(x, 0);
}

/* Advance to the next block; 0: this was the last one. */
static int next_block(nk_cache_block *x)
{
    if (x->i1 < row_end(x, x->j1 - 1))
        begin_ic(x, x->i1);
    else if (x->p0 + x->kc < x->plan->problem.k)
        begin_pc(x, x->p0 + x->kc);
    else if (x->j1 < x->last_j)
        begin_jc(x, x->j1);
    else
        return 0;
    return 1;
}

/* ---- prefetching: the microkernel fetches a cache line in each of its first steps ---- */

enum { LINE = 64 }; /* bytes of a cache line */

/* The cache lines of a part of a matrix: `across` lines in each of `rows` rows, whose distance is
   `stride` bytes. */
typedef struct {
    const char *first;
    int64_t across, rows, stride;
} line_region;

static line_region lines_of(const char *data, int64_t bytes, int64_t rows, int64_t stride)
{
    int64_t before = (int64_t)((uintptr_t)data % LINE);
    return (line_region){data - before, (before + bytes + LINE - 1) / LINE, rows, stride};
}

/* What the tiles of column j read first: their panel of B, and their part of C. */
static void find_next_column(const nk_cache_block *x, int64_t j, line_region next[2])
{
    const nk_plan *plan = x->plan;
    int64_t column = nk_tile_start(&plan->n, j), width = nk_tile_length(&plan->n, j);
    int64_t row = nk_tile_start(&plan->m, x->i0), rows = nk_tile_start(&plan->m, x->i1) - row;
    int64_t b = x->itemsize->b, c = x->itemsize->c;

    if (plan->pack_b && (nk_b_is_prepacked(plan) || first_row(x, j) < x->i0)) {
        int64_t bytes = nk_b_panel_size(plan, x->kc) / x->k_steps;
        next[0] = lines_of(nk_b_panel(x, j), bytes, x->k_steps, bytes);
    } else if (plan->problem.b == NK_ROW) {
        next[0] = lines_of(nk_element(x->b, x->p0, column, b), width * b, x->kc, x->b.rs * b);
    }
    if (x->c.cs == 1)
        next[1] = lines_of(nk_element(x->c, row, column, c), width * c, rows, x->c.rs * c);
}

/* A column-major A's part for a block, which the block's first tiles read or pack: lines that are far
   from each other, so that the CPU does not fetch them ahead. */
static line_region find_columns_of_a(const nk_cache_block *x)
{
    const nk_plan *plan = x->plan;
    int is_read = plan->problem.a == NK_COL && (!plan->keeps_a_panels || x->j0 == x->first_j);
    if (!is_read)
        return (line_region){0};
    int64_t row = nk_tile_start(&plan->m, x->i0), rows = nk_tile_start(&plan->m, x->i1) - row;
    int64_t a = x->itemsize->a;
    return lines_of(nk_element(x->a, row, x->p0, a), rows * a, x->kc, x->a.cs * a);
}

/* Part `part` of `parts` of the lines across a region. */
static line_region part_across(line_region x, int64_t part, int64_t parts)
{
    int64_t first = x.across * part / parts;
    x.first += first * LINE;
    x.across = x.across * (part + 1) / parts - first;
    return x;
}

/* The part of these regions that one tile fetches: a line of each row, or of some of the rows if
   there are more tiles than lines. Tiles count from the last one of the present column. */
static line_region share_of_tile(const line_region *next, int regions, int64_t tile, int64_t tiles)
{
    int64_t across = 0;
    for (int i = 0; i < regions; i++)
        across += next[i].across;
    int64_t per_line = nk_max(tiles / nk_max(across, 1), 1);
    int64_t line = tile / per_line, part = tile % per_line;
    for (int i = 0; i < regions; line -= next[i++].across)
        if (line < next[i].across) {
            int64_t rows = (next[i].rows + per_line - 1) / per_line, row = part * rows;
            const char *first = next[i].first + line * LINE + row * next[i].stride;
            rows = nk_max(nk_min(rows, next[i].rows - row), 0);
            return (line_region){first, 1, rows, next[i].stride};
        }
    return (line_region){0};
}

/* The rows of A that the tiles of row i read in place, or pack. Kernels on tile registers fetch in any
   case: an address near zero would be looked up in the page tables again and again. */
static line_region find_next_row(const nk_cache_block *x, int64_t i)
{
    const nk_plan *plan = x->plan;
    int64_t a = x->itemsize->a;
    if (i >= x->i1 || plan->problem.a != NK_ROW)
        return (line_region){.first = x->a.data};
    char *first = nk_element(x->a, nk_tile_start(&plan->m, i), x->p0, a);
    return lines_of(first, x->kc * a, nk_tile_length(&plan->m, i), x->a.rs * a);
}

/* ---- one tile ---- */

/* A tile: rows and columns of C, and the operands that its microkernel reads. */
typedef struct {
    int64_t row, rows, column, columns;
    const char *a, *b;
    int64_t lda, ldb;
    char *b_panel;
    nk_microkernel microkernel; /* NULL: there is none for an edge tile of this shape */
} tile;

/* Tile (i, j), or the tiles from column j up to j1 as one. The first tile that reads a panel packs
   it, so that the panel is in the cache for that tile: those of columns from `unpacked` on. */
static tile prepare_tile(const nk_cache_block *x, int64_t i, int64_t j, int64_t j1,
                         int64_t unpacked)
{
    const nk_plan *plan = x->plan;
    tile t = {.row = nk_tile_start(&plan->m, i), .rows = nk_tile_length(&plan->m, i)};
    t.column = nk_tile_start(&plan->n, j);
    t.columns = nk_tile_start(&plan->n, j1) - t.column;

    int edge_row = i >= plan->m.main_tiles, edge_column = j >= plan->n.main_tiles;
    t.microkernel = plan->microkernel[edge_row][edge_column];

    t.a = nk_element(x->a, t.row, x->p0, x->itemsize->a);
    t.lda = nk_leading_dimension(x->a, plan->problem.a);
    if (plan->pack_a) {
        if (is_first_of_row(x, i, j))
            nk_pack_a(x, i);
        t.a = nk_a_panel(x, i);
        t.lda = plan->m.tile;
    }
    t.b = nk_element(x->b, x->p0, t.column, x->itemsize->b);
    t.ldb = nk_leading_dimension(x->b, plan->problem.b);
    if (plan->pack_b) {
        t.b_panel = nk_b_panel(x, j);
        int packs = unpacked < j1 && !nk_b_is_prepacked(plan);
        if (packs && plan->packing_microkernel && !edge_row && !edge_column) {
            t.microkernel = plan->packing_microkernel;
        } else {
            if (packs && plan->b_panels_along_k)
                plan->copy(t.columns, x->kc, t.b, x->b.cs, x->b.rs, t.b_panel, x->kc, 1);
            else if (packs)
                nk_pack_b(x, nk_max(unpacked, j), j1);
            t.b = t.b_panel;
            t.ldb = plan->b_panels_along_k ? x->kc : plan->n.tile;
        }
    }
    return t;
}

/* Whether the call's arguments differ from tile to tile. */
static int has_tile_args(const nk_cache_block *x)
{
    return x->plan->partial_sum_itemsize || x->args.bias || x->args.scales || x->args.residual;
}

/* The call's arguments as they are for tile (i, j). */
static nk_call_args args_of_tile(const nk_cache_block *x, const tile *t, int64_t i, int64_t j)
{
    const nk_plan *plan = x->plan;
    nk_call_args args = x->args;
    if (plan->partial_sum_itemsize) {
        int64_t columns = nk_min(plan->n.block_tiles, x->last_j - x->j0);
        int64_t tiles_before = (i - x->first_i) * columns + j - x->j0;
        int64_t tile_size = plan->m.tile * plan->n.tile * plan->partial_sum_itemsize;
        args.partial_sums = x->partial_sums + tiles_before * tile_size;
    }
    if (args.bias) {
        int64_t first = args.fused & NK_BIAS_ROWS ? t->row : t->column;
        args.bias += first * plan->accumulator_itemsize;
    }
    if (args.scales)
        args.scales += t->column * (int64_t)sizeof(float);
    if (args.residual)
        args.residual += (t->row * args.ldr + t->column) * x->itemsize->c;
    return args;
}

/* Copy a tile from C to a buffer, or back. */
static void copy_tile(const nk_plan *plan, const tile *t, int is_on_diagonal, nk_matrix source,
                      nk_matrix target, int64_t itemsize)
{
    if (is_on_diagonal)
        nk_copy_triangle(plan, t->row, t->rows, t->column, t->columns, source, target, itemsize);
    else
        plan->copy(t->rows, t->columns, source.data, source.rs, source.cs, target.data, target.rs,
                   target.cs);
}

/* Compute tile (i, j), or the tiles from column j up to j1 as one, and fetch a region meanwhile. */
static void run_tile(const nk_cache_block *x, int64_t i, int64_t j, int64_t j1, int64_t unpacked,
                     line_region fetched)
{
    const nk_plan *plan = x->plan;
    int64_t itemsize = x->itemsize->c, k = x->k_steps, lines = nk_min(fetched.rows, k);
    tile t = prepare_tile(x, i, j, j1, unpacked);
    nk_call_args own_args;
    const nk_call_args *args = &x->args;
    if (has_tile_args(x)) {
        own_args = args_of_tile(x, &t, i, j);
        args = &own_args;
    }

    /* A kernel with alpha and beta applies beta itself in the first block of k. */
    int has_sums_in_c = x->p0 > 0 && !plan->partial_sum_itemsize;
    int reads_c = has_sums_in_c || args->beta != 0 || args->beta_imag != 0;
    int accumulate = (plan->problem.epilogue & NK_KIND) == NK_SCALE ? has_sums_in_c : reads_c;

    char *c = nk_element(x->c, t.row, t.column, itemsize);
    int is_on_diagonal = plan->triangle &&
                         nk_is_on_diagonal(plan, t.row, t.rows, t.column, t.columns);
    if (t.microkernel && x->c.cs == 1 && !is_on_diagonal) {
        t.microkernel(k, t.a, t.lda, t.b, t.ldb, c, x->c.rs, t.columns, accumulate, t.b_panel,
                      fetched.first, fetched.stride, lines, args);
        return;
    }
    /* Through a buffer: a row-major tile of the size that the main microkernel computes. */
    nk_microkernel microkernel = t.microkernel ? t.microkernel : plan->microkernel[0][0];
    int64_t ldc = t.columns > plan->n.tile ? t.columns : plan->n.tile;
    nk_matrix source = {c, x->c.rs, x->c.cs, 0}, buffer = {x->c_tile, ldc, 1, 0};
    if (reads_c) {
        memset(x->c_tile, 0, (size_t)(plan->m.tile * ldc * itemsize));
        copy_tile(plan, &t, is_on_diagonal, source, buffer, itemsize);
    }
    if (args->residual) {
        memset(x->residual_tile, 0, (size_t)(plan->m.tile * ldc * itemsize));
        plan->copy(t.rows, t.columns, args->residual, args->ldr, 1, x->residual_tile, ldc, 1);
        own_args.residual = x->residual_tile;
        own_args.ldr = ldc;
    }
    microkernel(k, t.a, t.lda, t.b, t.ldb, x->c_tile, ldc, t.columns, accumulate, t.b_panel,
                fetched.first, fetched.stride, lines, args);
    if (!plan->partial_sum_itemsize || args->is_last_k_block)
        copy_tile(plan, &t, is_on_diagonal, buffer, source, itemsize);
}

/* ---- the two inner loops: jr and ir ---- */

/* The rows of tiles that are mirrored at once: whole cache lines of the upper triangle. */
enum { MIRRORED_ROWS = 8 };

static void run_rows(const nk_cache_block *x, int is_mirrored)
{
    int64_t mirrored = x->i0;
    for (int64_t i = x->i0; i < x->i1; i++) {
        int64_t begin = column_begin(x, i), end = column_end(x, i);
        int64_t unpacked = first_unpacked(x, i);
        if (x->plan->spans_columns)
            run_tile(x, i, x->j0, end, unpacked, find_next_row(x, i + 1));
        else
            for (int64_t j = begin; j < end; j++)
                run_tile(x, i, j, j + 1, unpacked, (line_region){0});
        if (is_mirrored && (i + 1 == x->i1 || i + 1 - mirrored == MIRRORED_ROWS)) {
            nk_mirror_tiles(x, mirrored, i + 1, x->j0, end);
            mirrored = i + 1;
        }
    }
}

static void run_columns(const nk_cache_block *x, int is_mirrored)
{
    nk_cache_block after = *x;
    int has_next = next_block(&after);
    line_region columns_of_a = has_next ? find_columns_of_a(&after) : (line_region){0};
    for (int64_t j = column_begin(x, x->i0); j < column_end(x, x->i1 - 1); j++) {
        line_region next[3] = {{0}, {0}, part_across(columns_of_a, j - x->j0, x->j1 - x->j0)};
        if (j + 1 < x->j1)
            find_next_column(x, j + 1, next);
        else if (has_next)
            find_next_column(&after, after.j0, next);
        int64_t packing_row = first_row(x, j), start = nk_max(packing_row, x->i0);
        int64_t end = nk_min(row_end(x, j), x->i1);
        /* The first block of rows reads B from afar: all of its tiles share the fetches evenly, or
           loads would wait behind them. Later blocks fetch B and C late, for L1, and A before. */
        int64_t tiles = end - start, lines = next[0].across + next[1].across;
        int64_t late_tiles = nk_min(lines, nk_max(tiles - next[2].across, 1));
        for (int64_t i = start; i < end; i++) {
            int64_t unpacked = i == packing_row ? j : j + 1, left = end - 1 - i;
            line_region fetched;
            if (start == packing_row)
                fetched = share_of_tile(next, 3, left, tiles);
            else if (left < late_tiles)
                fetched = share_of_tile(next, 2, left, 1);
            else
                fetched = share_of_tile(next + 2, 1, left - late_tiles, tiles - late_tiles);
            run_tile(x, i, j, j + 1, unpacked, fetched);
        }
        if (is_mirrored)
            nk_mirror_tiles(x, start, end, j, j + 1);
    }
}

static void run_block(const nk_cache_block *x)
{
    int is_mirrored = x->plan->mirror && x->args.is_last_k_block;
    if (x->plan->spans_columns || x->plan->ir_outside)
        run_rows(x, is_mirrored);
    else
        run_columns(x, is_mirrored);
}

/* The buffers of a rectangle of tiles; 0: out of memory. */
static int allocate_buffers(nk_cache_block *x, int64_t row_tiles, int64_t column_tiles)
{
    const nk_plan *plan = x->plan;
    const nk_tiling *m = &plan->m, *n = &plan->n;
    int64_t partial_sum = plan->kc < plan->problem.k ? plan->partial_sum_itemsize : 0;
    int has_c_tile = plan->copy || (plan->triangle && !plan->mirror);
    if (!plan->pack_a && !plan->pack_b && !has_c_tile && !partial_sum)
        return 1;

    int64_t columns = nk_min(n->block_tiles, column_tiles);
    int64_t tile_elements = m->tile * n->tile;
    int64_t c_size = (plan->spans_columns ? columns : 1) * tile_elements * x->itemsize->c;
    int64_t sizes[] = {
        nk_a_buffer_size(plan, row_tiles),
        nk_b_buffer_size(plan, row_tiles, column_tiles),
        c_size,
        x->args.residual ? c_size : 0,
        row_tiles * columns * tile_elements * partial_sum,
    };
    char *buffers[5];
    if (!nk_packing_buffers(sizes, buffers, 5))
        return 0;
    x->a_panels = buffers[0];
    x->b_panels = buffers[1];
    x->c_tile = buffers[2];
    x->residual_tile = buffers[3];
    x->partial_sums = buffers[4];
    return 1;
}

/* The cache blocks of a rectangle of tiles, for all of k; 0: out of memory. */
static int run_blocks(const nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c, nk_call_args args,
                      int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    nk_cache_block x = {
        .plan = plan,
        .itemsize = nk_itemsizes_of(plan->problem.dtype),
        .a = a,
        .b = b,
        .c = c,
        .args = args,
        .first_i = i0,
        .last_i = i1,
        .first_j = nk_max(nk_triangle_begin(plan, i0), j0),
        .last_j = nk_min(nk_triangle_end(plan, i1 - 1), j1),
    };
    if (!allocate_buffers(&x, i1 - i0, j1 - j0))
        return 0;
    begin_jc(&x, x.first_j);
    do
        run_block(&x);
    while (next_block(&x));
    return 1;
}

int nk_run_tiles(const nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c, nk_call_args args,
                 int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    if (args.block_count == 0)
        return run_blocks(plan, a, b, c, args, i0, i1, j0, j1);
    /* Batch-reduce: blocks_per_pass products are added up in registers, the passes in C. */
    for (int64_t left = args.block_count; left > 0; left -= plan->blocks_per_pass) {
        args.block_count = nk_min(left, plan->blocks_per_pass);
        a.data = (char *)args.a_blocks[0];
        b.data = (char *)args.b_blocks[0];
        if (!run_blocks(plan, a, b, c, args, i0, i1, j0, j1))
            return 0;
        args.a_blocks += plan->blocks_per_pass;
        args.b_blocks += plan->blocks_per_pass;
        args.beta = 1;
        args.beta_imag = 0;
    }
    return 1;
}

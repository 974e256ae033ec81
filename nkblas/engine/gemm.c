/* The five loops jc, pc, ic, jr, ir around a microkernel. */
#include <string.h>

#include "nkblas.h"

static const nk_sizes sizes[NK_DTYPES] = {
    [NK_FLOAT32] = {4, 4, 4},
    [NK_FLOAT64] = {8, 8, 8},
    [NK_COMPLEX64] = {8, 8, 8},
    [NK_COMPLEX128] = {16, 16, 16},
    [NK_FLOAT16] = {2, 2, 2},
    [NK_BFLOAT16] = {2, 2, 2},
    [NK_BOOL] = {1, 1, 1},
    [NK_INT8] = {1, 1, 1},
    [NK_INT16] = {2, 2, 2},
    [NK_INT32] = {4, 4, 4},
    [NK_INT64] = {8, 8, 8},
    [NK_FLOAT16_FLOAT32] = {2, 2, 4},
    [NK_BFLOAT16_FLOAT32] = {2, 2, 4},
    [NK_INT8_INT32] = {1, 1, 4},
    [NK_UINT8_INT32] = {1, 1, 4},
    [NK_UINT8_INT8_INT32] = {1, 1, 4},
    [NK_INT8_UINT8_INT32] = {1, 1, 4},
    [NK_FLOAT8_FLOAT32 ... NK_QUANTIZED - 1] = {1, 1, 4},
    [NK_QUANTIZED ... NK_QUANTIZED + 3] = {1, 1, 4},
    [NK_QUANTIZED + 4 ... NK_DTYPES - 1] = {1, 1, 1},
};

const nk_sizes *nk_sizes_of(int32_t dtype) { return &sizes[dtype]; }

int (*nk_ask)(const nk_problem *problem);

const nk_scale nk_once = {.alpha = 1, .turn = 1, .sign = 1};

static nk_counters counters;

nk_counters *nk_counts(void) { return &counters; }

static int64_t offset(const nk_cut *cut, int64_t tile)
{
    int64_t whole = tile < cut->full ? tile : cut->full;
    return whole * cut->size + (tile - whole) * cut->rest;
}

static int64_t length(const nk_cut *cut, int64_t tile)
{
    return tile < cut->full ? cut->size : cut->rest;
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static char *at(nk_matrix x, int64_t i, int64_t j, int64_t itemsize)
{
    return x.data + (i * x.rs + j * x.cs) * itemsize;
}

/* One cache block: rows of tiles [i0, i1), columns of tiles [j0, j1), k in [p0, p0 + kc). It is one
   of those of the rows [first_i, last_i) and columns up to last_j. */
typedef struct {
    const nk_plan *plan;
    const nk_sizes *size;
    nk_matrix a, b, c;
    nk_scale scale;
    int64_t first_i, last_i, last_j;
    int64_t p0, kc, steps; /* k of the microkernel: steps of its family */
    int64_t i0, i1, j0, j1;
    int fresh_b; /* B's panels of this block are not packed yet */
    char *a_panels, *b_panels, *c_tile, *r_tile, *partial;
} block;

/* Steps of the microkernel for so many values of k; panels hold whole ones. */
static int64_t whole_steps(const nk_plan *plan, int64_t kc)
{
    return (kc + plan->step - 1) / plan->step;
}

/* Whether the caller has packed all of B. */
static int is_prepacked(const nk_plan *plan) { return plan->problem.b == NK_PACKED; }

/* The three outer loops: jc, pc, ic. */
static void set_rows(block *x, int64_t i0)
{
    x->i0 = i0;
    x->i1 = smaller(i0 + x->plan->m.block, x->last_i);
    x->fresh_b = i0 == x->first_i && !is_prepacked(x->plan);
}

static void set_depth(block *x, int64_t p0)
{
    x->p0 = p0;
    x->kc = smaller(x->plan->kc, x->plan->problem.k - p0);
    x->steps = whole_steps(x->plan, x->kc);
    set_rows(x, x->first_i);
}

static void set_columns(block *x, int64_t j0)
{
    x->j0 = j0;
    x->j1 = smaller(j0 + x->plan->n.block, x->last_j);
    set_depth(x, 0);
}

/* Go on to the next block; 0: there is none. */
static int advance(block *x)
{
    if (x->i1 < x->last_i)
        set_rows(x, x->i1);
    else if (x->p0 + x->kc < x->plan->problem.k)
        set_depth(x, x->p0 + x->kc);
    else if (x->j1 < x->last_j)
        set_columns(x, x->j1);
    else
        return 0;
    return 1;
}

/* The stride that is not 1. */
static int64_t leading(nk_matrix x, int8_t layout)
{
    return layout == NK_ROW ? x.rs : x.cs;
}

/* Whether no block of rows comes back to B's panels. Then they all take the same place, which stays
   in the cache. */
static int panels_serve_once(const nk_plan *plan, int64_t row_tiles)
{
    return !plan->ir_outside && row_tiles <= plan->m.block;
}

static int64_t a_panel_size(const nk_plan *plan, int64_t kc)
{
    return plan->m.size * whole_steps(plan, kc) * plan->step * plan->panel_a;
}

static int64_t b_panel_size(const nk_plan *plan, int64_t kc)
{
    return plan->n.size * (whole_steps(plan, kc) * plan->step * plan->panel_b + plan->top_b);
}

/* B's panel of column j; in a B that was packed before, all columns of a block of k come before those
   of the next block. */
static char *b_panel(const block *x, int64_t j)
{
    if (is_prepacked(x->plan)) {
        int64_t before = x->p0 / x->plan->kc * x->plan->n.tiles;
        return x->b.data + before * b_panel_size(x->plan, x->plan->kc) +
               j * b_panel_size(x->plan, x->kc);
    }
    int64_t place = panels_serve_once(x->plan, x->last_i - x->first_i) ? 0 : j - x->j0;
    return x->b_panels + place * b_panel_size(x->plan, x->kc);
}

enum { LINE = 64 }; /* bytes of a cache line */

/* The cache lines of a part of a matrix: so many across in each of its rows, so many bytes apart. */
typedef struct {
    const char *first;
    int64_t across, rows, apart;
} region;

static region lines_of(const char *data, int64_t bytes, int64_t rows, int64_t apart)
{
    int64_t before = (int64_t)((uintptr_t)data % LINE);
    return (region){data - before, (before + bytes + LINE - 1) / LINE, rows, apart};
}

/* What the tiles of column j read first: their panel of B, and their part of C. */
static void look_ahead(const block *x, int64_t j, region next[2])
{
    const nk_plan *plan = x->plan;
    int64_t column = offset(&plan->n, j), width = length(&plan->n, j);
    int64_t row = offset(&plan->m, x->i0), rows = offset(&plan->m, x->i1) - row;
    int64_t b = x->size->b, c = x->size->c;

    if (plan->pack_b && !x->fresh_b) {
        int64_t size = b_panel_size(plan, x->kc) / x->steps;
        next[0] = lines_of(b_panel(x, j), size, x->steps, size);
    } else if (plan->problem.b == NK_ROW) {
        next[0] = lines_of(at(x->b, x->p0, column, b), width * b, x->kc, x->b.rs * b);
    }
    if (x->c.cs == 1)
        next[1] = lines_of(at(x->c, row, column, c), width * c, rows, x->c.rs * c);
}

/* What one tile fetches of it, counting tiles from the last: a line of each row. */
static region share(const region next[2], int64_t tile)
{
    for (int i = 0; i < 2; tile -= next[i++].across)
        if (tile < next[i].across)
            return (region){next[i].first + tile * LINE, 1, next[i].rows, next[i].apart};
    return (region){0};
}

/* The rows of A in place that the tiles of row i read. */
static region rows_ahead(const block *x, int64_t i)
{
    const nk_plan *plan = x->plan;
    int64_t a = x->size->a;
    if (i >= x->i1 || plan->pack_a || plan->problem.a != NK_ROW)
        return (region){0};
    return lines_of(at(x->a, offset(&plan->m, i), x->p0, a), x->kc * a, length(&plan->m, i),
                    x->a.rs * a);
}

/* Pack the panels [j, j1) of B. */
static void pack_b(const block *x, int64_t j, int64_t j1)
{
    const nk_cut *n = &x->plan->n;
    for (; j < j1; j++)
        x->plan->packs[1](length(n, j), x->kc, at(x->b, x->p0, offset(n, j), x->size->b), x->b.cs,
                          x->b.rs, b_panel(x, j));
}

/* The tile in row i and column j, or those up to column j1 as one. A panel is packed by the first
   tile that reads it, so that it is in the cache for that one. */
static void run_tile(const block *x, int64_t i, int64_t j, int64_t j1, region fetched)
{
    const nk_plan *plan = x->plan;
    int64_t size = x->size->c;
    int64_t row = offset(&plan->m, i), rows = length(&plan->m, i);
    int64_t column = offset(&plan->n, j), columns = offset(&plan->n, j1) - column;

    int rest_row = i >= plan->m.full, rest_column = j >= plan->n.full;
    if (rest_column && plan->redo_columns) {
        column -= plan->n.size - columns;
        columns = plan->n.size;
        rest_column = 0;
    }
    nk_microkernel microkernel = plan->microkernel[rest_row][rest_column];

    const char *a = at(x->a, row, x->p0, x->size->a);
    int64_t lda = leading(x->a, plan->problem.a);
    if (plan->pack_a) {
        char *panel = x->a_panels + (i - x->i0) * a_panel_size(plan, x->kc);
        if (j == x->j0)
            plan->packs[0](rows, x->kc, a, x->a.rs, x->a.cs, panel);
        a = panel;
        lda = plan->m.size;
    }
    const char *b = at(x->b, x->p0, column, x->size->b);
    int64_t ldb = leading(x->b, plan->problem.b);
    char *b_packed = NULL;
    if (plan->pack_b) {
        b_packed = b_panel(x, j);
        int fresh = x->fresh_b && i == x->i0;
        if (fresh && plan->packing && !rest_row && !rest_column) {
            microkernel = plan->packing;
        } else {
            if (fresh && plan->b_along_k)
                plan->copy(columns, x->kc, b, x->b.cs, x->b.rs, b_packed, x->kc, 1);
            else if (fresh)
                pack_b(x, j, j1);
            b = b_packed;
            ldb = plan->b_along_k ? x->kc : plan->n.size;
        }
    }
    int64_t steps = x->steps, lines = smaller(fetched.rows, steps);
    nk_scale scale = x->scale;
    int in_c = x->p0 > 0 && !plan->sum; /* what other blocks of k gave */
    scale.first = x->p0 == 0;
    scale.last = x->p0 + x->kc == plan->problem.k;
    if (plan->sum) {
        int64_t tiles = smaller(plan->n.block, x->last_j - x->j0);
        int64_t tile = (i - x->first_i) * tiles + j - x->j0;
        scale.partial = x->partial + tile * plan->m.size * plan->n.size * plan->sum;
    }
    if (scale.bias)
        scale.bias += (scale.fused & NK_BIAS_OF_ROWS ? row : column) * plan->held;
    if (scale.scales)
        scale.scales += column * (int64_t)sizeof(float);
    if (scale.residual)
        scale.residual += (row * scale.ldr + column) * size;
    /* A kernel that scales does by itself what is to be done with C before the first block of k. */
    int scales = (plan->problem.epilogue & NK_KIND) == NK_SCALE;
    int reads_c = in_c || scale.beta != 0 || scale.beta_i != 0;
    int accumulate = scales ? in_c : reads_c;

    char *c = at(x->c, row, column, size);
    if (microkernel && x->c.cs == 1) {
        microkernel(steps, a, lda, b, ldb, c, x->c.rs, columns, accumulate, b_packed,
                    fetched.first, fetched.apart, lines, &scale);
        return;
    }
    /* By way of a tile of its own, with rows, and as large as the microkernel takes it to be. */
    int64_t ldc = columns > plan->n.size ? columns : plan->n.size;
    if (!microkernel)
        microkernel = plan->microkernel[0][0];
    if (reads_c) {
        memset(x->c_tile, 0, (size_t)(plan->m.size * ldc * size));
        plan->copy(rows, columns, c, x->c.rs, x->c.cs, x->c_tile, ldc, 1);
    }
    if (scale.residual) {
        memset(x->r_tile, 0, (size_t)(plan->m.size * ldc * size));
        plan->copy(rows, columns, scale.residual, scale.ldr, 1, x->r_tile, ldc, 1);
        scale.residual = x->r_tile, scale.ldr = ldc;
    }
    microkernel(steps, a, lda, b, ldb, x->c_tile, ldc, columns, accumulate, b_packed,
                fetched.first, fetched.apart, lines, &scale);
    if (!plan->sum || scale.last)
        plan->copy(rows, columns, x->c_tile, ldc, 1, c, x->c.rs, x->c.cs);
}

static void run_block(const block *x)
{
    if (x->plan->whole_rows) {
        for (int64_t i = x->i0; i < x->i1; i++)
            run_tile(x, i, x->j0, x->j1, rows_ahead(x, i + 1));
        return;
    }
    if (x->plan->ir_outside) {
        for (int64_t i = x->i0; i < x->i1; i++)
            for (int64_t j = x->j0; j < x->j1; j++)
                run_tile(x, i, j, j + 1, (region){0});
        return;
    }
    block after = *x;
    int more = advance(&after);
    for (int64_t j = x->j0; j < x->j1; j++) {
        region next[2] = {0};
        if (j + 1 < x->j1)
            look_ahead(x, j + 1, next);
        else if (more)
            look_ahead(&after, after.j0, next);
        for (int64_t i = x->i0; i < x->i1; i++)
            run_tile(x, i, j, j + 1, share(next, x->i1 - 1 - i));
    }
}

/* The tiles [i0, i1) x [j0, j1) of C, for the whole of k; 0: no memory. */
static int run_tiles(const nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c, nk_scale scale,
                     int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    const nk_cut *m = &plan->m, *n = &plan->n;
    const nk_sizes *size = nk_sizes_of(plan->problem.dtype);
    block x = {plan, size, a, b, c, scale, .first_i = i0, .last_i = i1, .last_j = j1};
    int64_t sum = plan->kc < plan->problem.k ? plan->sum : 0;

    if (plan->pack_a || plan->pack_b || plan->copy || sum) {
        int64_t a_tiles = plan->pack_a ? smaller(m->block, i1 - i0) : 0;
        int64_t b_tiles = plan->pack_b && !is_prepacked(plan) ? smaller(n->block, j1 - j0) : 0;
        if (b_tiles && panels_serve_once(plan, i1 - i0))
            b_tiles = 1;
        int64_t c_tiles = plan->whole_rows ? smaller(n->block, j1 - j0) : 1;
        int64_t c_size = m->size * c_tiles * n->size * size->c;
        int64_t sums = (i1 - i0) * smaller(n->block, j1 - j0) * m->size * n->size * sum;
        int64_t sizes[] = {a_tiles * a_panel_size(plan, plan->kc),
                           b_tiles * b_panel_size(plan, plan->kc), c_size,
                           scale.residual ? c_size : 0, sums};
        char *parts[5];
        if (!nk_buffers(sizes, parts, 5))
            return 0;
        x.a_panels = parts[0], x.b_panels = parts[1];
        x.c_tile = parts[2], x.r_tile = parts[3], x.partial = parts[4];
    }
    set_columns(&x, j0);
    do
        run_block(&x);
    while (advance(&x));
    return 1;
}

/* The same for a sum of products, of which so many at a time are done together; C adds up the rest. */
static int run_sum(const nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c, nk_scale scale,
                   int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    for (int64_t left = scale.blocks; left > 0; left -= plan->together) {
        scale.blocks = smaller(left, plan->together);
        a.data = (char *)scale.a_blocks[0], b.data = (char *)scale.b_blocks[0];
        if (!run_tiles(plan, a, b, c, scale, i0, i1, j0, j1))
            return 0;
        scale.a_blocks += plan->together, scale.b_blocks += plan->together;
        scale.beta = 1, scale.beta_i = 0;
    }
    return 1;
}

/* What threads share: a stack of products, each of them cut into a grid of chunks. k is never
   cut, and a tile is done in the same way in whatever chunk it is: the bits are always the same. */
typedef struct {
    const nk_plan *plan;
    nk_matrix a, b, c;
    nk_steps steps;
    nk_scale scale;
    int64_t count;               /* products */
    int64_t parts, rows, columns; /* of the stack, of m and n: one of them all, or one of parts */
    int out_of_memory;
} job;

static nk_matrix moved(nk_matrix x, int64_t elements, int64_t itemsize)
{
    x.data += elements * itemsize;
    return x;
}

/* Whether rows (columns, if it has these) of an m x n matrix follow each other without a gap. */
static int is_dense(nk_matrix x, int8_t layout, int64_t m, int64_t n)
{
    return layout == NK_ROW ? m == 1 || x.rs == n : n == 1 || x.cs == m;
}

static int are_dense(const nk_problem *p, nk_matrix a, nk_matrix b, nk_matrix c)
{
    return is_dense(a, p->a, p->m, p->k) && is_dense(b, p->b, p->k, p->n) &&
           is_dense(c, p->c, p->m, p->n);
}

/* The microkernel that does a whole product in one call, if there is one. */
static nk_microkernel only_tile(const nk_plan *plan, nk_matrix c)
{
    if (plan->m.tiles > 1 || plan->n.tiles > 1 || plan->kc < plan->problem.k || plan->pack_a ||
        plan->pack_b || c.cs != 1 || plan->sum)
        return NULL;
    return plan->microkernel[!plan->m.full][!plan->n.full];
}

static void run_chunk(void *argument, int64_t chunk)
{
    job *x = argument;
    const nk_plan *plan = x->plan;
    const nk_sizes *size = nk_sizes_of(plan->problem.dtype);
    int64_t part = chunk / (x->rows * x->columns);
    int64_t row = chunk % x->rows, column = chunk / x->rows % x->columns;
    int64_t first = x->count * part / x->parts, last = x->count * (part + 1) / x->parts;
    nk_matrix a = moved(x->a, first * x->steps.a, size->a);
    nk_matrix b = moved(x->b, first * x->steps.b, size->b);
    nk_matrix c = moved(x->c, first * x->steps.c, size->c);

    if (plan->small && are_dense(&plan->problem, a, b, c)) {
        plan->small(last - first, a.data, x->steps.a, b.data, x->steps.b, c.data, x->steps.c);
        return;
    }
    int64_t m = plan->m.tiles, n = plan->n.tiles;
    nk_microkernel tile = only_tile(plan, c);
    for (int64_t i = first; i < last; i++) {
        if (tile)
            tile(whole_steps(plan, plan->problem.k), a.data, leading(a, plan->problem.a), b.data,
                 leading(b, plan->problem.b), c.data, c.rs, plan->problem.n,
                 (plan->problem.epilogue & NK_KIND) == NK_ADD, NULL, NULL, 0, 0, &x->scale);
        else if (!(x->scale.blocks ? run_sum : run_tiles)(
                     plan, a, b, c, x->scale, m * row / x->rows, m * (row + 1) / x->rows,
                     n * column / x->columns, n * (column + 1) / x->columns))
            __atomic_store_n(&x->out_of_memory, 1, __ATOMIC_RELAXED);
        a = moved(a, x->steps.a, size->a);
        b = moved(b, x->steps.b, size->b);
        c = moved(c, x->steps.c, size->c);
    }
}

/* Nanoseconds that are worth another thread, and a chunk of their own. There are more chunks than
   threads, so that one that is held up leaves some to the others; but not where operands are read
   once: then each thread finds what it had the last time, in one piece. */
enum { WORTH_A_THREAD = 5000, WORTH_A_CHUNK = 100000, HALVINGS = 3 };

/* Columns (rows) of the largest of `parts` parts of a cut. */
static double widest(const nk_cut *cut, int64_t parts)
{
    return (double)((cut->tiles + parts - 1) / parts * cut->size);
}

/* Cut C into a grid of at most so many chunks: the one whose largest chunk takes the least, with
   what it has to bring in. (For A that is dear: threads that read the same rows at the same time
   take them from each other.) */
static void cut_grid(job *x, int64_t chunks)
{
    enum { FROM_A = 40, FROM_B = 4 }; /* of an element, in multiply-adds */
    const nk_plan *plan = x->plan;
    double least = 0;
    for (int64_t rows = 1; rows <= smaller(chunks, plan->m.tiles); rows++) {
        int64_t columns = smaller(chunks / rows, plan->n.tiles);
        double r = widest(&plan->m, rows), c = widest(&plan->n, columns);
        double cost = r * c + FROM_A * r + FROM_B * c;
        if (rows == 1 || cost < least) {
            least = cost;
            x->rows = rows, x->columns = columns;
        }
    }
}

/* Cut each chunk in two, along its longer side; if it is products, into fewer of them. */
static void halve(job *x, int by_product)
{
    const nk_cut *m = &x->plan->m, *n = &x->plan->n;
    if (!by_product)
        x->parts = smaller(2 * x->parts, x->count);
    else if (widest(m, x->rows) > widest(n, x->columns))
        x->rows = smaller(2 * x->rows, m->tiles);
    else
        x->columns = smaller(2 * x->columns, n->tiles);
}

int32_t nk_worth_threads(double nanoseconds, int32_t most)
{
    double worth = nanoseconds / WORTH_A_THREAD;
    return worth < 1 ? 1 : most > worth ? (int32_t)worth : most;
}

int64_t nk_run(const nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c, int64_t count,
               nk_steps steps, nk_scale scale, int32_t threads)
{
    job x = {plan, a, b, c, steps, scale, count, .parts = 1, .rows = 1, .columns = 1};
    double once = plan->nanoseconds * (double)(scale.blocks > 0 ? scale.blocks : 1);
    double work = once * (double)count;

    threads = nk_worth_threads(work, threads);
    if (threads < 2) {
        run_chunk(&x, 0);
        return x.out_of_memory ? 0 : count;
    }
    int32_t pieces = nk_worth_threads(once, threads);
    int by_product = !plan->small && pieces > 1 && count < 4 * threads;
    x.parts = by_product ? count : smaller(threads, count);
    if (by_product)
        cut_grid(&x, pieces);
    double chunk = by_product ? once / pieces : work / threads;
    int halvings = plan->reads_once ? 0 : HALVINGS;
    for (int i = 0; i < halvings && chunk > 2 * WORTH_A_CHUNK; i++, chunk /= 2)
        halve(&x, by_product);
    nk_parallel(threads, work, x.parts * x.rows * x.columns, run_chunk, &x);
    return x.out_of_memory ? 0 : count;
}

static void fill_zeros(int64_t m, int64_t n, nk_matrix c, int64_t size)
{
    for (int64_t i = 0; i < m; i++) {
        if (c.cs == 1)
            memset(at(c, i, 0, size), 0, (size_t)(n * size));
        else
            for (int64_t j = 0; j < n; j++)
                memset(at(c, i, j, size), 0, (size_t)size);
    }
}

static nk_matrix transposed(nk_matrix x)
{
    return (nk_matrix){x.data, x.cs, x.rs, x.packed};
}

/* The layout of an m x n operand. The stride of a dimension of length 1 means nothing: it becomes
   one that makes a layout. */
static nk_layout layout(nk_matrix *x, int64_t m, int64_t n)
{
    if (n == 1)
        x->cs = 1;
    if (x->cs == 1)
        return NK_ROW;
    if (m == 1)
        x->rs = 1;
    return x->rs == 1 ? NK_COL : NK_STRIDED;
}

/* C.T = B.T @ A.T: so a C with columns gets rows, and a vector is always a row. */
static int is_turned(int64_t m, int64_t n, nk_matrix b, nk_matrix c)
{
    int columns = n == 1 || (c.cs != 1 && c.rs == 1);
    return m > 1 && columns && !b.packed;
}

/* The type of products whose operands change sides. */
static int32_t swapped(int32_t dtype)
{
    int32_t place = dtype >= NK_QUANTIZED ? (dtype - NK_QUANTIZED) % 4 : dtype - NK_INT8_INT32;
    return place == 2 ? dtype + 1 : place == 3 ? dtype - 1 : dtype;
}

nk_problem nk_describe(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix *a, nk_matrix *b,
                       nk_matrix *c, nk_steps *steps)
{
    if (is_turned(m, n, *b, *c)) {
        nk_matrix a_before = *a;
        int64_t m_before = m;
        *a = transposed(*b), *b = transposed(a_before), *c = transposed(*c);
        m = n, n = m_before;
        *steps = (nk_steps){steps->b, steps->a, steps->c};
        dtype = swapped(dtype);
    }
    nk_problem problem = {.m = m, .n = n, .k = k, .dtype = (int16_t)dtype};
    problem.a = (int8_t)layout(a, m, k);
    if (b->packed)
        problem.b = NK_PACKED;
    else if (n == 1 && b->rs == 1)
        problem.b = NK_COL; /* a dot product: both vectors lie along k */
    else
        problem.b = (int8_t)layout(b, k, n);
    if (n == 1)
        c->cs = 1;
    problem.c = c->cs == 1 ? NK_ROW : NK_STRIDED;
    return problem;
}

/* A stack times one matrix is a single product, if the stack's rows follow each other evenly; so is
   one matrix times a stack, if its columns do. */
static void fold(int64_t *m, int64_t *n, nk_matrix *a, nk_matrix *b, nk_matrix *c, int64_t *count,
                 nk_steps *steps)
{
    if (*count == 1)
        return;
    if (*m == 1)
        a->rs = steps->a, c->rs = steps->c;
    if (*n == 1)
        b->cs = steps->b, c->cs = steps->c;
    if (steps->b == 0 && steps->a == *m * a->rs && steps->c == *m * c->rs) {
        *m *= *count;
        *count = 1;
    } else if (!b->packed && steps->a == 0 && steps->b == *n * b->cs && steps->c == *n * c->cs) {
        *n *= *count;
        *count = 1;
    }
}

static nk_epilogue kind(nk_scale x)
{
    if (x.alpha != 1 || x.alpha_i != 0 || x.beta_i != 0 || x.turn != 1 || x.sign != 1)
        return NK_SCALE;
    return x.beta == 0 ? NK_PLAIN : x.beta == 1 ? NK_ADD : NK_SCALE;
}

/* A bias of columns becomes one of rows, and the other way round. (A C that is turned has a
   residual only if it is a vector, which has no leading dimension.) */
static void turn_bias(nk_scale *x)
{
    if (x->fused & NK_BIAS)
        x->fused ^= NK_BIAS;
}

/* Whether so many products are the last ones that somebody is content with a plan for. */
static int is_over(nk_plan *plan, int64_t products)
{
    return __atomic_load_n(&plan->patience, __ATOMIC_RELAXED) > 0 &&
           __atomic_sub_fetch(&plan->patience, products, __ATOMIC_RELAXED) <= 0;
}

static int64_t run(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix a, nk_matrix b,
                   nk_matrix c, int64_t count, nk_steps steps, nk_scale scale)
{
    if (is_turned(m, n, b, c)) {
        scale.sign *= scale.turn; /* it is the other operand that is conjugate */
        turn_bias(&scale);
        const char *const *a_blocks = scale.a_blocks;
        scale.a_blocks = scale.b_blocks, scale.b_blocks = a_blocks;
    }
    scale.first = scale.last = 1;
    nk_problem problem = nk_describe(dtype, m, n, k, &a, &b, &c, &steps);
    problem.epilogue = (int16_t)(kind(scale) | scale.fused);
    problem.reduces = scale.blocks > 0;
    nk_reader *reader = nk_enter();
    if (!reader)
        return 0;
    nk_plan *plan = nk_table_find(&problem);
    /* (What has been put there may have been taken out again by now.) */
    for (int asked = 1; nk_ask && asked && (!plan || is_over(plan, count));) {
        nk_leave(reader);
        asked = nk_ask(&problem);
        reader = nk_enter();
        plan = nk_table_find(&problem);
    }
    int64_t done = 0;
    if (plan && plan->kc) {
        int recorded = __atomic_load_n(&nk_recordings, __ATOMIC_RELAXED) > 0;
        int64_t start = recorded ? nk_clock() : 0;
        done = nk_run(plan, a, b, c, count, steps, scale, nk_get_num_threads());
        if (done && recorded)
            nk_note(&problem, done, nk_clock() - start);
    }
    nk_leave(reader);
    return done;
}

int64_t nk_gemm(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix a, nk_matrix b,
                nk_matrix c, int64_t count, nk_steps steps, nk_scale scale)
{
    __atomic_add_fetch(&counters.calls, (uint64_t)count, __ATOMIC_RELAXED);
    if (m == 0 || n == 0 || count == 0)
        return count;
    if (k == 0) {
        for (int64_t i = 0; i < count; i++)
            fill_zeros(m, n, moved(c, i * steps.c, sizes[dtype].c), sizes[dtype].c);
        return count;
    }
    int64_t products = count, done;
    fold(&m, &n, &a, &b, &c, &count, &steps);
    done = run(dtype, m, n, k, a, b, c, count, steps, scale) ? products : 0;
    if (!done)
        __atomic_add_fetch(&counters.fallbacks, (uint64_t)products, __ATOMIC_RELAXED);
    return done;
}

/* Divides a stack of products among threads.

   k is never divided, and a tile is computed in the same way whatever chunk it is in: the bits of a
   result do not depend on the number of threads. */
#include "nkblas.h"

/* The stack is divided into `parts`, each product of it into a grid of `rows` x `columns`. At most
   one of the two is divided. */
typedef struct {
    const nk_plan *plan;
    nk_matrix a, b, c;
    nk_batch_strides strides;
    nk_call_args args;
    int64_t count; /* products */
    int64_t parts, rows, columns;
    int out_of_memory;
} job;

/* Whether the rows (columns, if it is column-major) of an m x n matrix are adjacent. */
static int is_dense(nk_matrix x, int8_t layout, int64_t m, int64_t n)
{
    return layout == NK_ROW ? m == 1 || x.rs == n : n == 1 || x.cs == m;
}

static int are_dense(const nk_problem *p, nk_matrix a, nk_matrix b, nk_matrix c)
{
    return is_dense(a, p->a, p->m, p->k) && is_dense(b, p->b, p->k, p->n) &&
           is_dense(c, p->c, p->m, p->n);
}

/* Compute rows [first, last) of C with the plan's kernels for rows; of a single row, these
   columns. */
static void run_rows(const nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c, int64_t first,
                     int64_t last)
{
    const nk_itemsizes *itemsize = nk_itemsizes_of(plan->problem.dtype);
    int64_t k = plan->problem.k, n = plan->problem.n, rows = last - first;
    if (plan->problem.m == 1) {
        nk_matrix left = a;
        a = nk_transposed(b), b = nk_transposed(left), c = nk_transposed(c);
        n = 1;
    }
    int is_block = a.rs == k && c.rs == n;
    int64_t blocks = is_block ? rows / plan->block_rows : 0, done = blocks * plan->block_rows;
    a = nk_offset(a, first * a.rs, itemsize->a), c = nk_offset(c, first * c.rs, itemsize->c);
    plan->row_block(blocks, a.data, plan->block_rows * a.rs, b.data, 0, c.data,
                    plan->block_rows * c.rs);
    plan->single_row(rows - done, nk_element(a, done, 0, itemsize->a), a.rs, b.data, 0,
                     nk_element(c, done, 0, itemsize->c), c.rs);
}

/* The microkernel that computes a whole product in one call; NULL: there is none. */
static nk_microkernel single_call_kernel(const nk_plan *plan, nk_matrix c)
{
    int64_t tiles_per_call = plan->spans_columns ? plan->n.block_tiles : 1;
    if (plan->m.tiles > 1 || plan->n.tiles > tiles_per_call || plan->kc < plan->problem.k ||
        plan->pack_a || plan->pack_b || c.cs != 1 || plan->partial_sum_itemsize || plan->triangle)
        return NULL;
    return plan->microkernel[!plan->m.main_tiles][!plan->n.main_tiles];
}

/* The first row of tiles of a chunk. Chunks of a triangle have about the same number of tiles, not of
   rows: the first r of R chunks have r / R of a lower triangle, which is sqrt(r / R) of its rows. */
static int64_t chunk_start(const job *x, int64_t chunk)
{
    int64_t tiles = x->plan->m.tiles, start = tiles * chunk / x->rows;
    if (!x->plan->triangle)
        return start;
    int is_lower = x->plan->triangle == NK_LOWER;
    int64_t before = is_lower ? chunk : x->rows - chunk;
    start = tiles * before / x->rows;
    while (start < tiles && start * start < tiles * tiles / x->rows * before)
        start++;
    return is_lower ? start : tiles - start;
}

static void run_chunk(void *argument, int64_t chunk)
{
    job *x = argument;
    const nk_plan *plan = x->plan;
    const nk_problem *problem = &plan->problem;
    const nk_itemsizes *itemsize = nk_itemsizes_of(problem->dtype);
    int64_t part = chunk / (x->rows * x->columns);
    int64_t row = chunk % x->rows, column = chunk / x->rows % x->columns;
    int64_t first = x->count * part / x->parts, last = x->count * (part + 1) / x->parts;
    nk_matrix a = nk_offset(x->a, first * x->strides.a, itemsize->a);
    nk_matrix b = nk_offset(x->b, first * x->strides.b, itemsize->b);
    nk_matrix c = nk_offset(x->c, first * x->strides.c, itemsize->c);

    int is_divided = x->rows > 1 || x->columns > 1;
    if (plan->small && !is_divided && are_dense(problem, a, b, c)) {
        plan->small(last - first, a.data, x->strides.a, b.data, x->strides.b, c.data, x->strides.c);
        return;
    }
    int64_t n = plan->n.tiles;
    int64_t i0 = chunk_start(x, row), i1 = chunk_start(x, row + 1);
    int64_t j0 = n * column / x->columns, j1 = n * (column + 1) / x->columns;
    int has_rows = plan->single_row &&
                   (problem->m == 1 || is_dense(b, problem->b, problem->k, problem->n));
    nk_microkernel kernel = is_divided ? NULL : single_call_kernel(plan, c);
    for (int64_t i = first; i < last; i++) {
        if (has_rows && problem->m == 1)
            run_rows(plan, a, b, c, nk_tile_start(&plan->n, j0), nk_tile_start(&plan->n, j1));
        else if (has_rows)
            run_rows(plan, a, b, c, nk_tile_start(&plan->m, i0), nk_tile_start(&plan->m, i1));
        else if (kernel)
            kernel(nk_k_steps(plan, problem->k), a.data, nk_leading_dimension(a, problem->a),
                   b.data, nk_leading_dimension(b, problem->b), c.data, c.rs, problem->n,
                   (problem->epilogue & NK_KIND) == NK_ADD, NULL, NULL, 0, 0, &x->args);
        else if (i0 < i1 && !nk_run_tiles(plan, a, b, c, x->args, i0, i1, j0, j1))
            __atomic_store_n(&x->out_of_memory, 1, __ATOMIC_RELAXED);
        a = nk_offset(a, x->strides.a, itemsize->a);
        b = nk_offset(b, x->strides.b, itemsize->b);
        c = nk_offset(c, x->strides.c, itemsize->c);
    }
}

/* The least time, in nanoseconds, for which a thread is used, and for which a chunk is made. There are
   more chunks than threads, so that a delayed thread leaves some to the others; but not where memory
   bandwidth is the limit: there each thread should get the part that it had in the last call. */
enum { NS_PER_THREAD = 5000, NS_PER_CHUNK = 100000, MAX_HALVINGS = 3 };

/* With fewer products than this for each thread, the products themselves may be divided. */
enum { MIN_PRODUCTS_PER_THREAD = 4 };

int32_t nk_threads_for(double nanoseconds, int32_t max_threads)
{
    double worth = nanoseconds / NS_PER_THREAD;
    return worth < 1 ? 1 : max_threads > worth ? (int32_t)worth : max_threads;
}

/* Rows (columns) of the largest of `parts` parts. */
static double largest_part(const nk_tiling *tiling, int64_t parts)
{
    return (double)((tiling->tiles + parts - 1) / parts * tiling->tile);
}

/* Divide C into a grid of at most `chunks` chunks: the one whose largest chunk costs least. The cost
   is its multiply-adds and the elements of A and B that it reads, in multiply-adds. (An element of A
   costs more: threads that read the same rows at the same time contend for them.) */
static void divide_c(job *x, int64_t chunks)
{
    enum { COST_OF_A = 40, COST_OF_B = 4 };
    const nk_plan *plan = x->plan;
    double least = 0;
    for (int64_t rows = 1; rows <= nk_min(chunks, plan->m.tiles); rows++) {
        int64_t columns = nk_min(chunks / rows, plan->n.tiles);
        double m = largest_part(&plan->m, rows), n = largest_part(&plan->n, columns);
        double cost = m * n + COST_OF_A * m + COST_OF_B * n;
        if (rows == 1 || cost < least) {
            least = cost;
            x->rows = rows, x->columns = columns;
        }
    }
}

/* What reading and packing an element of an operand takes, in multiply-adds: from a cache, or where
   the operand is larger than the pages whose addresses the CPU keeps (2048 of 4 KB). */
enum { NEAR_ELEMENT = 4, FAR_ELEMENT = 20, NEAR_BYTES = 8 << 20 };

static double element_cost(int64_t rows, int64_t columns, int64_t itemsize)
{
    return rows * columns * itemsize > NEAR_BYTES ? FAR_ELEMENT : NEAR_ELEMENT;
}

/* Halve all chunks: the parts of the stack, or each product's along its longer side; a triangle is
   divided into rows only. Returns 0, and does nothing, where the halves would take too long for
   reading their operands. */
static int halve_chunks(job *x, int divides_products)
{
    enum { MAX_READING_PERCENT = 16 };
    if (!divides_products) {
        x->parts = nk_min(2 * x->parts, x->count);
        return 1;
    }
    const nk_problem *p = &x->plan->problem;
    const nk_itemsizes *itemsize = nk_itemsizes_of(p->dtype);
    double m = largest_part(&x->plan->m, x->rows), n = largest_part(&x->plan->n, x->columns);
    int divides_rows = x->plan->triangle || m > n;
    double reading_a = element_cost(p->m, p->k, itemsize->a) / n;
    double reading_b = element_cost(p->k, p->n, itemsize->b) / m;
    *(divides_rows ? &reading_b : &reading_a) *= 2;
    if (100 * (reading_a + reading_b) > MAX_READING_PERCENT)
        return 0;
    if (divides_rows)
        x->rows = nk_min(2 * x->rows, x->plan->m.tiles);
    else
        x->columns = nk_min(2 * x->columns, x->plan->n.tiles);
    return 1;
}

int64_t nk_run_plan(const nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c, int64_t count,
                    nk_batch_strides strides, nk_call_args args, int32_t threads)
{
    job x = {plan, a, b, c, strides, args, count, .parts = 1, .rows = 1, .columns = 1};
    double product_ns = plan->nanoseconds * (double)(args.block_count > 0 ? args.block_count : 1);
    double all_ns = product_ns * (double)count;

    threads = nk_threads_for(all_ns, threads);
    if (threads < 2) {
        run_chunk(&x, 0);
        return x.out_of_memory ? 0 : count;
    }
    int32_t threads_per_product = nk_threads_for(product_ns, threads);
    int divides_products = threads_per_product > 1 && count < MIN_PRODUCTS_PER_THREAD * threads;
    x.parts = divides_products ? count : nk_min(threads, count);
    if (divides_products && plan->triangle)
        x.rows = nk_min(threads_per_product, plan->m.tiles);
    else if (divides_products)
        divide_c(&x, threads_per_product);
    double chunk_ns = divides_products ? product_ns / threads_per_product : all_ns / threads;
    int halvings = plan->is_memory_bound ? 0 : MAX_HALVINGS;
    while (halvings-- > 0 && chunk_ns > 2 * NS_PER_CHUNK && halve_chunks(&x, divides_products))
        chunk_ns /= 2;
    nk_parallel(threads, all_ns, x.parts * x.rows * x.columns, run_chunk, &x);
    return x.out_of_memory ? 0 : count;
}

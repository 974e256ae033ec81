/* The five loops jc, pc, ic, jr, ir around a microkernel. */
#include <string.h>

#include "nkblas.h"

const int64_t nk_itemsize[] = {[NK_FLOAT32] = 4, [NK_FLOAT64] = 8};

int (*nk_ask)(const nk_problem *problem);

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

/* One cache block: rows of tiles [i0, i1), columns of tiles [j0, j1), k in [p0, p0 + kc). */
typedef struct {
    const nk_plan *plan;
    int64_t itemsize;
    nk_matrix a, b, c;
    int64_t p0, kc;
    int64_t i0, i1, j0, j1;
    int fresh_b; /* B's panels of this block are not packed yet */
    char *a_panels, *b_panels, *c_tile;
} block;

/* The stride that is not 1. */
static int64_t leading(nk_matrix x, int8_t layout)
{
    return layout == NK_ROW ? x.rs : x.cs;
}

/* A panel is packed by the first tile that reads it, so that it is in the cache for that one. */
static void run_tile(const block *x, int64_t i, int64_t j)
{
    const nk_plan *plan = x->plan;
    int64_t size = x->itemsize;
    int64_t row = offset(&plan->m, i), rows = length(&plan->m, i);
    int64_t column = offset(&plan->n, j), columns = length(&plan->n, j);

    const char *a = at(x->a, row, x->p0, size);
    int64_t lda = leading(x->a, plan->problem.a);
    if (plan->pack_a) {
        char *panel = x->a_panels + (i - x->i0) * plan->m.size * x->kc * size;
        if (j == x->j0)
            plan->packs[0](rows, x->kc, a, x->a.rs, x->a.cs, panel);
        a = panel;
        lda = plan->m.size;
    }
    const char *b = at(x->b, x->p0, column, size);
    int64_t ldb = leading(x->b, plan->problem.b);
    if (plan->pack_b) {
        char *panel = x->b_panels + (j - x->j0) * plan->n.size * x->kc * size;
        if (x->fresh_b && i == x->i0)
            plan->packs[1](columns, x->kc, b, x->b.cs, x->b.rs, panel);
        b = panel;
        ldb = plan->n.size;
    }

    nk_microkernel microkernel = plan->microkernel[i >= plan->m.full][j >= plan->n.full];
    char *c = at(x->c, row, column, size);
    if (x->c.cs == 1) {
        microkernel(x->kc, a, lda, b, ldb, c, x->c.rs, columns, x->p0 > 0);
        return;
    }
    /* A microkernel stores rows; a C without rows goes through a tile that has them. */
    int64_t ldc = plan->n.size;
    if (x->p0 > 0)
        plan->copy(rows, columns, c, x->c.rs, x->c.cs, x->c_tile, ldc, 1);
    microkernel(x->kc, a, lda, b, ldb, x->c_tile, ldc, columns, x->p0 > 0);
    plan->copy(rows, columns, x->c_tile, ldc, 1, c, x->c.rs, x->c.cs);
}

static void run_block(const block *x)
{
    if (x->plan->ir_outside) {
        for (int64_t i = x->i0; i < x->i1; i++)
            for (int64_t j = x->j0; j < x->j1; j++)
                run_tile(x, i, j);
    } else {
        for (int64_t j = x->j0; j < x->j1; j++)
            for (int64_t i = x->i0; i < x->i1; i++)
                run_tile(x, i, j);
    }
}

int nk_run(const nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c)
{
    const nk_cut *m = &plan->m, *n = &plan->n;
    int64_t size = nk_itemsize[plan->problem.dtype];
    block x = {.plan = plan, .itemsize = size, .a = a, .b = b, .c = c};

    if (plan->pack_a || plan->pack_b || c.cs != 1) {
        enum { PAGE = 4096 };
        size_t a_size = plan->pack_a ? (size_t)(m->block * m->size * plan->kc * size) : 0;
        size_t b_size = plan->pack_b ? (size_t)(n->block * n->size * plan->kc * size) : 0;
        size_t c_size = (size_t)(m->size * n->size * size);
        a_size = (a_size + PAGE - 1) / PAGE * PAGE;
        b_size = (b_size + PAGE - 1) / PAGE * PAGE;
        x.a_panels = nk_buffer(a_size + b_size + c_size);
        if (!x.a_panels)
            return NK_LEFT_TO_NUMPY;
        x.b_panels = x.a_panels + a_size;
        x.c_tile = x.b_panels + b_size;
    }
    for (x.j0 = 0; x.j0 < n->tiles; x.j0 = x.j1) {
        x.j1 = smaller(x.j0 + n->block, n->tiles);
        for (x.p0 = 0; x.p0 < plan->problem.k; x.p0 += x.kc) {
            x.kc = smaller(plan->kc, plan->problem.k - x.p0);
            x.fresh_b = 1;
            for (x.i0 = 0; x.i0 < m->tiles; x.i0 = x.i1) {
                x.i1 = smaller(x.i0 + m->block, m->tiles);
                run_block(&x);
                x.fresh_b = 0;
            }
        }
    }
    return NK_DONE;
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
    return (nk_matrix){x.data, x.cs, x.rs};
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

nk_problem nk_describe(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix *a, nk_matrix *b,
                       nk_matrix *c)
{
    nk_layout c_layout = layout(c, m, n);
    if (c_layout == NK_COL) { /* C.T = B.T @ A.T has rows */
        nk_matrix a_before = *a;
        int64_t m_before = m;
        *a = transposed(*b), *b = transposed(a_before), *c = transposed(*c);
        m = n, n = m_before;
        c_layout = NK_ROW;
    }
    nk_problem problem = {.m = m, .n = n, .k = k, .dtype = dtype, .c = (int8_t)c_layout};
    problem.a = (int8_t)layout(a, m, k);
    problem.b = (int8_t)layout(b, k, n);
    return problem;
}

int nk_gemm(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix a, nk_matrix b,
            nk_matrix c)
{
    __atomic_add_fetch(&counters.calls, 1, __ATOMIC_RELAXED);
    if (m == 0 || n == 0)
        return NK_DONE;
    if (k == 0) {
        fill_zeros(m, n, c, nk_itemsize[dtype]);
        return NK_DONE;
    }
    nk_problem problem = nk_describe(dtype, m, n, k, &a, &b, &c);
    const nk_plan *plan = nk_table_find(&problem);
    if (!plan && nk_ask && nk_ask(&problem))
        plan = nk_table_find(&problem);
    if (plan && plan->kc && nk_run(plan, a, b, c) == NK_DONE)
        return NK_DONE;
    __atomic_add_fetch(&counters.fallbacks, 1, __ATOMIC_RELAXED);
    return NK_LEFT_TO_NUMPY;
}

/* nk_gemm: from a call to its problem, and from the problem to a plan in the table. */
#include <string.h>

#include "nkblas.h"

int (*nk_miss_handler)(const nk_problem *problem);

const nk_call_args nk_plain_args = {.alpha = 1, .a_imag_sign = 1, .c_imag_sign = 1};

/* ---- the problem ---- */

/* The layout of an m x n operand. The stride of a dimension of length 1 means nothing: it is set so
   that a layout with unit stride results. */
static nk_layout find_layout(nk_matrix *x, int64_t m, int64_t n)
{
    if (n == 1)
        x->cs = 1;
    if (x->cs == 1)
        return NK_ROW;
    if (m == 1)
        x->rs = 1;
    return x->rs == 1 ? NK_COL : NK_STRIDED;
}

/* Whether a product is done as C.T = B.T @ A.T: a column-major C becomes row-major, and a vector is
   always a row. */
static int is_transposed(int64_t m, int64_t n, nk_matrix b, nk_matrix c)
{
    int is_column_major = n == 1 || (c.cs != 1 && c.rs == 1);
    return m > 1 && is_column_major && !b.is_packed;
}

/* Whether B is A's transpose, in the same memory, in each product of a stack. */
static int is_times_itself(int32_t dtype, int64_t m, int64_t n, nk_matrix a, nk_matrix b,
                           nk_batch_strides strides)
{
    return m == n && m > 1 && a.data && a.data == b.data && a.rs == b.cs && a.cs == b.rs &&
           !b.is_packed && strides.a == strides.b && nk_products[dtype].a == nk_products[dtype].b;
}

/* Fold a stack into one product: a stack times a single matrix, if the rows of all its matrices have
   one distance; and a single matrix times a stack, if all columns have. */
static void fold_stack(int64_t *m, int64_t *n, nk_matrix *a, nk_matrix *b, nk_matrix *c,
                       int64_t *count, nk_batch_strides *strides)
{
    if (*count == 1)
        return;
    if (*m == 1)
        a->rs = strides->a, c->rs = strides->c;
    if (*n == 1)
        b->cs = strides->b, c->cs = strides->c;
    if (strides->b == 0 && strides->a == *m * a->rs && strides->c == *m * c->rs) {
        *m *= *count;
        *count = 1;
    } else if (!b->is_packed && strides->a == 0 && strides->b == *n * b->cs &&
               strides->c == *n * c->cs) {
        *n *= *count;
        *count = 1;
    }
}

static nk_epilogue epilogue_kind(const nk_call_args *x)
{
    if (x->alpha != 1 || x->alpha_imag != 0 || x->beta_imag != 0 || x->a_imag_sign != 1 ||
        x->c_imag_sign != 1)
        return NK_SCALE;
    return x->beta == 0 ? NK_ASSIGN : x->beta == 1 ? NK_ADD : NK_SCALE;
}

/* The structure of C, where A @ B is symmetric: of conj(A) @ B it is Hermitian; and there is none if
   other matrices or vectors are added, or columns scaled. */
static nk_structure structure_of_c(const nk_call_args *x)
{
    int has_others = x->beta != 0 || x->beta_imag != 0 || x->fused & ~NK_ACTIVATION;
    if (has_others || x->block_count)
        return NK_GENERAL;
    if (x->a_imag_sign == 1)
        return NK_SYMMETRIC;
    return x->alpha_imag == 0 ? NK_HERMITIAN : NK_GENERAL;
}

/* The arguments of a transposed product. (Its residual is a vector, which has no leading dimension:
   there is none with a column-major C.) */
static void transpose_args(nk_call_args *x)
{
    x->c_imag_sign *= x->a_imag_sign; /* the other operand is the conjugate one */
    if (x->fused & NK_BIAS)
        x->fused ^= NK_BIAS; /* a bias of columns becomes one of rows, and the reverse */
    if (x->triangle)
        x->triangle = nk_transposed_triangle((nk_triangle)x->triangle);
    const char *const *a_blocks = x->a_blocks;
    x->a_blocks = x->b_blocks, x->b_blocks = a_blocks;
}

nk_problem nk_describe(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix *a, nk_matrix *b,
                       nk_matrix *c, int64_t *count, nk_batch_strides *strides, nk_call_args *args)
{
    fold_stack(&m, &n, a, b, c, count, strides);
    int is_symmetric = is_times_itself(dtype, m, n, *a, *b, *strides);
    if (is_transposed(m, n, *b, *c)) {
        nk_matrix left = *a;
        int64_t rows = m;
        *a = nk_transposed(*b), *b = nk_transposed(left), *c = nk_transposed(*c);
        m = n, n = rows;
        *strides = (nk_batch_strides){strides->b, strides->a, strides->c};
        dtype = nk_products[dtype].transposed;
        transpose_args(args);
    }
    nk_problem problem = {.m = m, .n = n, .k = k, .dtype = (int8_t)dtype};
    problem.epilogue = (int16_t)(epilogue_kind(args) | args->fused);
    problem.batch_reduce = args->block_count > 0;
    problem.structure = (int8_t)args->triangle;
    if (is_symmetric && !args->triangle)
        problem.structure = (int8_t)structure_of_c(args);
    problem.a = (int8_t)find_layout(a, m, k);
    if (b->is_packed)
        problem.b = NK_PACKED;
    else if (n == 1 && b->rs == 1)
        problem.b = NK_COL; /* a dot product: both vectors lie along k */
    else
        problem.b = (int8_t)find_layout(b, k, n);
    if (n == 1)
        c->cs = 1;
    problem.c = c->cs == 1 ? NK_ROW : NK_STRIDED;
    return problem;
}

/* ---- the plan ---- */

/* Count products for the tier-up threshold of a plan; whether they reach it. */
static int reaches_tier_up(nk_plan *plan, int64_t products)
{
    return __atomic_load_n(&plan->tier_up_after, __ATOMIC_RELAXED) > 0 &&
           __atomic_sub_fetch(&plan->tier_up_after, products, __ATOMIC_RELAXED) <= 0;
}

int64_t nk_run_gemm(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix a, nk_matrix b,
                    nk_matrix c, int64_t count, nk_batch_strides strides, nk_call_args args)
{
    args.is_first_k_block = args.is_last_k_block = 1;
    nk_problem problem = nk_describe(dtype, m, n, k, &a, &b, &c, &count, &strides, &args);
    nk_reader *reader = nk_reader_enter();
    if (!reader)
        return 0;
    nk_plan similar, *plan = nk_table_find(&problem), *counted = plan;
    if (!plan && (counted = nk_find_similar(&problem, &similar)))
        plan = &similar;
    /* A loop: the plan that the handler inserts may be removed before it is looked up. */
    int handled = nk_miss_handler != NULL;
    while (handled && (!plan || reaches_tier_up(counted, count))) {
        nk_reader_exit(reader);
        handled = nk_miss_handler(&problem);
        reader = nk_reader_enter();
        plan = counted = nk_table_find(&problem);
    }
    int64_t done = 0;
    if (plan && plan->kc) {
        int is_recorded = __atomic_load_n(&nk_active_recordings, __ATOMIC_RELAXED) > 0;
        int64_t start = is_recorded ? nk_monotonic_ns() : 0;
        int32_t threads = nk_get_num_threads();
        done = plan->trial ? nk_run_trial(plan, a, b, c, count, strides, args, threads)
                           : nk_run_plan(plan, a, b, c, count, strides, args, threads);
        if (done && is_recorded)
            nk_record_products(&problem, done, nk_monotonic_ns() - start);
    }
    nk_reader_exit(reader);
    return done;
}

int nk_find_plan(const nk_problem *problem, nk_plan *out)
{
    nk_reader *reader = nk_reader_enter();
    nk_plan *plan = reader ? nk_table_find(problem) : NULL;
    if (reader && !plan && nk_miss_handler) {
        nk_reader_exit(reader);
        nk_miss_handler(problem);
        reader = nk_reader_enter();
        plan = reader ? nk_table_find(problem) : NULL;
    }
    int is_found = plan && plan->kc;
    if (is_found)
        *out = *plan;
    if (reader)
        nk_reader_exit(reader);
    return is_found;
}

static void fill_zeros(int64_t m, int64_t n, nk_matrix c, int64_t itemsize)
{
    for (int64_t i = 0; i < m; i++) {
        if (c.cs == 1)
            memset(nk_element(c, i, 0, itemsize), 0, (size_t)(n * itemsize));
        else
            for (int64_t j = 0; j < n; j++)
                memset(nk_element(c, i, j, itemsize), 0, (size_t)itemsize);
    }
}

int64_t nk_gemm(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix a, nk_matrix b,
                nk_matrix c, int64_t count, nk_batch_strides strides, nk_call_args args)
{
    if (m == 0 || n == 0 || count == 0)
        return nk_count_products(count, count);
    if (k == 0) {
        int64_t itemsize = nk_itemsizes_of(dtype)->c;
        for (int64_t i = 0; i < count; i++)
            fill_zeros(m, n, nk_offset(c, i * strides.c, itemsize), itemsize);
        return nk_count_products(count, count);
    }
    return nk_count_products(count, nk_run_gemm(dtype, m, n, k, a, b, c, count, strides, args));
}

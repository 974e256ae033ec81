/* Products with a symmetric, Hermitian or triangular matrix, and triangular systems: matrix products of
   blocks, by halving, and a kernel or a full copy for each block on the diagonal.

   (Kågström, Ling and Van Loan, "GEMM-based level 3 BLAS", ACM TOMS 24, 1998; Elmroth, Gustavson,
   Jonsson and Kågström, "Recursive blocked algorithms and hybrid data structures", SIAM Review 46,
   2004.) */
#include "level3.h"
#include "reference.h"

/* Rows of the largest block on the diagonal of a symmetric matrix, of which there is a full copy. */
enum { SYMMETRIC_ROWS = 512 };

/* One call of a routine. */
typedef struct {
    int32_t dtype;
    int64_t itemsize, n; /* columns of B and C */
    nk_call_args args;
    nk_plan plan;    /* that of blocks on the diagonal */
    int has_written; /* whether a part of the result is stored */
} call;

int32_t nk_gemmt(int32_t dtype, nk_triangle triangle, int64_t n, int64_t k, nk_matrix a,
                 nk_matrix b, nk_matrix c, nk_call_args args)
{
    args.triangle = n > 1 ? triangle : NK_GENERAL;
    return nk_gemm(dtype, n, n, k, a, b, c, 1, (nk_batch_strides){0}, args) > 0;
}

static nk_call_args with_beta(nk_call_args args, double beta, double beta_imag)
{
    args.beta = beta, args.beta_imag = beta_imag;
    return args;
}

/* C = alpha * A @ B + beta * C for all columns; 0: there are no kernels, and nothing is written. */
static int multiply(call *x, int64_t m, int64_t k, nk_matrix a, nk_matrix b, nk_matrix c, int64_t n,
                    const nk_call_args *args)
{
    if (!nk_run_gemm(x->dtype, m, n, k, a, b, c, 1, (nk_batch_strides){0}, *args)) {
        if (!x->has_written)
            return 0;
        nk_reference_product(x->dtype, m, n, k, a, b, c, args);
    }
    x->has_written = 1;
    return 1;
}

/* Rows of the first half of a matrix: whole tiles of any kernel, and cache lines. */
static int64_t first_half(int64_t m)
{
    enum { GRANULARITY = 32 };
    return (m / 2 + GRANULARITY - 1) / GRANULARITY * GRANULARITY;
}

/* The block on the diagonal from row i on. */
static nk_stored diagonal_block(nk_stored a, int64_t i, int64_t itemsize)
{
    a.matrix = nk_block(a.matrix, i, i, itemsize);
    return a;
}

/* The distance between rows of a full copy: not a power of 2, so that elements of a column are in
   different sets of a cache. */
static int64_t leading_dimension(int64_t m, int64_t itemsize) { return m + 64 / itemsize; }

/* ---- symmetric and Hermitian matrices ---- */

static int multiply_symmetric(call *x, nk_stored a, int64_t m, nk_matrix b, nk_matrix c,
                              const nk_call_args *args)
{
    int64_t itemsize = x->itemsize;
    if (m <= SYMMETRIC_ROWS) {
        int64_t ld = leading_dimension(m, itemsize), size = 2 * m * ld * itemsize;
        char *buffer;
        if (!nk_block_buffers(&size, &buffer, 1))
            return 0;
        nk_matrix full = nk_expand(&x->plan, a, m, c.cs == 1, buffer, ld);
        return multiply(x, m, m, full, b, c, x->n, args);
    }
    int64_t h = first_half(m);
    nk_matrix second_b = nk_block(b, h, 0, itemsize), second_c = nk_block(c, h, 0, itemsize);
    /* The blocks above and below the diagonal: one of them is stored, and the transpose of the other. */
    double mirrored_sign = a.kind == NK_HERMITIAN ? -a.imag_sign : a.imag_sign;
    nk_call_args add = with_beta(*args, 1, 0), add_above = add, below = *args;
    nk_matrix stored;
    if (a.triangle == NK_LOWER) {
        stored = nk_block(a.matrix, h, 0, itemsize);
        below.a_imag_sign = a.imag_sign, add_above.a_imag_sign = mirrored_sign;
    } else {
        stored = nk_transposed(nk_block(a.matrix, 0, h, itemsize));
        below.a_imag_sign = mirrored_sign, add_above.a_imag_sign = a.imag_sign;
    }
    return multiply_symmetric(x, a, h, b, c, args) &&
           multiply(x, h, m - h, nk_transposed(stored), second_b, c, x->n, &add_above) &&
           multiply(x, m - h, h, stored, b, second_c, x->n, &below) &&
           multiply_symmetric(x, diagonal_block(a, h, itemsize), m - h, second_b, second_c, &add);
}

int32_t nk_symm(int32_t dtype, nk_triangle stored, int32_t is_hermitian, int64_t m, int64_t n,
                nk_matrix a, nk_matrix b, nk_matrix c, nk_call_args args)
{
    nk_stored symmetric = {a, stored, is_hermitian ? NK_HERMITIAN : NK_SYMMETRIC, 0,
                           args.a_imag_sign};
    call x = {.dtype = dtype, .itemsize = nk_itemsizes_of(dtype)->c, .n = n};
    args.a_imag_sign = 1; /* full copies have it applied */
    int is_done = nk_find_triangular(dtype, &x.plan) &&
                  multiply_symmetric(&x, symmetric, m, b, c, &args);
    return nk_count_products(1, is_done) > 0;
}

/* ---- triangular matrices ---- */

/* The halves of a triangular matrix and of B: B's `last` rows depend on its `first` ones. */
typedef struct {
    nk_stored first, last;
    nk_matrix first_b, last_b, beside; /* beside the diagonal: rows of `last`, columns of `first` */
    int64_t first_rows, last_rows;
} halves;

static halves halve(const call *x, nk_stored a, int64_t m, nk_matrix b)
{
    int64_t h = first_half(m), itemsize = x->itemsize;
    nk_stored top = a, bottom = diagonal_block(a, h, itemsize);
    nk_matrix bottom_b = nk_block(b, h, 0, itemsize);
    if (a.triangle == NK_LOWER)
        return (halves){top, bottom, b, bottom_b, nk_block(a.matrix, h, 0, itemsize), h, m - h};
    return (halves){bottom, top, bottom_b, b, nk_block(a.matrix, 0, h, itemsize), m - h, h};
}

static int apply_block(call *x, int solves, nk_stored a, int64_t m, nk_matrix b,
                       const nk_call_args *alpha)
{
    nk_triangular_block(&x->plan, solves, a, m, x->n, b, alpha);
    x->has_written = 1;
    return 1;
}

/* B = alpha * A @ B: the last rows first, which depend on the first ones as they were. */
static int multiply_triangular(call *x, nk_stored a, int64_t m, nk_matrix b)
{
    if (m <= NK_TRIANGULAR_ROWS)
        return apply_block(x, 0, a, m, b, &x->args);
    halves h = halve(x, a, m, b);
    nk_call_args add = with_beta(x->args, 1, 0);
    add.a_imag_sign = a.imag_sign;
    return multiply_triangular(x, h.last, h.last_rows, h.last_b) &&
           multiply(x, h.last_rows, h.first_rows, h.beside, h.first_b, h.last_b, x->n, &add) &&
           multiply_triangular(x, h.first, h.first_rows, h.first_b);
}

int32_t nk_trmm(int32_t dtype, nk_triangle stored, int32_t is_unit, int64_t m, int64_t n,
                nk_matrix a, nk_matrix b, nk_call_args args)
{
    nk_stored triangular = {a, stored, NK_TRIANGULAR, is_unit, args.a_imag_sign};
    call x = {.dtype = dtype, .itemsize = nk_itemsizes_of(dtype)->c, .n = n, .args = args};
    int is_done = nk_find_triangular(dtype, &x.plan) && multiply_triangular(&x, triangular, m, b);
    return nk_count_products(1, is_done) > 0;
}

/* B = alpha * inv(A) @ B */
static int solve(call *x, nk_stored a, int64_t m, nk_matrix b, const nk_call_args *alpha)
{
    if (m <= NK_TRIANGULAR_ROWS)
        return apply_block(x, 1, a, m, b, alpha);
    halves h = halve(x, a, m, b);
    nk_call_args subtract = with_beta(nk_plain_args, alpha->alpha, alpha->alpha_imag);
    subtract.alpha = -1;
    subtract.a_imag_sign = a.imag_sign;
    return solve(x, h.first, h.first_rows, h.first_b, alpha) &&
           multiply(x, h.last_rows, h.first_rows, h.beside, h.first_b, h.last_b, x->n, &subtract) &&
           solve(x, h.last, h.last_rows, h.last_b, &nk_plain_args);
}

int32_t nk_trsm(int32_t dtype, nk_triangle stored, int32_t is_unit, int64_t m, int64_t n,
                nk_matrix a, nk_matrix b, nk_call_args args)
{
    nk_stored triangular = {a, stored, NK_TRIANGULAR, is_unit, args.a_imag_sign};
    call x = {.dtype = dtype, .itemsize = nk_itemsizes_of(dtype)->c, .n = n};
    int is_done = nk_find_triangular(dtype, &x.plan) && solve(&x, triangular, m, b, &args);
    return nk_count_products(1, is_done) > 0;
}

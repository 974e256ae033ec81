/* From a call of a BLAS routine to the engine: orders, transposes and sides are strides. */
#include <stdio.h>
#include <string.h>

#include "blas_call.h"
#include "doors.h"
#include "reference.h"

/* ---- matrices ---- */

static nk_matrix stored_matrix(const nk_blas_call *x, const void *data, int64_t ld)
{
    char *elements = (char *)data;
    return x->order == NK_ROW_MAJOR ? (nk_matrix){elements, ld, 1, 0}
                                    : (nk_matrix){elements, 1, ld, 0};
}

static nk_matrix op(nk_matrix x, int trans) { return trans == NK_NO_TRANS ? x : nk_transposed(x); }

/* A vector as a column. */
static nk_matrix column(const nk_blas_call *x, const void *data, int64_t n, int64_t inc)
{
    nk_matrix v = {(char *)data, inc, 1, 0};
    return inc < 0 ? nk_offset(v, (1 - n) * inc, nk_itemsizes_of(x->dtype)->c) : v;
}

static nk_triangle triangle_of(const nk_blas_call *x)
{
    return x->uplo == NK_BLAS_LOWER ? NK_LOWER : NK_UPPER;
}

/* ---- what needs no product ---- */

/* C = beta * C, or its triangle. */
static void scale(const nk_blas_call *x, int64_t m, int64_t n, nk_matrix c, nk_triangle triangle,
                  nk_scalar beta)
{
    int64_t itemsize = nk_itemsizes_of(x->dtype)->c;
    if (beta.re == 1 && beta.im == 0)
        return;
    nk_number factor = CMPLX(beta.re, beta.im);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            if ((triangle == NK_LOWER && j > i) || (triangle == NK_UPPER && j < i))
                continue;
            char *element = nk_element(c, i, j, itemsize);
            if (factor == 0) {
                memset(element, 0, (size_t)itemsize);
                continue;
            }
            nk_number value = nk_load(x->dtype, element);
            if (beta.im == 0) /* infinities stay infinities */
                value = CMPLX(beta.re * creal(value), beta.re * cimag(value));
            else
                value *= factor;
            nk_store(x->dtype, element, value);
        }
}

static void make_diagonal_real(const nk_blas_call *x, nk_matrix c)
{
    int64_t itemsize = nk_itemsizes_of(x->dtype)->c;
    for (int64_t i = 0; i < x->n; i++)
        memset(nk_element(c, i, i, itemsize) + itemsize / 2, 0, (size_t)itemsize / 2);
}

/* ---- products ---- */

/* The arguments for op(A) @ op(B), either of them conjugate. */
static nk_call_args call_args(nk_scalar alpha, nk_scalar beta, int is_a_conj, int is_b_conj)
{
    nk_call_args args = nk_plain_args;
    args.alpha = alpha.re, args.alpha_imag = alpha.im;
    args.beta = beta.re, args.beta_imag = beta.im;
    args.a_imag_sign = is_a_conj != is_b_conj ? -1 : 1;
    args.c_imag_sign = is_b_conj ? -1 : 1;
    return args;
}

/* Whether an operand is aligned to the parts of its elements, as kernels require. */
static int is_aligned(const nk_blas_call *x, const void *data)
{
    int64_t part = nk_itemsizes_of(x->dtype)->c / (nk_is_complex(x->dtype) ? 2 : 1);
    return (uintptr_t)data % (uintptr_t)part == 0;
}

static int is_for_engine(const nk_blas_call *x)
{
    return is_aligned(x, x->a) && is_aligned(x, x->c) && (!x->b || is_aligned(x, x->b));
}

/* Whether plain loops do what the engine can't. */
static int has_loops(const nk_blas_call *x) { return !x->routine->original; }

static int multiply(const nk_blas_call *x, nk_triangle triangle, int64_t m, int64_t n, int64_t k,
                    nk_matrix a, nk_matrix b, nk_matrix c, nk_call_args args, int must_be_done)
{
    int done = 0;
    if (is_for_engine(x))
        done = triangle ? nk_gemmt(x->dtype, triangle, n, k, a, b, c, args)
                        : nk_gemm(x->dtype, m, n, k, a, b, c, 1, (nk_batch_strides){0}, args) > 0;
    if (done || !must_be_done)
        return done;
    args.triangle = triangle;
    nk_reference_product(x->dtype, m, n, k, a, b, c, &args);
    return 1;
}

/* GEMM, GEMV, GEMMT, and of RANK_K and RANK_2K the first or only product. */
static int run_product(const nk_blas_call *x, nk_matrix a, nk_matrix b, nk_matrix c)
{
    nk_triangle triangle = x->form == NK_BLAS_GEMM || x->form == NK_BLAS_GEMV ? NK_GENERAL
                                                                              : triangle_of(x);
    int64_t m = x->m, n = x->n, k = x->k;
    int is_a_conj = nk_is_complex(x->dtype) && x->trans_a == NK_CONJ_TRANS;
    int is_b_conj = nk_is_complex(x->dtype) && x->trans_b == NK_CONJ_TRANS;
    int is_rank_2k = x->form == NK_BLAS_RANK_2K;
    nk_matrix left = op(a, x->trans_a), right = op(b, x->trans_b);
    if (x->form == NK_BLAS_GEMV) {
        int is_transposed = x->trans_a != NK_NO_TRANS;
        m = is_transposed ? x->n : x->m, k = is_transposed ? x->m : x->n, n = 1;
        right = b, is_b_conj = 0;
    } else if (x->form != NK_BLAS_GEMM && x->form != NK_BLAS_GEMMT) {
        m = n;
        right = nk_transposed(op(is_rank_2k ? b : a, x->trans_a));
        is_b_conj = x->is_hermitian && !is_a_conj;
    } else if (triangle) {
        m = n;
    }
    nk_call_args args = call_args(x->alpha, x->beta, is_a_conj, is_b_conj);
    if (!multiply(x, triangle, m, n, k, left, right, c, args, has_loops(x)))
        return 0;
    if (is_rank_2k) { /* the same product with A and B exchanged is added */
        nk_scalar alpha = x->alpha, one = {1, 0};
        if (x->is_hermitian)
            alpha.im = -alpha.im;
        args = call_args(alpha, one, is_a_conj, is_b_conj);
        left = op(b, x->trans_a), right = nk_transposed(op(a, x->trans_a));
        multiply(x, triangle, m, n, k, left, right, c, args, 1);
    }
    if (x->is_hermitian)
        make_diagonal_real(x, c);
    return 1;
}

static int run_symm(const nk_blas_call *x, nk_matrix a, nk_matrix b, nk_matrix c)
{
    nk_triangle stored = triangle_of(x);
    int64_t m = x->m, n = x->n;
    nk_call_args args = call_args(x->alpha, x->beta, 0, 0);
    if (x->side == NK_RIGHT) { /* C.T = A.T @ B.T */
        a = nk_transposed(a), b = nk_transposed(b), c = nk_transposed(c);
        stored = nk_transposed_triangle(stored), m = x->n, n = x->m;
    }
    int done = is_for_engine(x) && nk_symm(x->dtype, stored, x->is_hermitian, m, n, a, b, c, args);
    if (!done && has_loops(x))
        nk_reference_symm(x->dtype, stored, x->is_hermitian, m, n, a, b, c, &args);
    return done || has_loops(x);
}

static int run_triangular(const nk_blas_call *x, nk_matrix a, nk_matrix b)
{
    nk_triangle stored = triangle_of(x);
    int64_t m = x->m, n = x->n;
    int is_transposed = x->trans_a != NK_NO_TRANS, is_unit = x->diag == NK_UNIT;
    int is_conj = nk_is_complex(x->dtype) && x->trans_a == NK_CONJ_TRANS,
        solves = x->form == NK_BLAS_TRSM;
    nk_call_args args = call_args(x->alpha, (nk_scalar){0, 0}, is_conj, 0);
    if (x->side == NK_RIGHT) { /* B.T = op(A).T @ B.T */
        is_transposed = !is_transposed;
        b = nk_transposed(b), m = x->n, n = x->m;
    }
    if (is_transposed)
        a = nk_transposed(a), stored = nk_transposed_triangle(stored);
    int done = 0;
    if (is_for_engine(x))
        done = solves ? nk_trsm(x->dtype, stored, is_unit, m, n, a, b, args)
                      : nk_trmm(x->dtype, stored, is_unit, m, n, a, b, args);
    if (!done && has_loops(x))
        nk_reference_triangular(x->dtype, stored, is_unit, solves, m, n, a, b, &args);
    return done || has_loops(x);
}

/* ---- the call ---- */

static void report_illegal_argument(const nk_blas_call *x, int position)
{
    fprintf(stderr, "nkblas: %s: argument %d has an illegal value\n", x->routine->name, position);
}

/* The most multiply-adds for which another BLAS takes less time than the engine takes to find the plan. */
enum { SMALL_PRODUCT = 1000, SMALL_GEMV = 4096 };

static int is_small(const nk_blas_call *x)
{
    double m = (double)x->m, n = (double)x->n, k = (double)x->k;
    switch (x->form) {
    case NK_BLAS_GEMM: return m * n * k <= SMALL_PRODUCT;
    case NK_BLAS_GEMV: return m * n <= SMALL_GEMV;
    case NK_BLAS_SYMM:
    case NK_BLAS_TRMM:
    case NK_BLAS_TRSM: return m * n * (x->side == NK_LEFT ? m : n) <= SMALL_PRODUCT;
    default: return n * n * k <= SMALL_PRODUCT;
    }
}

/* Whether the other BLAS is to do a call. In a thread that can't wait for plans it does the routines of
   several products: it could be needed when some of them are done. */
static int is_for_original(const nk_blas_call *x)
{
    int has_one_product = x->form <= NK_BLAS_RANK_K;
    return is_small(x) || (!has_one_product && nk_is_foreign_thread());
}

/* Whether an argument is one of OpenBLAS's extension. */
static int is_extended(const nk_blas_call *x)
{
    return x->trans_a == NK_CONJ_NO_TRANS || x->trans_b == NK_CONJ_NO_TRANS;
}

int nk_blas_run(const nk_blas_call *x)
{
    int has_original = x->routine->original != NULL;
    if (has_original && nk_passes_through())
        return 0;
    __atomic_add_fetch(&x->routine->calls, 1, __ATOMIC_RELAXED);
    if (has_original && is_extended(x))
        return 0;
    int illegal = nk_blas_illegal_argument(x);
    if (illegal) {
        report_illegal_argument(x, illegal);
        return 1;
    }
    if (has_original && is_for_original(x))
        return 0;
    nk_set_never_waits(has_original);
    int is_gemv = x->form == NK_BLAS_GEMV, has_own_beta = x->form < NK_BLAS_TRMM;
    int is_general = x->form == NK_BLAS_GEMM || is_gemv;
    int has_k = x->form <= NK_BLAS_RANK_2K && !is_gemv;
    int64_t rows = has_k && !is_general ? x->n : x->m;
    if (rows == 0 || x->n == 0)
        return 1;
    int is_zero = (x->alpha.re == 0 && x->alpha.im == 0) || (has_k && x->k == 0);
    nk_matrix a = stored_matrix(x, x->a, x->lda), b = stored_matrix(x, x->b, x->ldb);
    nk_matrix c = stored_matrix(x, x->c, x->ldc);
    int64_t c_columns = x->n;
    if (is_gemv) {
        int is_transposed = x->trans_a != NK_NO_TRANS;
        rows = is_transposed ? x->n : x->m, c_columns = 1;
        b = column(x, x->b, is_transposed ? x->m : x->n, x->ldb), c = column(x, x->c, rows, x->ldc);
    }
    if (is_zero) {
        nk_scalar factor = has_own_beta ? x->beta : (nk_scalar){0, 0};
        int is_triangle = x->form >= NK_BLAS_GEMMT && x->form <= NK_BLAS_RANK_2K;
        scale(x, rows, c_columns, c, is_triangle ? triangle_of(x) : NK_GENERAL, factor);
        if (x->is_hermitian && is_triangle && (factor.re != 1 || factor.im != 0))
            make_diagonal_real(x, c);
        return 1;
    }
    switch (x->form) {
    case NK_BLAS_SYMM: return run_symm(x, a, b, c);
    case NK_BLAS_TRMM:
    case NK_BLAS_TRSM: return run_triangular(x, a, c);
    default: return run_product(x, a, b, c);
    }
}

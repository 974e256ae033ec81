/* The rules for the arguments of BLAS routines. (Reference BLAS and CBLAS, netlib.org/blas) */
#include "blas_call.h"

/* The position of each argument in Fortran's call, 0 if there is none; CBLAS has the order before. */
typedef struct {
    int side, uplo, trans_a, trans_b, diag, m, n, k, lda, ldb, ldc;
} positions;

static const positions positions_of[NK_BLAS_FORMS] = {
    [NK_BLAS_GEMM] =
        {.trans_a = 1, .trans_b = 2, .m = 3, .n = 4, .k = 5, .lda = 8, .ldb = 10, .ldc = 13},
    [NK_BLAS_GEMV] = {.trans_a = 1, .m = 2, .n = 3, .lda = 6, .ldb = 8, .ldc = 11},
    [NK_BLAS_GEMMT] =
        {.uplo = 1, .trans_a = 2, .trans_b = 3, .n = 4, .k = 5, .lda = 8, .ldb = 10, .ldc = 13},
    [NK_BLAS_RANK_K] = {.uplo = 1, .trans_a = 2, .n = 3, .k = 4, .lda = 7, .ldc = 10},
    [NK_BLAS_RANK_2K] = {.uplo = 1, .trans_a = 2, .n = 3, .k = 4, .lda = 7, .ldb = 9, .ldc = 12},
    [NK_BLAS_SYMM] = {.side = 1, .uplo = 2, .m = 3, .n = 4, .lda = 7, .ldb = 9, .ldc = 12},
    [NK_BLAS_TRMM] =
        {.side = 1, .uplo = 2, .trans_a = 3, .diag = 4, .m = 5, .n = 6, .lda = 9, .ldc = 11},
    [NK_BLAS_TRSM] =
        {.side = 1, .uplo = 2, .trans_a = 3, .diag = 4, .m = 5, .n = 6, .lda = 9, .ldc = 11},
};

nk_blas_shapes nk_blas_shapes_of(const nk_blas_call *x)
{
    int64_t m = x->m, n = x->n, k = x->k, side = x->side == NK_LEFT ? m : n;
    int is_a_transposed = x->trans_a != NK_NO_TRANS, is_b_transposed = x->trans_b != NK_NO_TRANS;
    switch (x->form) {
    case NK_BLAS_GEMV: return (nk_blas_shapes){m, n, 0, 0, 0, 0};
    case NK_BLAS_SYMM: return (nk_blas_shapes){side, side, m, n, m, n};
    case NK_BLAS_TRMM:
    case NK_BLAS_TRSM: return (nk_blas_shapes){side, side, 0, 0, m, n};
    case NK_BLAS_GEMMT: m = n; break;
    case NK_BLAS_RANK_K:
    case NK_BLAS_RANK_2K: m = n, is_b_transposed = !is_a_transposed; break;
    default: break;
    }
    nk_blas_shapes shapes = {m, k, k, n, m, n};
    if (is_a_transposed)
        shapes.a_rows = k, shapes.a_columns = m;
    if (is_b_transposed)
        shapes.b_rows = n, shapes.b_columns = k;
    return shapes;
}

static int is_one_of(int value, int first, int last) { return first <= value && value <= last; }

/* Which transposes of A a routine has: a real matrix also that of its conjugate. */
static int is_trans_legal(const nk_blas_call *x)
{
    int has_one_transpose = x->form == NK_BLAS_RANK_K || x->form == NK_BLAS_RANK_2K;
    if (!is_one_of(x->trans_a, NK_NO_TRANS, NK_CONJ_TRANS))
        return 0;
    if (!nk_is_complex(x->dtype) || !has_one_transpose)
        return 1;
    return x->trans_a != (x->is_hermitian ? NK_TRANS : NK_CONJ_TRANS);
}

static int is_leading_dimension(const nk_blas_call *x, int64_t ld, int64_t rows, int64_t columns)
{
    return ld >= nk_max(1, x->order == NK_ROW_MAJOR ? columns : rows);
}

int nk_blas_illegal_argument(const nk_blas_call *x)
{
    const positions *p = &positions_of[x->form];
    nk_blas_shapes shapes = nk_blas_shapes_of(x);
    int is_gemv = x->form == NK_BLAS_GEMV;
    struct {
        int position, is_legal;
    } arguments[] = {
        {p->side, is_one_of(x->side, NK_LEFT, NK_RIGHT)},
        {p->uplo, is_one_of(x->uplo, NK_BLAS_UPPER, NK_BLAS_LOWER)},
        {p->trans_a, is_trans_legal(x)},
        {p->trans_b, is_one_of(x->trans_b, NK_NO_TRANS, NK_CONJ_TRANS)},
        {p->diag, is_one_of(x->diag, NK_NON_UNIT, NK_UNIT)},
        {p->m, x->m >= 0},
        {p->n, x->n >= 0},
        {p->k, x->k >= 0},
        {p->lda, is_leading_dimension(x, x->lda, shapes.a_rows, shapes.a_columns)},
        {p->ldb,
         is_gemv ? x->ldb != 0 : is_leading_dimension(x, x->ldb, shapes.b_rows, shapes.b_columns)},
        {p->ldc,
         is_gemv ? x->ldc != 0 : is_leading_dimension(x, x->ldc, shapes.c_rows, shapes.c_columns)},
    };
    if (!is_one_of(x->order, NK_ROW_MAJOR, NK_COLUMN_MAJOR))
        return 1;
    int first = 0;
    for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++) {
        int position = arguments[i].position;
        if (position && !arguments[i].is_legal && (!first || position < first))
            first = position;
    }
    return first ? first + x->is_cblas : 0;
}

/* The entries for one size of integers: included with INT, and CBLAS and FORTRAN, which make the names. */
#include "blas_call.h"
#include "entries.h"

#define DTYPE_s NK_FLOAT32
#define DTYPE_d NK_FLOAT64
#define DTYPE_c NK_COMPLEX64
#define DTYPE_z NK_COMPLEX128

/* A factor: of a real type by value in CBLAS, by address in Fortran; of a complex type by address. */
#define FACTOR_s float
#define FACTOR_d double
#define FACTOR_c const void *
#define FACTOR_z const void *

#define VALUE_s(x) ((nk_scalar){x, 0})
#define VALUE_d(x) ((nk_scalar){x, 0})
#define VALUE_c(x) ((nk_scalar){((const float *)(x))[0], ((const float *)(x))[1]})
#define VALUE_z(x) ((nk_scalar){((const double *)(x))[0], ((const double *)(x))[1]})

#define POINTED_s(x) ((nk_scalar){*(const float *)(x), 0})
#define POINTED_d(x) ((nk_scalar){*(const double *)(x), 0})
#define POINTED_c VALUE_c
#define POINTED_z VALUE_z

static int trans_of(const char *letter)
{
    switch (*letter | 0x20) {
    case 'n': return NK_NO_TRANS;
    case 't': return NK_TRANS;
    case 'c': return NK_CONJ_TRANS;
    case 'r': return NK_CONJ_NO_TRANS;
    default: return 0;
    }
}

/* Of two letters, the number of the first or the second; 0: it is neither. */
static int option_of(const char *letter, char first, int number_of_first, char second,
                     int number_of_second)
{
    char lower = *letter | 0x20;
    return lower == first ? number_of_first : lower == second ? number_of_second : 0;
}

static int uplo_of(const char *letter)
{
    return option_of(letter, 'u', NK_BLAS_UPPER, 'l', NK_BLAS_LOWER);
}

static int side_of(const char *letter) { return option_of(letter, 'l', NK_LEFT, 'r', NK_RIGHT); }

static int diag_of(const char *letter) { return option_of(letter, 'n', NK_NON_UNIT, 'u', NK_UNIT); }

/* Run a call, or the other BLAS's function with the same arguments. */
#define RUN(function, ...)                                                                         \
    if (!nk_blas_run(&call))                                                                       \
    ((__typeof__(&function))call.routine->original)(__VA_ARGS__)

#define CALL_FROM_C(name, letter, is_herm, kind)                                                   \
    .routine = &nk_routines[NK_ENTRIES * NK_INDEX_##name + CBLAS_ENTRY], .dtype = DTYPE_##letter,  \
    .form = kind, .is_cblas = 1, .is_hermitian = is_herm, .order = order

#define CALL_FROM_FORTRAN(name, letter, is_herm, kind)                                             \
    .routine = &nk_routines[NK_ENTRIES * NK_INDEX_##name + FORTRAN_ENTRY],                         \
    .dtype = DTYPE_##letter, .form = kind, .is_hermitian = is_herm, .order = NK_COLUMN_MAJOR

/* ---- GEMM ---- */

#define DEFINE_GEMM(t)                                                                             \
    void CBLAS(t##gemm)(int order, int trans_a, int trans_b, INT m, INT n, INT k,                  \
                        FACTOR_##t alpha, const void *a, INT lda, const void *b, INT ldb,          \
                        FACTOR_##t beta, void *c, INT ldc)                                         \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_C(t##gemm, t, 0, NK_BLAS_GEMM),                             \
                             .trans_a = trans_a,                                                   \
                             .trans_b = trans_b,                                                   \
                             .m = m,                                                               \
                             .n = n,                                                               \
                             .k = k,                                                               \
                             .alpha = VALUE_##t(alpha),                                            \
                             .beta = VALUE_##t(beta),                                              \
                             .a = a,                                                               \
                             .b = b,                                                               \
                             .c = c,                                                               \
                             .lda = lda,                                                           \
                             .ldb = ldb,                                                           \
                             .ldc = ldc};                                                          \
        RUN(CBLAS(t##gemm), order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c,      \
            ldc);                                                                                  \
    }                                                                                              \
    void FORTRAN(t##gemm)(const char *trans_a, const char *trans_b, const INT *m, const INT *n,    \
                          const INT *k, const void *alpha, const void *a, const INT *lda,          \
                          const void *b, const INT *ldb, const void *beta, void *c,                \
                          const INT *ldc)                                                          \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_FORTRAN(t##gemm, t, 0, NK_BLAS_GEMM),                       \
                             .trans_a = trans_of(trans_a),                                         \
                             .trans_b = trans_of(trans_b),                                         \
                             .m = *m,                                                              \
                             .n = *n,                                                              \
                             .k = *k,                                                              \
                             .alpha = POINTED_##t(alpha),                                          \
                             .beta = POINTED_##t(beta),                                            \
                             .a = a,                                                               \
                             .b = b,                                                               \
                             .c = c,                                                               \
                             .lda = *lda,                                                          \
                             .ldb = *ldb,                                                          \
                             .ldc = *ldc};                                                         \
        RUN(FORTRAN(t##gemm), trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);     \
    }

/* ---- GEMV ---- */

#define DEFINE_GEMV(t)                                                                             \
    void CBLAS(t##gemv)(int order, int trans, INT m, INT n, FACTOR_##t alpha, const void *a,       \
                        INT lda, const void *x, INT incx, FACTOR_##t beta, void *y, INT incy)      \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_C(t##gemv, t, 0, NK_BLAS_GEMV),                             \
                             .trans_a = trans,                                                     \
                             .m = m,                                                               \
                             .n = n,                                                               \
                             .alpha = VALUE_##t(alpha),                                            \
                             .beta = VALUE_##t(beta),                                              \
                             .a = a,                                                               \
                             .b = x,                                                               \
                             .c = y,                                                               \
                             .lda = lda,                                                           \
                             .ldb = incx,                                                          \
                             .ldc = incy};                                                         \
        RUN(CBLAS(t##gemv), order, trans, m, n, alpha, a, lda, x, incx, beta, y, incy);            \
    }                                                                                              \
    void FORTRAN(t##gemv)(const char *trans, const INT *m, const INT *n, const void *alpha,        \
                          const void *a, const INT *lda, const void *x, const INT *incx,           \
                          const void *beta, void *y, const INT *incy)                              \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_FORTRAN(t##gemv, t, 0, NK_BLAS_GEMV),                       \
                             .trans_a = trans_of(trans),                                           \
                             .m = *m,                                                              \
                             .n = *n,                                                              \
                             .alpha = POINTED_##t(alpha),                                          \
                             .beta = POINTED_##t(beta),                                            \
                             .a = a,                                                               \
                             .b = x,                                                               \
                             .c = y,                                                               \
                             .lda = *lda,                                                          \
                             .ldb = *incx,                                                         \
                             .ldc = *incy};                                                        \
        RUN(FORTRAN(t##gemv), trans, m, n, alpha, a, lda, x, incx, beta, y, incy);                 \
    }

/* ---- GEMMT ---- */

#define DEFINE_GEMMT(t)                                                                            \
    void CBLAS(t##gemmt)(int order, int uplo, int trans_a, int trans_b, INT n, INT k,              \
                         FACTOR_##t alpha, const void *a, INT lda, const void *b, INT ldb,         \
                         FACTOR_##t beta, void *c, INT ldc)                                        \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_C(t##gemmt, t, 0, NK_BLAS_GEMMT),                           \
                             .uplo = uplo,                                                         \
                             .trans_a = trans_a,                                                   \
                             .trans_b = trans_b,                                                   \
                             .n = n,                                                               \
                             .k = k,                                                               \
                             .alpha = VALUE_##t(alpha),                                            \
                             .beta = VALUE_##t(beta),                                              \
                             .a = a,                                                               \
                             .b = b,                                                               \
                             .c = c,                                                               \
                             .lda = lda,                                                           \
                             .ldb = ldb,                                                           \
                             .ldc = ldc};                                                          \
        RUN(CBLAS(t##gemmt), order, uplo, trans_a, trans_b, n, k, alpha, a, lda, b, ldb, beta, c,  \
            ldc);                                                                                  \
    }                                                                                              \
    void FORTRAN(t##gemmt)(const char *uplo, const char *trans_a, const char *trans_b,             \
                           const INT *n, const INT *k, const void *alpha, const void *a,           \
                           const INT *lda, const void *b, const INT *ldb, const void *beta,        \
                           void *c, const INT *ldc)                                                \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_FORTRAN(t##gemmt, t, 0, NK_BLAS_GEMMT),                     \
                             .uplo = uplo_of(uplo),                                                \
                             .trans_a = trans_of(trans_a),                                         \
                             .trans_b = trans_of(trans_b),                                         \
                             .n = *n,                                                              \
                             .k = *k,                                                              \
                             .alpha = POINTED_##t(alpha),                                          \
                             .beta = POINTED_##t(beta),                                            \
                             .a = a,                                                               \
                             .b = b,                                                               \
                             .c = c,                                                               \
                             .lda = *lda,                                                          \
                             .ldb = *ldb,                                                          \
                             .ldc = *ldc};                                                         \
        RUN(FORTRAN(t##gemmt), uplo, trans_a, trans_b, n, k, alpha, a, lda, b, ldb, beta, c, ldc); \
    }

/* ---- SYRK and HERK: FACTOR, VALUE and POINTED are of alpha and beta ---- */

#define DEFINE_RANK_K(t, name, is_herm, FACTOR, VALUE, POINTED)                                    \
    void CBLAS(t##name)(int order, int uplo, int trans, INT n, INT k, FACTOR alpha, const void *a, \
                        INT lda, FACTOR beta, void *c, INT ldc)                                    \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_C(t##name, t, is_herm, NK_BLAS_RANK_K),                     \
                             .uplo = uplo,                                                         \
                             .trans_a = trans,                                                     \
                             .n = n,                                                               \
                             .k = k,                                                               \
                             .alpha = VALUE(alpha),                                                \
                             .beta = VALUE(beta),                                                  \
                             .a = a,                                                               \
                             .c = c,                                                               \
                             .lda = lda,                                                           \
                             .ldc = ldc};                                                          \
        RUN(CBLAS(t##name), order, uplo, trans, n, k, alpha, a, lda, beta, c, ldc);                \
    }                                                                                              \
    void FORTRAN(t##name)(const char *uplo, const char *trans, const INT *n, const INT *k,         \
                          const void *alpha, const void *a, const INT *lda, const void *beta,      \
                          void *c, const INT *ldc)                                                 \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_FORTRAN(t##name, t, is_herm, NK_BLAS_RANK_K),               \
                             .uplo = uplo_of(uplo),                                                \
                             .trans_a = trans_of(trans),                                           \
                             .n = *n,                                                              \
                             .k = *k,                                                              \
                             .alpha = POINTED(alpha),                                              \
                             .beta = POINTED(beta),                                                \
                             .a = a,                                                               \
                             .c = c,                                                               \
                             .lda = *lda,                                                          \
                             .ldc = *ldc};                                                         \
        RUN(FORTRAN(t##name), uplo, trans, n, k, alpha, a, lda, beta, c, ldc);                     \
    }

/* ---- SYR2K and HER2K, whose beta is real ---- */

#define DEFINE_RANK_2K(t, name, is_herm, BETA, BETA_VALUE, BETA_POINTED)                           \
    void CBLAS(t##name)(int order, int uplo, int trans, INT n, INT k, FACTOR_##t alpha,            \
                        const void *a, INT lda, const void *b, INT ldb, BETA beta, void *c,        \
                        INT ldc)                                                                   \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_C(t##name, t, is_herm, NK_BLAS_RANK_2K),                    \
                             .uplo = uplo,                                                         \
                             .trans_a = trans,                                                     \
                             .n = n,                                                               \
                             .k = k,                                                               \
                             .alpha = VALUE_##t(alpha),                                            \
                             .beta = BETA_VALUE(beta),                                             \
                             .a = a,                                                               \
                             .b = b,                                                               \
                             .c = c,                                                               \
                             .lda = lda,                                                           \
                             .ldb = ldb,                                                           \
                             .ldc = ldc};                                                          \
        RUN(CBLAS(t##name), order, uplo, trans, n, k, alpha, a, lda, b, ldb, beta, c, ldc);        \
    }                                                                                              \
    void FORTRAN(t##name)(const char *uplo, const char *trans, const INT *n, const INT *k,         \
                          const void *alpha, const void *a, const INT *lda, const void *b,         \
                          const INT *ldb, const void *beta, void *c, const INT *ldc)               \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_FORTRAN(t##name, t, is_herm, NK_BLAS_RANK_2K),              \
                             .uplo = uplo_of(uplo),                                                \
                             .trans_a = trans_of(trans),                                           \
                             .n = *n,                                                              \
                             .k = *k,                                                              \
                             .alpha = POINTED_##t(alpha),                                          \
                             .beta = BETA_POINTED(beta),                                           \
                             .a = a,                                                               \
                             .b = b,                                                               \
                             .c = c,                                                               \
                             .lda = *lda,                                                          \
                             .ldb = *ldb,                                                          \
                             .ldc = *ldc};                                                         \
        RUN(FORTRAN(t##name), uplo, trans, n, k, alpha, a, lda, b, ldb, beta, c, ldc);             \
    }

/* ---- SYMM and HEMM ---- */

#define DEFINE_SYMM(t, name, is_herm)                                                              \
    void CBLAS(t##name)(int order, int side, int uplo, INT m, INT n, FACTOR_##t alpha,             \
                        const void *a, INT lda, const void *b, INT ldb, FACTOR_##t beta, void *c,  \
                        INT ldc)                                                                   \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_C(t##name, t, is_herm, NK_BLAS_SYMM),                       \
                             .side = side,                                                         \
                             .uplo = uplo,                                                         \
                             .m = m,                                                               \
                             .n = n,                                                               \
                             .alpha = VALUE_##t(alpha),                                            \
                             .beta = VALUE_##t(beta),                                              \
                             .a = a,                                                               \
                             .b = b,                                                               \
                             .c = c,                                                               \
                             .lda = lda,                                                           \
                             .ldb = ldb,                                                           \
                             .ldc = ldc};                                                          \
        RUN(CBLAS(t##name), order, side, uplo, m, n, alpha, a, lda, b, ldb, beta, c, ldc);         \
    }                                                                                              \
    void FORTRAN(t##name)(const char *side, const char *uplo, const INT *m, const INT *n,          \
                          const void *alpha, const void *a, const INT *lda, const void *b,         \
                          const INT *ldb, const void *beta, void *c, const INT *ldc)               \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_FORTRAN(t##name, t, is_herm, NK_BLAS_SYMM),                 \
                             .side = side_of(side),                                                \
                             .uplo = uplo_of(uplo),                                                \
                             .m = *m,                                                              \
                             .n = *n,                                                              \
                             .alpha = POINTED_##t(alpha),                                          \
                             .beta = POINTED_##t(beta),                                            \
                             .a = a,                                                               \
                             .b = b,                                                               \
                             .c = c,                                                               \
                             .lda = *lda,                                                          \
                             .ldb = *ldb,                                                          \
                             .ldc = *ldc};                                                         \
        RUN(FORTRAN(t##name), side, uplo, m, n, alpha, a, lda, b, ldb, beta, c, ldc);              \
    }

/* ---- TRMM and TRSM ---- */

#define DEFINE_TRIANGULAR(t, name, kind)                                                           \
    void CBLAS(t##name)(int order, int side, int uplo, int trans, int diag, INT m, INT n,          \
                        FACTOR_##t alpha, const void *a, INT lda, void *b, INT ldb)                \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_C(t##name, t, 0, kind),                                     \
                             .side = side,                                                         \
                             .uplo = uplo,                                                         \
                             .trans_a = trans,                                                     \
                             .diag = diag,                                                         \
                             .m = m,                                                               \
                             .n = n,                                                               \
                             .alpha = VALUE_##t(alpha),                                            \
                             .a = a,                                                               \
                             .c = b,                                                               \
                             .lda = lda,                                                           \
                             .ldc = ldb};                                                          \
        RUN(CBLAS(t##name), order, side, uplo, trans, diag, m, n, alpha, a, lda, b, ldb);          \
    }                                                                                              \
    void FORTRAN(t##name)(const char *side, const char *uplo, const char *trans, const char *diag, \
                          const INT *m, const INT *n, const void *alpha, const void *a,            \
                          const INT *lda, void *b, const INT *ldb)                                 \
    {                                                                                              \
        nk_blas_call call = {CALL_FROM_FORTRAN(t##name, t, 0, kind),                               \
                             .side = side_of(side),                                                \
                             .uplo = uplo_of(uplo),                                                \
                             .trans_a = trans_of(trans),                                           \
                             .diag = diag_of(diag),                                                \
                             .m = *m,                                                              \
                             .n = *n,                                                              \
                             .alpha = POINTED_##t(alpha),                                          \
                             .a = a,                                                               \
                             .c = b,                                                               \
                             .lda = *lda,                                                          \
                             .ldc = *ldb};                                                         \
        RUN(FORTRAN(t##name), side, uplo, trans, diag, m, n, alpha, a, lda, b, ldb);               \
    }

#define DEFINE_ALL(t)                                                                              \
    DEFINE_GEMM(t)                                                                                 \
    DEFINE_GEMV(t)                                                                                 \
    DEFINE_GEMMT(t)                                                                                \
    DEFINE_RANK_K(t, syrk, 0, FACTOR_##t, VALUE_##t, POINTED_##t)                                  \
    DEFINE_RANK_2K(t, syr2k, 0, FACTOR_##t, VALUE_##t, POINTED_##t)                                \
    DEFINE_SYMM(t, symm, 0)                                                                        \
    DEFINE_TRIANGULAR(t, trmm, NK_BLAS_TRMM)                                                       \
    DEFINE_TRIANGULAR(t, trsm, NK_BLAS_TRSM)

DEFINE_ALL(s)
DEFINE_ALL(d)
DEFINE_ALL(c)
DEFINE_ALL(z)

#define DEFINE_HERMITIAN(t, real)                                                                  \
    DEFINE_RANK_K(t, herk, 1, FACTOR_##real, VALUE_##real, POINTED_##real)                         \
    DEFINE_RANK_2K(t, her2k, 1, FACTOR_##real, VALUE_##real, POINTED_##real)                       \
    DEFINE_SYMM(t, hemm, 1)

DEFINE_HERMITIAN(c, s)
DEFINE_HERMITIAN(z, d)

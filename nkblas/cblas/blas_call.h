/* A call of a BLAS routine, from CBLAS or from Fortran. */
#ifndef NK_BLAS_CALL_H
#define NK_BLAS_CALL_H

#include "nkblas.h"
#include "routines.h"

/* Which arguments a routine has, and what it computes. Of a product's triangle, RANK_K and RANK_2K have
   the transposes of A and B as right-hand operands. */
typedef enum {
    NK_BLAS_GEMM,
    NK_BLAS_GEMV,
    NK_BLAS_GEMMT,
    NK_BLAS_RANK_K,
    NK_BLAS_RANK_2K,
    NK_BLAS_SYMM,
    NK_BLAS_TRMM,
    NK_BLAS_TRSM,
    NK_BLAS_FORMS
} nk_blas_form;

/* CBLAS's numbers. Fortran's letters are converted to them, and what is neither to 0. */
enum { NK_ROW_MAJOR = 101, NK_COLUMN_MAJOR };
enum { NK_NO_TRANS = 111, NK_TRANS, NK_CONJ_TRANS };
enum { NK_CONJ_NO_TRANS = 114 }; /* of OpenBLAS; it is illegal here */
enum { NK_BLAS_UPPER = 121, NK_BLAS_LOWER };
enum { NK_NON_UNIT = 131, NK_UNIT };
enum { NK_LEFT = 141, NK_RIGHT };

typedef struct {
    double re, im;
} nk_scalar;

typedef struct {
    nk_routine *routine;
    int32_t dtype;
    nk_blas_form form;
    int is_cblas, is_hermitian;
    int order, trans_a, trans_b, side, uplo, diag; /* those that the routine has */
    int64_t m, n, k;
    nk_scalar alpha, beta;
    const void *a, *b; /* of GEMV, b is x, with increment ldb */
    void *c;           /* of GEMV y, with increment ldc; of TRMM and TRSM, B */
    int64_t lda, ldb, ldc;
} nk_blas_call;

/* Check the arguments and compute; an error is a line on stderr, and C is unchanged. Returns 0 if the
   caller has to call routine->original, which is not NULL then. */
int nk_blas_run(const nk_blas_call *x);

/* check.c: the number of the first argument with an illegal value, or 0. */
int nk_blas_illegal_argument(const nk_blas_call *x);

/* The numbers of rows and columns of A, B and C as they are stored. */
typedef struct {
    int64_t a_rows, a_columns, b_rows, b_columns, c_rows, c_columns;
} nk_blas_shapes;
nk_blas_shapes nk_blas_shapes_of(const nk_blas_call *x);

/* fallback.c: plain loops. A is triangular, or symmetric (Hermitian), as for nk_symm and nk_trmm. */
void nk_reference_symm(int32_t dtype, nk_triangle stored, int32_t is_hermitian, int64_t m,
                       int64_t n, nk_matrix a, nk_matrix b, nk_matrix c, const nk_call_args *args);
void nk_reference_triangular(int32_t dtype, nk_triangle stored, int32_t is_unit, int32_t solves,
                             int64_t m, int64_t n, nk_matrix a, nk_matrix b,
                             const nk_call_args *args);

#endif

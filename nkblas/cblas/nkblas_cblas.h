/* nkblas's routines for C, Fortran and Cython code: the names, arguments and numbers of CBLAS and BLAS.

   Link the library whose path is nkblas.get_library(). It needs a process that runs Python and has
   imported nkblas. Any thread may call; it need not hold the GIL. Orders, transposes, triangles, sides and
   diagonals have CBLAS's numbers; a complex factor is given by its address. A file includes this header or
   another BLAS's cblas.h, whose prototypes have other types: with either it can be linked. */
#ifndef NKBLAS_CBLAS_H
#define NKBLAS_CBLAS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CblasRowMajor = 101, CblasColMajor = 102 };
enum { CblasNoTrans = 111, CblasTrans = 112, CblasConjTrans = 113 };
enum { CblasUpper = 121, CblasLower = 122 };
enum { CblasNonUnit = 131, CblasUnit = 132 };
enum { CblasLeft = 141, CblasRight = 142 };

/* ---- 32-bit integers ---- */

void cblas_sgemm(int order, int trans_a, int trans_b, int32_t m, int32_t n, int32_t k, float alpha,
                 const void *a, int32_t lda, const void *b, int32_t ldb, float beta, void *c,
                 int32_t ldc);
void sgemm_(const char *trans_a, const char *trans_b, const int32_t *m, const int32_t *n,
            const int32_t *k, const void *alpha, const void *a, const int32_t *lda, const void *b,
            const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_sgemv(int order, int trans, int32_t m, int32_t n, float alpha, const void *a,
                 int32_t lda, const void *x, int32_t incx, float beta, void *y, int32_t incy);
void sgemv_(const char *trans, const int32_t *m, const int32_t *n, const void *alpha, const void *a,
            const int32_t *lda, const void *x, const int32_t *incx, const void *beta, void *y,
            const int32_t *incy);
void cblas_sgemmt(int order, int uplo, int trans_a, int trans_b, int32_t n, int32_t k, float alpha,
                  const void *a, int32_t lda, const void *b, int32_t ldb, float beta, void *c,
                  int32_t ldc);
void sgemmt_(const char *uplo, const char *trans_a, const char *trans_b, const int32_t *n,
             const int32_t *k, const void *alpha, const void *a, const int32_t *lda, const void *b,
             const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_ssyrk(int order, int uplo, int trans, int32_t n, int32_t k, float alpha, const void *a,
                 int32_t lda, float beta, void *c, int32_t ldc);
void ssyrk_(const char *uplo, const char *trans, const int32_t *n, const int32_t *k,
            const void *alpha, const void *a, const int32_t *lda, const void *beta, void *c,
            const int32_t *ldc);
void cblas_ssyr2k(int order, int uplo, int trans, int32_t n, int32_t k, float alpha, const void *a,
                  int32_t lda, const void *b, int32_t ldb, float beta, void *c, int32_t ldc);
void ssyr2k_(const char *uplo, const char *trans, const int32_t *n, const int32_t *k,
             const void *alpha, const void *a, const int32_t *lda, const void *b,
             const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_ssymm(int order, int side, int uplo, int32_t m, int32_t n, float alpha, const void *a,
                 int32_t lda, const void *b, int32_t ldb, float beta, void *c, int32_t ldc);
void ssymm_(const char *side, const char *uplo, const int32_t *m, const int32_t *n,
            const void *alpha, const void *a, const int32_t *lda, const void *b, const int32_t *ldb,
            const void *beta, void *c, const int32_t *ldc);
void cblas_strmm(int order, int side, int uplo, int trans, int diag, int32_t m, int32_t n,
                 float alpha, const void *a, int32_t lda, void *b, int32_t ldb);
void strmm_(const char *side, const char *uplo, const char *trans, const char *diag,
            const int32_t *m, const int32_t *n, const void *alpha, const void *a,
            const int32_t *lda, void *b, const int32_t *ldb);
void cblas_strsm(int order, int side, int uplo, int trans, int diag, int32_t m, int32_t n,
                 float alpha, const void *a, int32_t lda, void *b, int32_t ldb);
void strsm_(const char *side, const char *uplo, const char *trans, const char *diag,
            const int32_t *m, const int32_t *n, const void *alpha, const void *a,
            const int32_t *lda, void *b, const int32_t *ldb);
void cblas_dgemm(int order, int trans_a, int trans_b, int32_t m, int32_t n, int32_t k, double alpha,
                 const void *a, int32_t lda, const void *b, int32_t ldb, double beta, void *c,
                 int32_t ldc);
void dgemm_(const char *trans_a, const char *trans_b, const int32_t *m, const int32_t *n,
            const int32_t *k, const void *alpha, const void *a, const int32_t *lda, const void *b,
            const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_dgemv(int order, int trans, int32_t m, int32_t n, double alpha, const void *a,
                 int32_t lda, const void *x, int32_t incx, double beta, void *y, int32_t incy);
void dgemv_(const char *trans, const int32_t *m, const int32_t *n, const void *alpha, const void *a,
            const int32_t *lda, const void *x, const int32_t *incx, const void *beta, void *y,
            const int32_t *incy);
void cblas_dgemmt(int order, int uplo, int trans_a, int trans_b, int32_t n, int32_t k, double alpha,
                  const void *a, int32_t lda, const void *b, int32_t ldb, double beta, void *c,
                  int32_t ldc);
void dgemmt_(const char *uplo, const char *trans_a, const char *trans_b, const int32_t *n,
             const int32_t *k, const void *alpha, const void *a, const int32_t *lda, const void *b,
             const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_dsyrk(int order, int uplo, int trans, int32_t n, int32_t k, double alpha, const void *a,
                 int32_t lda, double beta, void *c, int32_t ldc);
void dsyrk_(const char *uplo, const char *trans, const int32_t *n, const int32_t *k,
            const void *alpha, const void *a, const int32_t *lda, const void *beta, void *c,
            const int32_t *ldc);
void cblas_dsyr2k(int order, int uplo, int trans, int32_t n, int32_t k, double alpha, const void *a,
                  int32_t lda, const void *b, int32_t ldb, double beta, void *c, int32_t ldc);
void dsyr2k_(const char *uplo, const char *trans, const int32_t *n, const int32_t *k,
             const void *alpha, const void *a, const int32_t *lda, const void *b,
             const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_dsymm(int order, int side, int uplo, int32_t m, int32_t n, double alpha, const void *a,
                 int32_t lda, const void *b, int32_t ldb, double beta, void *c, int32_t ldc);
void dsymm_(const char *side, const char *uplo, const int32_t *m, const int32_t *n,
            const void *alpha, const void *a, const int32_t *lda, const void *b, const int32_t *ldb,
            const void *beta, void *c, const int32_t *ldc);
void cblas_dtrmm(int order, int side, int uplo, int trans, int diag, int32_t m, int32_t n,
                 double alpha, const void *a, int32_t lda, void *b, int32_t ldb);
void dtrmm_(const char *side, const char *uplo, const char *trans, const char *diag,
            const int32_t *m, const int32_t *n, const void *alpha, const void *a,
            const int32_t *lda, void *b, const int32_t *ldb);
void cblas_dtrsm(int order, int side, int uplo, int trans, int diag, int32_t m, int32_t n,
                 double alpha, const void *a, int32_t lda, void *b, int32_t ldb);
void dtrsm_(const char *side, const char *uplo, const char *trans, const char *diag,
            const int32_t *m, const int32_t *n, const void *alpha, const void *a,
            const int32_t *lda, void *b, const int32_t *ldb);
void cblas_cgemm(int order, int trans_a, int trans_b, int32_t m, int32_t n, int32_t k,
                 const void *alpha, const void *a, int32_t lda, const void *b, int32_t ldb,
                 const void *beta, void *c, int32_t ldc);
void cgemm_(const char *trans_a, const char *trans_b, const int32_t *m, const int32_t *n,
            const int32_t *k, const void *alpha, const void *a, const int32_t *lda, const void *b,
            const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_cgemv(int order, int trans, int32_t m, int32_t n, const void *alpha, const void *a,
                 int32_t lda, const void *x, int32_t incx, const void *beta, void *y, int32_t incy);
void cgemv_(const char *trans, const int32_t *m, const int32_t *n, const void *alpha, const void *a,
            const int32_t *lda, const void *x, const int32_t *incx, const void *beta, void *y,
            const int32_t *incy);
void cblas_cgemmt(int order, int uplo, int trans_a, int trans_b, int32_t n, int32_t k,
                  const void *alpha, const void *a, int32_t lda, const void *b, int32_t ldb,
                  const void *beta, void *c, int32_t ldc);
void cgemmt_(const char *uplo, const char *trans_a, const char *trans_b, const int32_t *n,
             const int32_t *k, const void *alpha, const void *a, const int32_t *lda, const void *b,
             const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_csyrk(int order, int uplo, int trans, int32_t n, int32_t k, const void *alpha,
                 const void *a, int32_t lda, const void *beta, void *c, int32_t ldc);
void csyrk_(const char *uplo, const char *trans, const int32_t *n, const int32_t *k,
            const void *alpha, const void *a, const int32_t *lda, const void *beta, void *c,
            const int32_t *ldc);
void cblas_cherk(int order, int uplo, int trans, int32_t n, int32_t k, float alpha, const void *a,
                 int32_t lda, float beta, void *c, int32_t ldc);
void cherk_(const char *uplo, const char *trans, const int32_t *n, const int32_t *k,
            const void *alpha, const void *a, const int32_t *lda, const void *beta, void *c,
            const int32_t *ldc);
void cblas_csyr2k(int order, int uplo, int trans, int32_t n, int32_t k, const void *alpha,
                  const void *a, int32_t lda, const void *b, int32_t ldb, const void *beta, void *c,
                  int32_t ldc);
void csyr2k_(const char *uplo, const char *trans, const int32_t *n, const int32_t *k,
             const void *alpha, const void *a, const int32_t *lda, const void *b,
             const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_cher2k(int order, int uplo, int trans, int32_t n, int32_t k, const void *alpha,
                  const void *a, int32_t lda, const void *b, int32_t ldb, float beta, void *c,
                  int32_t ldc);
void cher2k_(const char *uplo, const char *trans, const int32_t *n, const int32_t *k,
             const void *alpha, const void *a, const int32_t *lda, const void *b,
             const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_csymm(int order, int side, int uplo, int32_t m, int32_t n, const void *alpha,
                 const void *a, int32_t lda, const void *b, int32_t ldb, const void *beta, void *c,
                 int32_t ldc);
void csymm_(const char *side, const char *uplo, const int32_t *m, const int32_t *n,
            const void *alpha, const void *a, const int32_t *lda, const void *b, const int32_t *ldb,
            const void *beta, void *c, const int32_t *ldc);
void cblas_chemm(int order, int side, int uplo, int32_t m, int32_t n, const void *alpha,
                 const void *a, int32_t lda, const void *b, int32_t ldb, const void *beta, void *c,
                 int32_t ldc);
void chemm_(const char *side, const char *uplo, const int32_t *m, const int32_t *n,
            const void *alpha, const void *a, const int32_t *lda, const void *b, const int32_t *ldb,
            const void *beta, void *c, const int32_t *ldc);
void cblas_ctrmm(int order, int side, int uplo, int trans, int diag, int32_t m, int32_t n,
                 const void *alpha, const void *a, int32_t lda, void *b, int32_t ldb);
void ctrmm_(const char *side, const char *uplo, const char *trans, const char *diag,
            const int32_t *m, const int32_t *n, const void *alpha, const void *a,
            const int32_t *lda, void *b, const int32_t *ldb);
void cblas_ctrsm(int order, int side, int uplo, int trans, int diag, int32_t m, int32_t n,
                 const void *alpha, const void *a, int32_t lda, void *b, int32_t ldb);
void ctrsm_(const char *side, const char *uplo, const char *trans, const char *diag,
            const int32_t *m, const int32_t *n, const void *alpha, const void *a,
            const int32_t *lda, void *b, const int32_t *ldb);
void cblas_zgemm(int order, int trans_a, int trans_b, int32_t m, int32_t n, int32_t k,
                 const void *alpha, const void *a, int32_t lda, const void *b, int32_t ldb,
                 const void *beta, void *c, int32_t ldc);
void zgemm_(const char *trans_a, const char *trans_b, const int32_t *m, const int32_t *n,
            const int32_t *k, const void *alpha, const void *a, const int32_t *lda, const void *b,
            const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_zgemv(int order, int trans, int32_t m, int32_t n, const void *alpha, const void *a,
                 int32_t lda, const void *x, int32_t incx, const void *beta, void *y, int32_t incy);
void zgemv_(const char *trans, const int32_t *m, const int32_t *n, const void *alpha, const void *a,
            const int32_t *lda, const void *x, const int32_t *incx, const void *beta, void *y,
            const int32_t *incy);
void cblas_zgemmt(int order, int uplo, int trans_a, int trans_b, int32_t n, int32_t k,
                  const void *alpha, const void *a, int32_t lda, const void *b, int32_t ldb,
                  const void *beta, void *c, int32_t ldc);
void zgemmt_(const char *uplo, const char *trans_a, const char *trans_b, const int32_t *n,
             const int32_t *k, const void *alpha, const void *a, const int32_t *lda, const void *b,
             const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_zsyrk(int order, int uplo, int trans, int32_t n, int32_t k, const void *alpha,
                 const void *a, int32_t lda, const void *beta, void *c, int32_t ldc);
void zsyrk_(const char *uplo, const char *trans, const int32_t *n, const int32_t *k,
            const void *alpha, const void *a, const int32_t *lda, const void *beta, void *c,
            const int32_t *ldc);
void cblas_zherk(int order, int uplo, int trans, int32_t n, int32_t k, double alpha, const void *a,
                 int32_t lda, double beta, void *c, int32_t ldc);
void zherk_(const char *uplo, const char *trans, const int32_t *n, const int32_t *k,
            const void *alpha, const void *a, const int32_t *lda, const void *beta, void *c,
            const int32_t *ldc);
void cblas_zsyr2k(int order, int uplo, int trans, int32_t n, int32_t k, const void *alpha,
                  const void *a, int32_t lda, const void *b, int32_t ldb, const void *beta, void *c,
                  int32_t ldc);
void zsyr2k_(const char *uplo, const char *trans, const int32_t *n, const int32_t *k,
             const void *alpha, const void *a, const int32_t *lda, const void *b,
             const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_zher2k(int order, int uplo, int trans, int32_t n, int32_t k, const void *alpha,
                  const void *a, int32_t lda, const void *b, int32_t ldb, double beta, void *c,
                  int32_t ldc);
void zher2k_(const char *uplo, const char *trans, const int32_t *n, const int32_t *k,
             const void *alpha, const void *a, const int32_t *lda, const void *b,
             const int32_t *ldb, const void *beta, void *c, const int32_t *ldc);
void cblas_zsymm(int order, int side, int uplo, int32_t m, int32_t n, const void *alpha,
                 const void *a, int32_t lda, const void *b, int32_t ldb, const void *beta, void *c,
                 int32_t ldc);
void zsymm_(const char *side, const char *uplo, const int32_t *m, const int32_t *n,
            const void *alpha, const void *a, const int32_t *lda, const void *b, const int32_t *ldb,
            const void *beta, void *c, const int32_t *ldc);
void cblas_zhemm(int order, int side, int uplo, int32_t m, int32_t n, const void *alpha,
                 const void *a, int32_t lda, const void *b, int32_t ldb, const void *beta, void *c,
                 int32_t ldc);
void zhemm_(const char *side, const char *uplo, const int32_t *m, const int32_t *n,
            const void *alpha, const void *a, const int32_t *lda, const void *b, const int32_t *ldb,
            const void *beta, void *c, const int32_t *ldc);
void cblas_ztrmm(int order, int side, int uplo, int trans, int diag, int32_t m, int32_t n,
                 const void *alpha, const void *a, int32_t lda, void *b, int32_t ldb);
void ztrmm_(const char *side, const char *uplo, const char *trans, const char *diag,
            const int32_t *m, const int32_t *n, const void *alpha, const void *a,
            const int32_t *lda, void *b, const int32_t *ldb);
void cblas_ztrsm(int order, int side, int uplo, int trans, int diag, int32_t m, int32_t n,
                 const void *alpha, const void *a, int32_t lda, void *b, int32_t ldb);
void ztrsm_(const char *side, const char *uplo, const char *trans, const char *diag,
            const int32_t *m, const int32_t *n, const void *alpha, const void *a,
            const int32_t *lda, void *b, const int32_t *ldb);

/* ---- 64-bit integers ---- */

void cblas_sgemm64_(int order, int trans_a, int trans_b, int64_t m, int64_t n, int64_t k,
                    float alpha, const void *a, int64_t lda, const void *b, int64_t ldb, float beta,
                    void *c, int64_t ldc);
void sgemm_64_(const char *trans_a, const char *trans_b, const int64_t *m, const int64_t *n,
               const int64_t *k, const void *alpha, const void *a, const int64_t *lda,
               const void *b, const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_sgemv64_(int order, int trans, int64_t m, int64_t n, float alpha, const void *a,
                    int64_t lda, const void *x, int64_t incx, float beta, void *y, int64_t incy);
void sgemv_64_(const char *trans, const int64_t *m, const int64_t *n, const void *alpha,
               const void *a, const int64_t *lda, const void *x, const int64_t *incx,
               const void *beta, void *y, const int64_t *incy);
void cblas_sgemmt64_(int order, int uplo, int trans_a, int trans_b, int64_t n, int64_t k,
                     float alpha, const void *a, int64_t lda, const void *b, int64_t ldb,
                     float beta, void *c, int64_t ldc);
void sgemmt_64_(const char *uplo, const char *trans_a, const char *trans_b, const int64_t *n,
                const int64_t *k, const void *alpha, const void *a, const int64_t *lda,
                const void *b, const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_ssyrk64_(int order, int uplo, int trans, int64_t n, int64_t k, float alpha,
                    const void *a, int64_t lda, float beta, void *c, int64_t ldc);
void ssyrk_64_(const char *uplo, const char *trans, const int64_t *n, const int64_t *k,
               const void *alpha, const void *a, const int64_t *lda, const void *beta, void *c,
               const int64_t *ldc);
void cblas_ssyr2k64_(int order, int uplo, int trans, int64_t n, int64_t k, float alpha,
                     const void *a, int64_t lda, const void *b, int64_t ldb, float beta, void *c,
                     int64_t ldc);
void ssyr2k_64_(const char *uplo, const char *trans, const int64_t *n, const int64_t *k,
                const void *alpha, const void *a, const int64_t *lda, const void *b,
                const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_ssymm64_(int order, int side, int uplo, int64_t m, int64_t n, float alpha, const void *a,
                    int64_t lda, const void *b, int64_t ldb, float beta, void *c, int64_t ldc);
void ssymm_64_(const char *side, const char *uplo, const int64_t *m, const int64_t *n,
               const void *alpha, const void *a, const int64_t *lda, const void *b,
               const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_strmm64_(int order, int side, int uplo, int trans, int diag, int64_t m, int64_t n,
                    float alpha, const void *a, int64_t lda, void *b, int64_t ldb);
void strmm_64_(const char *side, const char *uplo, const char *trans, const char *diag,
               const int64_t *m, const int64_t *n, const void *alpha, const void *a,
               const int64_t *lda, void *b, const int64_t *ldb);
void cblas_strsm64_(int order, int side, int uplo, int trans, int diag, int64_t m, int64_t n,
                    float alpha, const void *a, int64_t lda, void *b, int64_t ldb);
void strsm_64_(const char *side, const char *uplo, const char *trans, const char *diag,
               const int64_t *m, const int64_t *n, const void *alpha, const void *a,
               const int64_t *lda, void *b, const int64_t *ldb);
void cblas_dgemm64_(int order, int trans_a, int trans_b, int64_t m, int64_t n, int64_t k,
                    double alpha, const void *a, int64_t lda, const void *b, int64_t ldb,
                    double beta, void *c, int64_t ldc);
void dgemm_64_(const char *trans_a, const char *trans_b, const int64_t *m, const int64_t *n,
               const int64_t *k, const void *alpha, const void *a, const int64_t *lda,
               const void *b, const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_dgemv64_(int order, int trans, int64_t m, int64_t n, double alpha, const void *a,
                    int64_t lda, const void *x, int64_t incx, double beta, void *y, int64_t incy);
void dgemv_64_(const char *trans, const int64_t *m, const int64_t *n, const void *alpha,
               const void *a, const int64_t *lda, const void *x, const int64_t *incx,
               const void *beta, void *y, const int64_t *incy);
void cblas_dgemmt64_(int order, int uplo, int trans_a, int trans_b, int64_t n, int64_t k,
                     double alpha, const void *a, int64_t lda, const void *b, int64_t ldb,
                     double beta, void *c, int64_t ldc);
void dgemmt_64_(const char *uplo, const char *trans_a, const char *trans_b, const int64_t *n,
                const int64_t *k, const void *alpha, const void *a, const int64_t *lda,
                const void *b, const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_dsyrk64_(int order, int uplo, int trans, int64_t n, int64_t k, double alpha,
                    const void *a, int64_t lda, double beta, void *c, int64_t ldc);
void dsyrk_64_(const char *uplo, const char *trans, const int64_t *n, const int64_t *k,
               const void *alpha, const void *a, const int64_t *lda, const void *beta, void *c,
               const int64_t *ldc);
void cblas_dsyr2k64_(int order, int uplo, int trans, int64_t n, int64_t k, double alpha,
                     const void *a, int64_t lda, const void *b, int64_t ldb, double beta, void *c,
                     int64_t ldc);
void dsyr2k_64_(const char *uplo, const char *trans, const int64_t *n, const int64_t *k,
                const void *alpha, const void *a, const int64_t *lda, const void *b,
                const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_dsymm64_(int order, int side, int uplo, int64_t m, int64_t n, double alpha,
                    const void *a, int64_t lda, const void *b, int64_t ldb, double beta, void *c,
                    int64_t ldc);
void dsymm_64_(const char *side, const char *uplo, const int64_t *m, const int64_t *n,
               const void *alpha, const void *a, const int64_t *lda, const void *b,
               const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_dtrmm64_(int order, int side, int uplo, int trans, int diag, int64_t m, int64_t n,
                    double alpha, const void *a, int64_t lda, void *b, int64_t ldb);
void dtrmm_64_(const char *side, const char *uplo, const char *trans, const char *diag,
               const int64_t *m, const int64_t *n, const void *alpha, const void *a,
               const int64_t *lda, void *b, const int64_t *ldb);
void cblas_dtrsm64_(int order, int side, int uplo, int trans, int diag, int64_t m, int64_t n,
                    double alpha, const void *a, int64_t lda, void *b, int64_t ldb);
void dtrsm_64_(const char *side, const char *uplo, const char *trans, const char *diag,
               const int64_t *m, const int64_t *n, const void *alpha, const void *a,
               const int64_t *lda, void *b, const int64_t *ldb);
void cblas_cgemm64_(int order, int trans_a, int trans_b, int64_t m, int64_t n, int64_t k,
                    const void *alpha, const void *a, int64_t lda, const void *b, int64_t ldb,
                    const void *beta, void *c, int64_t ldc);
void cgemm_64_(const char *trans_a, const char *trans_b, const int64_t *m, const int64_t *n,
               const int64_t *k, const void *alpha, const void *a, const int64_t *lda,
               const void *b, const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_cgemv64_(int order, int trans, int64_t m, int64_t n, const void *alpha, const void *a,
                    int64_t lda, const void *x, int64_t incx, const void *beta, void *y,
                    int64_t incy);
void cgemv_64_(const char *trans, const int64_t *m, const int64_t *n, const void *alpha,
               const void *a, const int64_t *lda, const void *x, const int64_t *incx,
               const void *beta, void *y, const int64_t *incy);
void cblas_cgemmt64_(int order, int uplo, int trans_a, int trans_b, int64_t n, int64_t k,
                     const void *alpha, const void *a, int64_t lda, const void *b, int64_t ldb,
                     const void *beta, void *c, int64_t ldc);
void cgemmt_64_(const char *uplo, const char *trans_a, const char *trans_b, const int64_t *n,
                const int64_t *k, const void *alpha, const void *a, const int64_t *lda,
                const void *b, const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_csyrk64_(int order, int uplo, int trans, int64_t n, int64_t k, const void *alpha,
                    const void *a, int64_t lda, const void *beta, void *c, int64_t ldc);
void csyrk_64_(const char *uplo, const char *trans, const int64_t *n, const int64_t *k,
               const void *alpha, const void *a, const int64_t *lda, const void *beta, void *c,
               const int64_t *ldc);
void cblas_cherk64_(int order, int uplo, int trans, int64_t n, int64_t k, float alpha,
                    const void *a, int64_t lda, float beta, void *c, int64_t ldc);
void cherk_64_(const char *uplo, const char *trans, const int64_t *n, const int64_t *k,
               const void *alpha, const void *a, const int64_t *lda, const void *beta, void *c,
               const int64_t *ldc);
void cblas_csyr2k64_(int order, int uplo, int trans, int64_t n, int64_t k, const void *alpha,
                     const void *a, int64_t lda, const void *b, int64_t ldb, const void *beta,
                     void *c, int64_t ldc);
void csyr2k_64_(const char *uplo, const char *trans, const int64_t *n, const int64_t *k,
                const void *alpha, const void *a, const int64_t *lda, const void *b,
                const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_cher2k64_(int order, int uplo, int trans, int64_t n, int64_t k, const void *alpha,
                     const void *a, int64_t lda, const void *b, int64_t ldb, float beta, void *c,
                     int64_t ldc);
void cher2k_64_(const char *uplo, const char *trans, const int64_t *n, const int64_t *k,
                const void *alpha, const void *a, const int64_t *lda, const void *b,
                const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_csymm64_(int order, int side, int uplo, int64_t m, int64_t n, const void *alpha,
                    const void *a, int64_t lda, const void *b, int64_t ldb, const void *beta,
                    void *c, int64_t ldc);
void csymm_64_(const char *side, const char *uplo, const int64_t *m, const int64_t *n,
               const void *alpha, const void *a, const int64_t *lda, const void *b,
               const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_chemm64_(int order, int side, int uplo, int64_t m, int64_t n, const void *alpha,
                    const void *a, int64_t lda, const void *b, int64_t ldb, const void *beta,
                    void *c, int64_t ldc);
void chemm_64_(const char *side, const char *uplo, const int64_t *m, const int64_t *n,
               const void *alpha, const void *a, const int64_t *lda, const void *b,
               const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_ctrmm64_(int order, int side, int uplo, int trans, int diag, int64_t m, int64_t n,
                    const void *alpha, const void *a, int64_t lda, void *b, int64_t ldb);
void ctrmm_64_(const char *side, const char *uplo, const char *trans, const char *diag,
               const int64_t *m, const int64_t *n, const void *alpha, const void *a,
               const int64_t *lda, void *b, const int64_t *ldb);
void cblas_ctrsm64_(int order, int side, int uplo, int trans, int diag, int64_t m, int64_t n,
                    const void *alpha, const void *a, int64_t lda, void *b, int64_t ldb);
void ctrsm_64_(const char *side, const char *uplo, const char *trans, const char *diag,
               const int64_t *m, const int64_t *n, const void *alpha, const void *a,
               const int64_t *lda, void *b, const int64_t *ldb);
void cblas_zgemm64_(int order, int trans_a, int trans_b, int64_t m, int64_t n, int64_t k,
                    const void *alpha, const void *a, int64_t lda, const void *b, int64_t ldb,
                    const void *beta, void *c, int64_t ldc);
void zgemm_64_(const char *trans_a, const char *trans_b, const int64_t *m, const int64_t *n,
               const int64_t *k, const void *alpha, const void *a, const int64_t *lda,
               const void *b, const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_zgemv64_(int order, int trans, int64_t m, int64_t n, const void *alpha, const void *a,
                    int64_t lda, const void *x, int64_t incx, const void *beta, void *y,
                    int64_t incy);
void zgemv_64_(const char *trans, const int64_t *m, const int64_t *n, const void *alpha,
               const void *a, const int64_t *lda, const void *x, const int64_t *incx,
               const void *beta, void *y, const int64_t *incy);
void cblas_zgemmt64_(int order, int uplo, int trans_a, int trans_b, int64_t n, int64_t k,
                     const void *alpha, const void *a, int64_t lda, const void *b, int64_t ldb,
                     const void *beta, void *c, int64_t ldc);
void zgemmt_64_(const char *uplo, const char *trans_a, const char *trans_b, const int64_t *n,
                const int64_t *k, const void *alpha, const void *a, const int64_t *lda,
                const void *b, const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_zsyrk64_(int order, int uplo, int trans, int64_t n, int64_t k, const void *alpha,
                    const void *a, int64_t lda, const void *beta, void *c, int64_t ldc);
void zsyrk_64_(const char *uplo, const char *trans, const int64_t *n, const int64_t *k,
               const void *alpha, const void *a, const int64_t *lda, const void *beta, void *c,
               const int64_t *ldc);
void cblas_zherk64_(int order, int uplo, int trans, int64_t n, int64_t k, double alpha,
                    const void *a, int64_t lda, double beta, void *c, int64_t ldc);
void zherk_64_(const char *uplo, const char *trans, const int64_t *n, const int64_t *k,
               const void *alpha, const void *a, const int64_t *lda, const void *beta, void *c,
               const int64_t *ldc);
void cblas_zsyr2k64_(int order, int uplo, int trans, int64_t n, int64_t k, const void *alpha,
                     const void *a, int64_t lda, const void *b, int64_t ldb, const void *beta,
                     void *c, int64_t ldc);
void zsyr2k_64_(const char *uplo, const char *trans, const int64_t *n, const int64_t *k,
                const void *alpha, const void *a, const int64_t *lda, const void *b,
                const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_zher2k64_(int order, int uplo, int trans, int64_t n, int64_t k, const void *alpha,
                     const void *a, int64_t lda, const void *b, int64_t ldb, double beta, void *c,
                     int64_t ldc);
void zher2k_64_(const char *uplo, const char *trans, const int64_t *n, const int64_t *k,
                const void *alpha, const void *a, const int64_t *lda, const void *b,
                const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_zsymm64_(int order, int side, int uplo, int64_t m, int64_t n, const void *alpha,
                    const void *a, int64_t lda, const void *b, int64_t ldb, const void *beta,
                    void *c, int64_t ldc);
void zsymm_64_(const char *side, const char *uplo, const int64_t *m, const int64_t *n,
               const void *alpha, const void *a, const int64_t *lda, const void *b,
               const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_zhemm64_(int order, int side, int uplo, int64_t m, int64_t n, const void *alpha,
                    const void *a, int64_t lda, const void *b, int64_t ldb, const void *beta,
                    void *c, int64_t ldc);
void zhemm_64_(const char *side, const char *uplo, const int64_t *m, const int64_t *n,
               const void *alpha, const void *a, const int64_t *lda, const void *b,
               const int64_t *ldb, const void *beta, void *c, const int64_t *ldc);
void cblas_ztrmm64_(int order, int side, int uplo, int trans, int diag, int64_t m, int64_t n,
                    const void *alpha, const void *a, int64_t lda, void *b, int64_t ldb);
void ztrmm_64_(const char *side, const char *uplo, const char *trans, const char *diag,
               const int64_t *m, const int64_t *n, const void *alpha, const void *a,
               const int64_t *lda, void *b, const int64_t *ldb);
void cblas_ztrsm64_(int order, int side, int uplo, int trans, int diag, int64_t m, int64_t n,
                    const void *alpha, const void *a, int64_t lda, void *b, int64_t ldb);
void ztrsm_64_(const char *side, const char *uplo, const char *trans, const char *diag,
               const int64_t *m, const int64_t *n, const void *alpha, const void *a,
               const int64_t *lda, void *b, const int64_t *ldb);

#ifdef __cplusplus
}
#endif

#endif

/* The names that C, Fortran and Cython code link: each routine for CBLAS and Fortran, with 32-bit and with
   64-bit integers. */
#ifndef NK_ENTRIES_H
#define NK_ENTRIES_H

#define NK_FOR_EACH_LETTER(X, name) X(s##name) X(d##name) X(c##name) X(z##name)

#define NK_FOR_EACH_ROUTINE(X)                                                                     \
    NK_FOR_EACH_LETTER(X, gemm)                                                                    \
    NK_FOR_EACH_LETTER(X, gemv)                                                                    \
    NK_FOR_EACH_LETTER(X, gemmt)                                                                   \
    NK_FOR_EACH_LETTER(X, syrk)                                                                    \
    NK_FOR_EACH_LETTER(X, syr2k)                                                                   \
    NK_FOR_EACH_LETTER(X, symm)                                                                    \
    NK_FOR_EACH_LETTER(X, trmm)                                                                    \
    NK_FOR_EACH_LETTER(X, trsm)                                                                    \
    X(cherk) X(zherk) X(cher2k) X(zher2k) X(chemm) X(zhemm)

/* Which of a routine's entries; the table has them in this order. */
typedef enum {
    NK_CBLAS_LP64,
    NK_FORTRAN_LP64,
    NK_CBLAS_ILP64,
    NK_FORTRAN_ILP64,
    NK_ENTRIES
} nk_entry;

#define NK_ROUTINE_INDEX(name) NK_INDEX_##name,
enum { NK_FOR_EACH_ROUTINE(NK_ROUTINE_INDEX) NK_ROUTINE_NAMES };

#include "nkblas_cblas.h"

#endif

/* What the files of the level-3 routines share. */
#ifndef NK_LEVEL3_H
#define NK_LEVEL3_H

#include <string.h>

#include "nkblas.h"

/* A square matrix of which only the elements of one triangle are read. `kind` says what the others are:
   NK_SYMMETRIC, NK_HERMITIAN, or NK_TRIANGULAR, zeros. */
typedef struct {
    nk_matrix matrix;
    nk_triangle triangle;
    nk_structure kind;
    int32_t is_unit;  /* the diagonal is not read: its elements are 1 */
    double imag_sign; /* -1: the conjugate is meant */
} nk_stored;

/* expand.c */

/* Write all elements of an m x m matrix to `target`, in either order, with a leading dimension; it has
   room for two such matrices. */
nk_matrix nk_expand(const nk_plan *plan, nk_stored x, int64_t m, int is_row_major, char *target,
                    int64_t ld);

/* triangular.c */

/* Rows of the largest block that nk_triangular_block takes. */
enum { NK_TRIANGULAR_ROWS = 128 };

/* The plan of the blocks of triangular matrices of a dtype; 0: there are no kernels. */
int nk_find_triangular(int32_t dtype, nk_plan *plan);

/* B = alpha * A @ B, or B = alpha * inv(A) @ B, in place. */
void nk_triangular_block(const nk_plan *plan, int solves, nk_stored a, int64_t m, int64_t n,
                         nk_matrix b, const nk_call_args *alpha);

/* Copy a row of whole elements; for short rows a call of memcpy would take longer. */
static inline void nk_copy_row(char *target, const char *source, int64_t bytes)
{
    for (; bytes >= 64; bytes -= 64, target += 64, source += 64)
        memcpy(target, source, 64);
    if (bytes & 32)
        memcpy(target, source, 32), target += 32, source += 32;
    if (bytes & 16)
        memcpy(target, source, 16), target += 16, source += 16;
    if (bytes & 8)
        memcpy(target, source, 8), target += 8, source += 8;
    if (bytes & 4)
        memcpy(target, source, 4);
}

static inline nk_matrix nk_block(nk_matrix x, int64_t i, int64_t j, int64_t itemsize)
{
    x.data = nk_element(x, i, j, itemsize);
    return x;
}

#endif

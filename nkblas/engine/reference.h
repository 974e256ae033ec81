/* Plain loops, for products of native floats without kernels; a real number is computed as a complex
   one, in double precision. */
#ifndef NK_REFERENCE_H
#define NK_REFERENCE_H

#include <complex.h>

#include "nkblas.h"

typedef double complex nk_number;

nk_number nk_load(int32_t dtype, const void *x);
void nk_store(int32_t dtype, void *x, nk_number value);

/* As nk_gemm, for a single product. */
void nk_reference_product(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix a, nk_matrix b,
                          nk_matrix c, const nk_call_args *args);

#endif

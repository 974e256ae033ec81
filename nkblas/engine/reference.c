/* A product in plain loops: where a routine of several products has begun to write its result, and there
   are no kernels, or no memory, for one of them. */
#include "reference.h"

nk_number nk_load(int32_t dtype, const void *x)
{
    switch (dtype) {
    case NK_FLOAT32: return *(const float *)x;
    case NK_FLOAT64: return *(const double *)x;
    case NK_COMPLEX64: return *(const float complex *)x;
    default: return *(const double complex *)x;
    }
}

void nk_store(int32_t dtype, void *x, nk_number value)
{
    switch (dtype) {
    case NK_FLOAT32: *(float *)x = (float)creal(value); break;
    case NK_FLOAT64: *(double *)x = creal(value); break;
    case NK_COMPLEX64: *(float complex *)x = (float complex)value; break;
    default: *(double complex *)x = value;
    }
}

void nk_reference_product(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix a, nk_matrix b,
                          nk_matrix c, const nk_call_args *args)
{
    int64_t itemsize = nk_itemsizes_of(dtype)->c;
    nk_number alpha = CMPLX(args->alpha, args->alpha_imag);
    nk_number beta = CMPLX(args->beta, args->beta_imag);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            if ((args->triangle == NK_LOWER && j > i) || (args->triangle == NK_UPPER && j < i))
                continue;
            nk_number sum = 0;
            for (int64_t p = 0; p < k; p++) {
                nk_number x = nk_load(dtype, nk_element(a, i, p, itemsize));
                sum += (args->a_imag_sign < 0 ? conj(x) : x) *
                       nk_load(dtype, nk_element(b, p, j, itemsize));
            }
            char *element = nk_element(c, i, j, itemsize);
            sum = alpha * (args->c_imag_sign < 0 ? conj(sum) : sum);
            nk_store(dtype, element, beta == 0 ? sum : sum + beta * nk_load(dtype, element));
        }
}

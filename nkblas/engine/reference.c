/* A product in plain loops: where a routine of several products has begun to write its result, and there
   are no kernels, or no memory, for one of them. */
#include <complex.h>

#include "nkblas.h"

#define CONJUGATE(x) (sign < 0 ? conj(x) : (x))
#define UNCHANGED(x) (x)

#define DEFINE_PRODUCT(name, type, factor, conjugate_a, conjugate_c)                               \
    static void name(int64_t m, int64_t n, int64_t k, nk_matrix a, nk_matrix b, nk_matrix c,       \
                     const nk_call_args *args)                                                     \
    {                                                                                              \
        type alpha = factor(args->alpha, args->alpha_imag);                                        \
        type beta = factor(args->beta, args->beta_imag);                                           \
        for (int64_t i = 0; i < m; i++)                                                            \
            for (int64_t j = 0; j < n; j++) {                                                      \
                if ((args->triangle == NK_LOWER && j > i) ||                                       \
                    (args->triangle == NK_UPPER && j < i))                                         \
                    continue;                                                                      \
                type sum = 0, *element = (type *)nk_element(c, i, j, sizeof(type));                \
                double sign = args->a_imag_sign;                                                   \
                for (int64_t p = 0; p < k; p++)                                                    \
                    sum += conjugate_a(*(type *)nk_element(a, i, p, sizeof(type))) *               \
                           *(type *)nk_element(b, p, j, sizeof(type));                             \
                sign = args->c_imag_sign;                                                          \
                sum = alpha * conjugate_c(sum);                                                    \
                *element = beta == 0 ? sum : sum + beta * *element;                                \
                (void)sign;                                                                        \
            }                                                                                      \
    }

#define REAL(real, imaginary) ((real) + 0 * (imaginary))
#define COMPLEX(real, imaginary) CMPLX(real, imaginary)

DEFINE_PRODUCT(product_s, float, (float)REAL, UNCHANGED, UNCHANGED)
DEFINE_PRODUCT(product_d, double, REAL, UNCHANGED, UNCHANGED)
DEFINE_PRODUCT(product_c, float complex, COMPLEX, CONJUGATE, CONJUGATE)
DEFINE_PRODUCT(product_z, double complex, COMPLEX, CONJUGATE, CONJUGATE)

void nk_reference_product(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix a, nk_matrix b,
                          nk_matrix c, const nk_call_args *args)
{
    switch (dtype) {
    case NK_FLOAT32: product_s(m, n, k, a, b, c, args); break;
    case NK_FLOAT64: product_d(m, n, k, a, b, c, args); break;
    case NK_COMPLEX64: product_c(m, n, k, a, b, c, args); break;
    case NK_COMPLEX128: product_z(m, n, k, a, b, c, args); break;
    }
}

/* Routines in plain loops: where there are neither kernels nor another BLAS to call. */
#include "blas_call.h"
#include "reference.h"

static nk_number signed_part(nk_number x, double sign) { return sign < 0 ? conj(x) : x; }

static int is_stored(nk_triangle stored, int64_t i, int64_t j)
{
    return stored == NK_LOWER ? j <= i : j >= i;
}

void nk_reference_symm(int32_t dtype, nk_triangle stored, int32_t is_hermitian, int64_t m,
                       int64_t n, nk_matrix a, nk_matrix b, nk_matrix c, const nk_call_args *args)
{
    int64_t itemsize = nk_itemsizes_of(dtype)->c;
    nk_number alpha = CMPLX(args->alpha, args->alpha_imag);
    nk_number beta = CMPLX(args->beta, args->beta_imag);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            nk_number sum = 0;
            for (int64_t p = 0; p < m; p++) {
                int is_own = is_stored(stored, i, p);
                const char *source = nk_element(a, is_own ? i : p, is_own ? p : i, itemsize);
                nk_number x = nk_load(dtype, source);
                if (is_hermitian)
                    x = i == p ? creal(x) : is_own ? x : conj(x);
                sum += signed_part(x, args->a_imag_sign) *
                       nk_load(dtype, nk_element(b, p, j, itemsize));
            }
            char *element = nk_element(c, i, j, itemsize);
            sum *= alpha;
            nk_store(dtype, element, beta == 0 ? sum : sum + beta * nk_load(dtype, element));
        }
}

void nk_reference_triangular(int32_t dtype, nk_triangle stored, int32_t is_unit, int32_t solves,
                             int64_t m, int64_t n, nk_matrix a, nk_matrix b,
                             const nk_call_args *args)
{
    int64_t itemsize = nk_itemsizes_of(dtype)->c;
    nk_number alpha = CMPLX(args->alpha, args->alpha_imag);
    int is_upward = (stored == NK_LOWER) != (solves != 0);
    for (int64_t j = 0; j < n; j++)
        for (int64_t step = 0; step < m; step++) {
            int64_t i = is_upward ? m - 1 - step : step;
            nk_number sum = 0;
            for (int64_t p = 0; p < m; p++)
                if (p != i && is_stored(stored, i, p))
                    sum += signed_part(nk_load(dtype, nk_element(a, i, p, itemsize)),
                                       args->a_imag_sign) *
                           nk_load(dtype, nk_element(b, p, j, itemsize));
            char *element = nk_element(b, i, j, itemsize);
            nk_number diagonal = 1, x = nk_load(dtype, element);
            if (!is_unit)
                diagonal =
                    signed_part(nk_load(dtype, nk_element(a, i, i, itemsize)), args->a_imag_sign);
            nk_number result = solves ? (alpha * x - sum) / diagonal : alpha * (sum + diagonal * x);
            nk_store(dtype, element, result);
        }
}

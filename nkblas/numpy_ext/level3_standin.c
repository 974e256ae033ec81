/* Stands in for the engine's functions for triangles: loops that sum in double or long double. */
#include <complex.h>

#include "numpy_ext.h"

typedef long double complex value;

static value load(int32_t dtype, const char *x)
{
    switch (dtype) {
    case NK_FLOAT32: return *(const float *)x;
    case NK_FLOAT64: return *(const double *)x;
    case NK_COMPLEX64: return *(const float complex *)x;
    default: return *(const double complex *)x;
    }
}

static void store(int32_t dtype, char *x, value v)
{
    switch (dtype) {
    case NK_FLOAT32: *(float *)x = (float)creall(v); return;
    case NK_FLOAT64: *(double *)x = (double)creall(v); return;
    case NK_COMPLEX64: *(float complex *)x = (float complex)v; return;
    default: *(double complex *)x = (double complex)v;
    }
}

static value get(int32_t dtype, nk_matrix x, int64_t i, int64_t j, double sign)
{
    value v = load(dtype, nk_element(x, i, j, nk_itemsizes_of(dtype)->c));
    return sign < 0 ? conjl(v) : v;
}

static void set(int32_t dtype, nk_matrix x, int64_t i, int64_t j, value v)
{
    store(dtype, nk_element(x, i, j, nk_itemsizes_of(dtype)->c), v);
}

static value times(int32_t dtype, value x, value y)
{
    return is_complex(dtype) ? x * y : creall(x) * creall(y);
}

static void count(void) { __atomic_add_fetch(&engine_counters->calls, 1, __ATOMIC_RELAXED); }

static value factor(double re, double im) { return re + im * (value)_Complex_I; }

static void finish(int32_t dtype, nk_matrix c, int64_t i, int64_t j, value sum,
                   const nk_call_args *args)
{
    if (args->c_imag_sign < 0)
        sum = conjl(sum);
    sum = times(dtype, factor(args->alpha, args->alpha_imag), sum);
    if (args->beta != 0 || args->beta_imag != 0)
        sum += times(dtype, factor(args->beta, args->beta_imag), get(dtype, c, i, j, 1));
    set(dtype, c, i, j, sum);
}

int nk_gemmt(int32_t dtype, nk_triangle triangle, int64_t n, int64_t k, nk_matrix a, nk_matrix b,
             nk_matrix c, nk_call_args args)
{
    count();
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = triangle == NK_LOWER ? 0 : i; j < (triangle == NK_LOWER ? i + 1 : n);
             j++) {
            value sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += times(dtype, get(dtype, a, i, l, args.a_imag_sign), get(dtype, b, l, j, 1));
            finish(dtype, c, i, j, sum, &args);
        }
    return 1;
}

int nk_symm(int32_t dtype, nk_triangle stored, int32_t is_hermitian, int64_t m, int64_t n,
            nk_matrix a, nk_matrix b, nk_matrix c, nk_call_args args)
{
    count();
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            value sum = 0;
            for (int64_t l = 0; l < m; l++) {
                int is_stored = stored == NK_LOWER ? l <= i : l >= i;
                value x = is_stored ? get(dtype, a, i, l, 1)
                                    : get(dtype, a, l, i, is_hermitian ? -1 : 1);
                if (i == l && is_hermitian)
                    x = creall(x);
                sum += times(dtype, x, get(dtype, b, l, j, 1));
            }
            finish(dtype, c, i, j, sum, &args);
        }
    return 1;
}

int nk_trmm(int32_t dtype, nk_triangle stored, int32_t is_unit, int64_t m, int64_t n, nk_matrix a,
            nk_matrix b, nk_call_args args)
{
    count();
    args.beta = args.beta_imag = 0;
    for (int64_t j = 0; j < n; j++)
        for (int64_t step = 0; step < m; step++) {
            int64_t i = stored == NK_LOWER ? m - 1 - step : step;
            value sum = get(dtype, b, i, j, 1);
            if (!is_unit)
                sum = times(dtype, get(dtype, a, i, i, args.a_imag_sign), sum);
            for (int64_t l = stored == NK_LOWER ? 0 : i + 1; l < (stored == NK_LOWER ? i : m); l++)
                sum += times(dtype, get(dtype, a, i, l, args.a_imag_sign), get(dtype, b, l, j, 1));
            finish(dtype, b, i, j, sum, &args);
        }
    return 1;
}

int nk_trsm(int32_t dtype, nk_triangle stored, int32_t is_unit, int64_t m, int64_t n, nk_matrix a,
            nk_matrix b, nk_call_args args)
{
    count();
    for (int64_t j = 0; j < n; j++)
        for (int64_t step = 0; step < m; step++) {
            int64_t i = stored == NK_LOWER ? step : m - 1 - step;
            value sum = times(dtype, factor(args.alpha, args.alpha_imag), get(dtype, b, i, j, 1));
            for (int64_t l = stored == NK_LOWER ? 0 : i + 1; l < (stored == NK_LOWER ? i : m); l++)
                sum -= times(dtype, get(dtype, a, i, l, args.a_imag_sign), get(dtype, b, l, j, 1));
            value diagonal = is_unit ? 1 : get(dtype, a, i, i, args.a_imag_sign);
            set(dtype, b, i, j,
                is_complex(dtype) ? sum / diagonal : creall(sum) / creall(diagonal));
        }
    return 1;
}

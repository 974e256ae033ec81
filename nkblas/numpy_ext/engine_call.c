/* Calls the engine, and counts the products that it does not do. */
#include <fenv.h>

#include "numpy_ext.h"

__typeof__(nk_gemm) *engine_gemm;
nk_counters *engine_counters;
void (*engine_pass_through)(int32_t on);

int run_product(int dtype, npy_intp m, npy_intp n, npy_intp k, nk_matrix a, nk_matrix b,
                nk_matrix c, nk_call_args call_args)
{
    nk_batch_strides strides = {0, 0, 0};
    npy_intp blocks = call_args.block_count > 0 ? call_args.block_count : 1;
    if (m * n <= MIN_WORK_TO_RELEASE_GIL / (k ? k : 1) / blocks)
        return engine_gemm(dtype, m, n, k, a, b, c, 1, strides, call_args) != 0;
    PyThreadState *state = PyEval_SaveThread();
    int64_t done = engine_gemm(dtype, m, n, k, a, b, c, 1, strides, call_args);
    PyEval_RestoreThread(state);
    return done != 0;
}

void uncount_calls(npy_intp calls, npy_intp fallbacks)
{
    __atomic_sub_fetch(&engine_counters->calls, (uint64_t)calls, __ATOMIC_RELAXED);
    __atomic_sub_fetch(&engine_counters->fallbacks, (uint64_t)fallbacks, __ATOMIC_RELAXED);
}

void count_fallbacks(npy_intp products)
{
    __atomic_add_fetch(&engine_counters->calls, (uint64_t)products, __ATOMIC_RELAXED);
    __atomic_add_fetch(&engine_counters->fallbacks, (uint64_t)products, __ATOMIC_RELAXED);
}

/* ---- floating-point flags ---- */

enum { REPORTED_FLAGS = FE_DIVBYZERO | FE_OVERFLOW | FE_UNDERFLOW | FE_INVALID };

void clear_float_flags(void)
{
    if (fetestexcept(REPORTED_FLAGS))
        feclearexcept(REPORTED_FLAGS);
}

int report_float_flags(const char *function)
{
    int raised = fetestexcept(REPORTED_FLAGS);
    if (!raised)
        return 0;
    feclearexcept(REPORTED_FLAGS);
    return PyUFunc_GiveFloatingpointErrors(function,
                                           (raised & FE_DIVBYZERO ? NPY_FPE_DIVIDEBYZERO : 0) |
                                               (raised & FE_OVERFLOW ? NPY_FPE_OVERFLOW : 0) |
                                               (raised & FE_UNDERFLOW ? NPY_FPE_UNDERFLOW : 0) |
                                               (raised & FE_INVALID ? NPY_FPE_INVALID : 0));
}

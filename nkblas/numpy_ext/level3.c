/* Operations with a triangle on the engine: BLAS level 3. */
#include "numpy_ext.h"

/* The functions of the engine, which is another extension module (see register_level3). */
static struct {
    __typeof__(nk_gemmt) *gemmt;
    __typeof__(nk_symm) *symm;
    __typeof__(nk_trmm) *trmm;
    __typeof__(nk_trsm) *trsm;
} engine;

/* The imaginary parts on the diagonal of a Hermitian C are 0, whatever was there. */
static void make_diagonal_real(const level3_call *x)
{
    npy_intp itemsize = nk_itemsizes_of(x->dtype)->c;
    for (npy_intp i = 0; i < x->n; i++)
        memset(nk_element(x->c, i, i, itemsize) + itemsize / 2, 0, (size_t)itemsize / 2);
}

static int call_engine(const level3_call *x)
{
    nk_triangle triangle = x->triangle;
    switch (x->operation) {
    case GEMMT: return engine.gemmt(x->dtype, triangle, x->n, x->k, x->a, x->b, x->c, x->call_args);
    case SYMM:
        return engine.symm(x->dtype, triangle, x->is_hermitian, x->m, x->n, x->a, x->b, x->c,
                           x->call_args);
    case TRMM:
        return engine.trmm(x->dtype, triangle, x->is_unit, x->m, x->n, x->a, x->c, x->call_args);
    case TRSM:
        return engine.trsm(x->dtype, triangle, x->is_unit, x->m, x->n, x->a, x->c, x->call_args);
    }
    return 0;
}

int run_level3(const level3_call *x)
{
    int is_real_on_diagonal = x->operation == GEMMT && x->is_hermitian && nk_is_complex(x->dtype);
    npy_intp k = x->operation == GEMMT ? x->k : x->m;
    if (is_real_on_diagonal)
        make_diagonal_real(x);
    int done;
    if (x->m * x->n <= MIN_WORK_TO_RELEASE_GIL / k) {
        done = call_engine(x);
    } else {
        PyThreadState *state = PyEval_SaveThread();
        done = call_engine(x);
        PyEval_RestoreThread(state);
    }
    if (done && is_real_on_diagonal)
        make_diagonal_real(x);
    return done;
}

/* register_level3(gemmt, symm, trmm, trsm): the addresses of the engine's functions. */
PyObject *register_level3(PyObject *self, PyObject *args)
{
    unsigned long long gemmt, symm, trmm, trsm;
    (void)self;
    if (!PyArg_ParseTuple(args, "KKKK", &gemmt, &symm, &trmm, &trsm))
        return NULL;
    engine.gemmt = (void *)(uintptr_t)gemmt, engine.symm = (void *)(uintptr_t)symm;
    engine.trmm = (void *)(uintptr_t)trmm, engine.trsm = (void *)(uintptr_t)trsm;
    Py_RETURN_NONE;
}

/* level3(operation, alpha, a, b, beta, c, is_lower, is_hermitian, is_unit, a_imag_sign, c_imag_sign)
   -> whether the engine did it

   The arguments are those of Level3Call in api/level3_call.py; alpha is not 0, no array is empty. */
PyObject *level3(PyObject *self, PyObject *args)
{
    PyArrayObject *a, *c;
    PyObject *b;
    Py_complex alpha, beta;
    int operation, is_lower;
    npy_intp rows;
    level3_call call = {0};

    (void)self;
    if (!PyArg_ParseTuple(args, "iDO!ODO!pppdd", &operation, &alpha, &PyArray_Type, &a, &b, &beta,
                          &PyArray_Type, &c, &is_lower, &call.is_hermitian, &call.is_unit,
                          &call.call_args.a_imag_sign, &call.call_args.c_imag_sign))
        return NULL;
    call.operation = (level3_operation)operation;
    call.dtype = same_type_product(PyArray_TYPE(c));
    call.triangle = is_lower ? NK_LOWER : NK_UPPER;
    call.call_args.alpha = alpha.real, call.call_args.alpha_imag = alpha.imag;
    call.call_args.beta = beta.real, call.call_args.beta_imag = beta.imag;
    call.a = as_matrix(a, 0, &rows, &call.k);
    call.c = as_matrix(c, 0, &call.m, &call.n);
    if (b != Py_None) {
        npy_intp columns;
        call.b = as_matrix((PyArrayObject *)b, 0, &rows, &columns);
    }
    return PyBool_FromLong(run_level3(&call));
}

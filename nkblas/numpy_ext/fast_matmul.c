/* The fast paths of matmul, dot, inner and vdot. */
#include <fenv.h>

#include "numpy_ext.h"

/* The function whose rules hold: they differ in the operands' dimensions and in the result's
   type. */
typedef enum { MATMUL, DOT, INNER, VDOT } product_rule;

/* ---- floating-point flags ---- */

enum { REPORTED_FLAGS = FE_DIVBYZERO | FE_OVERFLOW | FE_UNDERFLOW | FE_INVALID };

static void clear_float_flags(void)
{
    if (fetestexcept(REPORTED_FLAGS))
        feclearexcept(REPORTED_FLAGS);
}

/* Report floating-point flags as ufuncs do, under the name of a function; -1: as an exception. */
static int report_float_flags(const char *function)
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

/* ---- the product ---- */

typedef struct {
    PyArrayObject *a;
    right_operand b;
    nk_matrix a_matrix;
    npy_intp m, n, k;
    int ndim, type, result_type; /* ndim is the result's, type is A's */
    npy_intp shape[2];           /* of the result */
} product;

/* Take f(a, b), and of matmul and dot also f(a, b, out) and f(a, b, out=out); `*out` is NULL where
   the call has none. */
static int read_arguments(product_rule rule, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames, PyObject **out)
{
    Py_ssize_t keywords = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    int has_out = nargs + keywords == 3 && (rule == MATMUL || rule == DOT);
    if (nargs < 2 || (!has_out && nargs + keywords != 2))
        return 0;
    if (!is_engine_operand(args[0]) ||
        !(is_engine_operand(args[1]) || (rule == MATMUL && is_packed(args[1]))))
        return 0;
    if (keywords && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "out"))
        return 0;
    *out = has_out ? args[2] : NULL;
    return 1;
}

/* The type of the result; -1: the general function has to choose it. */
static int find_result_type(const product *x, product_rule rule, PyObject *out)
{
    if (x->b.packed)
        return x->b.packed->c_type;
    int has_product = same_type_product(x->type) != NO_PRODUCT;
    if (PyTypeNum_ISUSERDEF(x->type) && rule == MATMUL) {
        /* NumPy's result is float32, which it rounds to the type of `out`. */
        int is_rounded = has_product && out && PyArray_Check(out) &&
                         PyArray_TYPE((PyArrayObject *)out) == x->type;
        return is_rounded ? x->type : NPY_FLOAT;
    }
    return has_product ? x->type : -1;
}

/* inner(A, B) is A @ B.T */
static void transpose_b(right_operand *b)
{
    npy_intp rows = b->k;
    b->k = b->n, b->n = rows;
    b->matrix = (nk_matrix){.data = b->matrix.data, .rs = b->matrix.cs, .cs = b->matrix.rs};
}

/* vdot takes the elements of its operands as vectors. */
static int flatten_operands(product *x)
{
    if (!PyArray_IS_C_CONTIGUOUS(x->a) || !PyArray_IS_C_CONTIGUOUS(x->b.array))
        return 0;
    x->a_matrix.rs = x->a_matrix.cs = x->b.matrix.rs = x->b.matrix.cs = 1;
    x->m = x->b.n = 1;
    x->k = PyArray_SIZE(x->a), x->b.k = PyArray_SIZE(x->b.array);
    x->ndim = 0;
    return 1;
}

static int describe_product(product *x, product_rule rule, PyObject *const *args, PyObject *out)
{
    x->a = (PyArrayObject *)args[0];
    x->b = as_right_operand(args[1]);
    x->a_matrix = as_matrix(x->a, 0, &x->m, &x->k);
    if (rule == INNER && x->b.ndim == 2)
        transpose_b(&x->b);
    x->ndim = PyArray_NDIM(x->a) + x->b.ndim - 2;
    x->type = PyArray_TYPE(x->a);
    x->result_type = find_result_type(x, rule, out);
    if (x->result_type < 0 || (rule == VDOT && x->ndim && !flatten_operands(x)))
        return 0;
    int expected_type = x->b.packed ? x->b.packed->a_type : PyArray_TYPE(x->b.array);
    if (x->k != x->b.k || x->type != expected_type)
        return 0;
    x->n = x->b.n;
    x->shape[0] = PyArray_NDIM(x->a) == 2 ? x->m : x->n;
    x->shape[1] = x->n;
    return 1;
}

/* The array for the result, a new reference. */
static PyArrayObject *result_array(const product *x, product_rule rule, PyObject *out)
{
    if (!out || out == Py_None)
        return (PyArrayObject *)PyArray_SimpleNew(x->ndim, x->shape, x->result_type);
    if (!x->ndim)
        return NULL;
    PyArrayObject *c = usable_out(out, x->a, x->b.array, x->ndim, x->shape, x->result_type);
    if (c && rule == DOT && !PyArray_IS_C_CONTIGUOUS(c)) /* an error in numpy.dot */
        Py_CLEAR(c);
    return c;
}

/* `name` is the function that warnings of floating-point errors name. */
static PyObject *fast_product(const char *name, product_rule rule, PyObject *const *args,
                              Py_ssize_t nargs, PyObject *kwnames)
{
    product x;
    PyObject *out;
    if (!read_arguments(rule, args, nargs, kwnames, &out) || !describe_product(&x, rule, args, out))
        return NULL;
    PyArrayObject *c = result_array(&x, rule, out);
    if (!c)
        return NULL;
    nk_matrix c_matrix = as_matrix(c, x.ndim && PyArray_NDIM(x.a) == 2, &x.m, &x.n);

    clear_float_flags();
    int dtype = product_with(&x.b, x.type, x.result_type, 0);
    nk_call_args call_args = product_call_args(dtype, rule == VDOT);
    if (!run_product(dtype, x.m, x.n, x.k, x.a_matrix, x.b.matrix, c_matrix, call_args)) {
        Py_DECREF(c);
        uncount_call();
        return NULL;
    }
    if (rule != VDOT && !x.b.packed && report_float_flags(name) < 0) {
        Py_DECREF(c);
        return NULL;
    }
    return PyArray_Return(c);
}

/* NumPy's warnings name dot in inner, too. */
PyObject *fast_dot(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return fast_product("dot", DOT, args, nargs, kwnames);
}

PyObject *fast_inner(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return fast_product("dot", INNER, args, nargs, kwnames);
}

PyObject *fast_vdot(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return fast_product("dot", VDOT, args, nargs, kwnames);
}

/* __array_ufunc__(b, numpy.matmul, "__call__", a, b) of a packed b, to which NumPy passes a @ b */
PyObject *fast_array_ufunc(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (nargs != 5 || kwnames || args[1] != (PyObject *)numpy_matmul || args[4] != args[0] ||
        !PyUnicode_Check(args[2]) || PyUnicode_CompareWithASCIIString(args[2], "__call__"))
        return NULL;
    return fast_product("matmul", MATMUL, args + 3, 2, NULL);
}

/* ---- matmul, a ufunc ---- */

static int has_dtype_keyword(PyObject *kwnames)
{
    for (Py_ssize_t i = 0; kwnames && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        if (!PyUnicode_CompareWithASCIIString(name, "dtype") ||
            !PyUnicode_CompareWithASCIIString(name, "signature") ||
            !PyUnicode_CompareWithASCIIString(name, "sig"))
            return 1;
    }
    return 0;
}

static int has_unknown_user_dtype(PyObject *x)
{
    return PyArray_Check(x) && PyTypeNum_ISUSERDEF(PyArray_TYPE((PyArrayObject *)x)) &&
           user_dtype_product(PyArray_TYPE((PyArrayObject *)x)) == NO_PRODUCT;
}

static vectorcallfunc call_ufunc; /* NumPy's, the same for all ufuncs */

static PyObject *call_matmul(PyObject *self, PyObject *const *args, size_t nargsf,
                             PyObject *kwnames)
{
    const char *name = ((PyUFuncObject *)self)->name;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (nargs >= 2 && callbacks.register_user_dtypes &&
        (has_unknown_user_dtype(args[0]) || has_unknown_user_dtype(args[1]))) {
        PyObject *none = PyObject_CallNoArgs(callbacks.register_user_dtypes);
        if (!none)
            return NULL;
        Py_DECREF(none);
    }
    if (callbacks.mixed_product && has_dtype_keyword(kwnames)) {
        PyObject *result = PyObject_Vectorcall(callbacks.mixed_product, args, nargsf, kwnames);
        if (result != Py_NotImplemented)
            return result;
        Py_DECREF(result);
    }
    PyObject *result = fast_product(name, MATMUL, args, nargs, kwnames);
    if (result || PyErr_Occurred())
        return result;
    return call_ufunc(self, args, nargsf, kwnames);
}

void set_fast_matmul(PyUFuncObject *matmul, int on)
{
    if (!call_ufunc)
        call_ufunc = matmul->vectorcall;
    matmul->vectorcall = on ? call_matmul : call_ufunc;
}

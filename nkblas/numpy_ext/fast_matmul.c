/* The fast paths of the gufuncs, dot, inner and vdot: products of one type of vectors and matrices. */
#include "numpy_ext.h"

/* ---- the product ---- */

typedef struct {
    PyArrayObject *a;
    right_operand b;
    nk_matrix a_matrix;
    npy_intp m, n, k;
    int ndim, type, result_type; /* ndim is the result's, type is A's */
    npy_intp shape[2];           /* of the result */
} product;

static int is_gufunc(product_rule rule) { return rule <= VECMAT; }

/* Whether the rule has operands of these dimensions. Those of matmul, dot and inner are all vectors
   and matrices; vdot flattens its operands. */
static int takes_dimensions(product_rule rule, int a, int b)
{
    switch (rule) {
    case VECDOT: return a == 1 && b == 1;
    case MATVEC: return a == 2 && b == 1;
    case VECMAT: return a == 1 && b == 2;
    default: return 1;
    }
}

/* Take f(a, b), and of gufuncs and dot also f(a, b, out) and f(a, b, out=out); `*out` is NULL where
   the call has none. */
static int read_arguments(product_rule rule, PyObject *const *args, Py_ssize_t nargs,
                          PyObject *kwnames, PyObject **out)
{
    Py_ssize_t keywords = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    int has_out = nargs + keywords == 3 && (is_gufunc(rule) || rule == DOT);
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
    if (PyTypeNum_ISUSERDEF(x->type) && is_gufunc(rule)) {
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
    b->matrix = nk_transposed(b->matrix);
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
    if (x->result_type < 0 || !takes_dimensions(rule, PyArray_NDIM(x->a), x->b.ndim) ||
        (rule == VDOT && x->ndim && !flatten_operands(x)))
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
    nk_call_args call_args = product_call_args(dtype, conjugates_a(rule));
    if (!run_product(dtype, x.m, x.n, x.k, x.a_matrix, x.b.matrix, c_matrix, call_args)) {
        Py_DECREF(c);
        uncount_calls(1, 1);
        return NULL;
    }
    if (rule != VDOT && !x.b.packed && report_float_flags(name) < 0) {
        Py_DECREF(c);
        return NULL;
    }
    return PyArray_Return(c);
}

/* ---- dot, inner, vdot ---- */

/* NumPy's warnings name dot in inner, too. */
static const char product_name[] = "dot";

/* Whether an operand has at most one element: nothing is summed up, and NumPy does the call. */
static int is_single(PyObject *x)
{
    return PyArray_CheckExact(x) ? PyArray_SIZE((PyArrayObject *)x) <= 1 : is_plain_number(x);
}

/* A call of other operands than fast_product takes. */
static PyObject *product_of_any(product_rule rule, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    PyArrayObject *operands[2];
    if (nargs < 2 || !numpy_function(rule))
        return NULL;
    if ((is_single(args[0]) && is_plain(args[1])) || (is_single(args[1]) && is_plain(args[0])))
        return PyObject_Vectorcall(numpy_function(rule), args, (size_t)nargs, kwnames);
    if (nargs > 2 || kwnames || !as_plain_arrays(args, 2, operands))
        return NULL;
    PyObject *arrays[] = {(PyObject *)operands[0], (PyObject *)operands[1]}, *result = NULL;
    int is_converted = arrays[0] != args[0] || arrays[1] != args[1];
    if (PyArray_SIZE(operands[0]) <= 1 || PyArray_SIZE(operands[1]) <= 1)
        result = PyObject_Vectorcall(numpy_function(rule), args, 2, NULL);
    else if (is_converted)
        result = fast_product(product_name, rule, arrays, 2, NULL);
    if (!result && !PyErr_Occurred())
        result = contract(rule, rule == VDOT ? NULL : product_name, operands);
    release_arrays(operands, 2);
    return result;
}

static PyObject *fast_function_product(product_rule rule, PyObject *const *args, Py_ssize_t nargs,
                                       PyObject *kwnames)
{
    PyObject *result = fast_product(product_name, rule, args, nargs, kwnames);
    return result || PyErr_Occurred() ? result : product_of_any(rule, args, nargs, kwnames);
}

PyObject *fast_dot(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return fast_function_product(DOT, args, nargs, kwnames);
}

PyObject *fast_inner(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return fast_function_product(INNER, args, nargs, kwnames);
}

PyObject *fast_vdot(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    return fast_function_product(VDOT, args, nargs, kwnames);
}

/* __array_ufunc__(b, numpy.matmul, "__call__", a, b) of a packed b, to which NumPy passes a @ b */
PyObject *fast_array_ufunc(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (nargs != 5 || kwnames || args[1] != (PyObject *)numpy_matmul || args[4] != args[0] ||
        !PyUnicode_Check(args[2]) || PyUnicode_CompareWithASCIIString(args[2], "__call__"))
        return NULL;
    return fast_product("matmul", MATMUL, args + 3, 2, NULL);
}

/* ---- the gufuncs ---- */

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

/* Whether there is a product of arrays of these types with a result of another type. */
static int has_mixed_product(PyObject *a, PyObject *b)
{
    if (!PyArray_Check(a) || !PyArray_Check(b))
        return 0;
    int a_type = PyArray_TYPE((PyArrayObject *)a), b_type = PyArray_TYPE((PyArrayObject *)b);
    for (int i = 0; i < MIXED_PRODUCTS; i++)
        if (mixed_products[i].a == a_type && mixed_products[i].b == b_type)
            return 1;
    return PyTypeNum_ISUSERDEF(a_type);
}

/* A call of other arrays than fast_product takes, or of lists. */
static PyObject *gufunc_of_any(const char *name, product_rule rule, PyObject *const *args)
{
    PyArrayObject *operands[2];
    for (int i = 0; i < 2; i++)
        if (!PyArray_CheckExact(args[i]) && !is_plain_list(args[i]))
            return NULL; /* a number is an error */
    if (!as_plain_arrays(args, 2, operands))
        return NULL;
    PyObject *arrays[] = {(PyObject *)operands[0], (PyObject *)operands[1]}, *result = NULL;
    if (arrays[0] != args[0] || arrays[1] != args[1])
        result = fast_product(name, rule, arrays, 2, NULL);
    if (!result && !PyErr_Occurred())
        result = contract(rule, name, operands);
    release_arrays(operands, 2);
    return result;
}

static vectorcallfunc call_ufunc; /* NumPy's, the same for all ufuncs */

static product_rule rule_of(const PyUFuncObject *gufunc)
{
    int a_is_matrix = gufunc->core_num_dims[0] == 2, b_is_matrix = gufunc->core_num_dims[1] == 2;
    return a_is_matrix ? (b_is_matrix ? MATMUL : MATVEC) : b_is_matrix ? VECMAT : VECDOT;
}

static PyObject *call_gufunc(PyObject *self, PyObject *const *args, size_t nargsf,
                             PyObject *kwnames)
{
    const char *name = ((PyUFuncObject *)self)->name;
    product_rule rule = rule_of((PyUFuncObject *)self);
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    if (nargs >= 2 && callbacks.register_user_dtypes &&
        (has_unknown_user_dtype(args[0]) || has_unknown_user_dtype(args[1]))) {
        PyObject *none = PyObject_CallNoArgs(callbacks.register_user_dtypes);
        if (!none)
            return NULL;
        Py_DECREF(none);
    }
    if (rule == MATMUL && callbacks.mixed_product && nargs >= 2 && has_dtype_keyword(kwnames) &&
        has_mixed_product(args[0], args[1])) {
        PyObject *result = PyObject_Vectorcall(callbacks.mixed_product, args, nargsf, kwnames);
        if (result != Py_NotImplemented)
            return result;
        Py_DECREF(result);
    }
    PyObject *result = fast_product(name, rule, args, nargs, kwnames);
    if (!result && !PyErr_Occurred() && nargs == 2 && !kwnames)
        result = gufunc_of_any(name, rule, args);
    if (result || PyErr_Occurred())
        return result;
    return call_ufunc(self, args, nargsf, kwnames);
}

void set_fast_gufunc(PyUFuncObject *gufunc, int on)
{
    if (!call_ufunc)
        call_ufunc = gufunc->vectorcall;
    gufunc->vectorcall = on ? call_gufunc : call_ufunc;
}

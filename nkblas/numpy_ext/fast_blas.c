/* The fast paths of nkblas.blas, for arrays of the function's type. */
#include "numpy_ext.h"

/* An array of the function's type that the engine can read; NULL: the argument is none. */
static PyArrayObject *read_array(PyObject *value, int type, int ndim)
{
    PyArrayObject *array = (PyArrayObject *)value;
    return is_engine_operand(value) && PyArray_TYPE(array) == type && PyArray_NDIM(array) == ndim
               ? array
               : NULL;
}

/* In many places None means that an argument is not given. */
static PyObject *optional(PyObject *value) { return value == Py_None ? NULL : value; }

static int read_option(PyObject *value, npy_intp default_value, npy_intp *x)
{
    *x = default_value;
    return !optional(value) || read_integer(value, x);
}

/* A real type takes the real part of a complex number. Without C, beta has no effect. */
static int read_call_args(PyObject *alpha, PyObject *beta, PyObject *trans_a, PyObject *trans_b,
                          int type, int has_c, scaling *x, nk_call_args *call_args)
{
    if (!read_scaling(alpha, optional(beta), optional(trans_a), optional(trans_b), x))
        return 0;
    if (!PyTypeNum_ISCOMPLEX(type))
        x->alpha.value.imag = x->beta.value.imag = 0;
    if (!has_c)
        x->beta.value = (Py_complex){0, 0};
    return set_scaling(x, type, call_args);
}

/* The array to return, a new reference, with C or y in it: the argument itself if it can be
   overwritten, else a copy in Fortran order; without an argument, a new array of this shape. */
static PyArrayObject *result_array(PyArrayObject *given, npy_intp overwrite, int type, int ndim,
                                   npy_intp *shape, PyArrayObject *a, PyArrayObject *b)
{
    if (given && overwrite && PyArray_IS_F_CONTIGUOUS(given) && PyArray_ISWRITEABLE(given)) {
        int overlaps = may_overlap(given, a) || may_overlap(given, b);
        return overlaps ? NULL : (PyArrayObject *)Py_NewRef(given);
    }
    npy_intp *dims = given ? PyArray_DIMS(given) : shape;
    PyArrayObject *result = (PyArrayObject *)PyArray_EMPTY(ndim, dims, type, 1);
    if (result && given && copy_elements(result, given) < 0)
        Py_CLEAR(result);
    return result;
}

/* ---- gemm ---- */

static const char *const gemm_names[] = {
    "alpha", "a", "b", "beta", "c", "trans_a", "trans_b", "overwrite_c",
};
enum { GEMM_PARAMETERS = sizeof gemm_names / sizeof *gemm_names };

static PyObject *fast_blas_gemm(int type, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    static const parameter_list parameters = {gemm_names, GEMM_PARAMETERS, 3, GEMM_PARAMETERS};
    PyObject *values[GEMM_PARAMETERS] = {0};
    if (!sort_arguments(&parameters, args, nargs, kwnames, values))
        return NULL;
    PyObject *c_argument = optional(values[4]);
    PyArrayObject *a = read_array(values[1], type, 2), *b = read_array(values[2], type, 2);
    PyArrayObject *c = c_argument ? read_array(c_argument, type, 2) : NULL;
    scaling scaling;
    nk_call_args call_args = {0};
    npy_intp overwrite;
    if (!a || !b || !c != !c_argument || !read_option(values[7], 0, &overwrite) ||
        !read_call_args(values[0], values[3], values[5], values[6], type, c != NULL, &scaling,
                        &call_args))
        return NULL;
    npy_intp shape[2], k, rows;
    nk_matrix a_matrix = as_op_matrix(a, scaling.trans_a, &shape[0], &k);
    nk_matrix b_matrix = as_op_matrix(b, scaling.trans_b, &rows, &shape[1]);
    if (k != rows || k == 0 || shape[0] * shape[1] == 0 ||
        (c && !PyArray_CompareLists(PyArray_DIMS(c), shape, 2)))
        return NULL;
    PyArrayObject *result = result_array(c, overwrite, type, 2, shape, a, b);
    if (!result)
        return NULL;
    nk_matrix c_matrix = as_matrix(result, 0, &shape[0], &shape[1]);
    return run_fast_path(result, same_type_product(type), shape[0], shape[1], k, a_matrix, b_matrix,
                         c_matrix, call_args);
}

/* ---- gemv ---- */

static const char *const gemv_names[] = {
    "alpha", "a", "x", "beta", "y", "offx", "incx", "offy", "incy", "trans", "overwrite_y",
};
enum { GEMV_PARAMETERS = sizeof gemv_names / sizeof *gemv_names };

/* `count` elements of an array from `offset` on, at distances of abs(inc), and in reverse order if
   `inc` is negative, as a column. 0: there are fewer, or it's invalid. */
static int as_column(PyArrayObject *x, npy_intp count, npy_intp offset, npy_intp inc,
                     nk_matrix *column)
{
    npy_intp length, columns, distance = inc < 0 ? -inc : inc;
    *column = as_matrix(x, 1, &length, &columns);
    if (inc == 0 || offset < 0 || offset >= length || (length - 1 - offset) / distance < count - 1)
        return 0;
    npy_intp first = inc < 0 ? offset + (count - 1) * distance : offset;
    column->data += first * PyArray_STRIDE(x, 0);
    column->rs *= inc;
    return 1;
}

static PyObject *fast_blas_gemv(int type, PyObject *const *args, Py_ssize_t nargs,
                                PyObject *kwnames)
{
    static const parameter_list parameters = {gemv_names, GEMV_PARAMETERS, 3, GEMV_PARAMETERS};
    PyObject *values[GEMV_PARAMETERS] = {0};
    if (!sort_arguments(&parameters, args, nargs, kwnames, values))
        return NULL;
    PyObject *y_argument = optional(values[4]);
    PyArrayObject *a = read_array(values[1], type, 2), *x = read_array(values[2], type, 1);
    PyArrayObject *y = y_argument ? read_array(y_argument, type, 1) : NULL;
    scaling scaling;
    nk_call_args call_args = {0};
    npy_intp offx, incx, offy, incy, overwrite;
    if (!a || !x || !y != !y_argument || !read_option(values[5], 0, &offx) ||
        !read_option(values[6], 1, &incx) || !read_option(values[7], 0, &offy) ||
        !read_option(values[8], 1, &incy) || !read_option(values[10], 0, &overwrite) ||
        !read_call_args(values[0], values[3], values[9], NULL, type, y != NULL, &scaling,
                        &call_args))
        return NULL;
    npy_intp m, n;
    nk_matrix a_matrix = as_op_matrix(a, scaling.trans_a, &m, &n), x_column, y_column;
    /* Without y, elements of the result that the product does not set are 0. */
    if (m * n == 0 || !as_column(x, n, offx, incx, &x_column) || (!y && (offy || incy != 1)))
        return NULL;
    PyArrayObject *result = result_array(y, overwrite, type, 1, &m, a, x);
    if (!result || !as_column(result, m, offy, incy, &y_column)) {
        Py_XDECREF(result);
        return NULL;
    }
    return run_fast_path(result, same_type_product(type), m, 1, n, a_matrix, x_column, y_column,
                         call_args);
}

/* ---- for each type ---- */

#define DEFINE_FAST_PATHS(letter, type)                                                            \
    PyObject *fast_##letter##gemm(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)      \
    {                                                                                              \
        return fast_blas_gemm(type, args, nargs, kwnames);                                         \
    }                                                                                              \
    PyObject *fast_##letter##gemv(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)      \
    {                                                                                              \
        return fast_blas_gemv(type, args, nargs, kwnames);                                         \
    }

DEFINE_FAST_PATHS(s, NPY_FLOAT)
DEFINE_FAST_PATHS(d, NPY_DOUBLE)
DEFINE_FAST_PATHS(c, NPY_CFLOAT)
DEFINE_FAST_PATHS(z, NPY_CDOUBLE)

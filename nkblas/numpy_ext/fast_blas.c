/* What the fast paths of nkblas.blas have in common, for arrays of the function's type; and that of
   gemv. */
#include "numpy_ext.h"

PyArrayObject *read_blas_array(PyObject *value, int type, int ndim)
{
    PyArrayObject *array = (PyArrayObject *)value;
    return is_engine_operand(value) && PyArray_TYPE(array) == type && PyArray_NDIM(array) == ndim
               ? array
               : NULL;
}

int read_blas_option(PyObject *value, npy_intp default_value, npy_intp *x)
{
    *x = default_value;
    return !value || value == Py_None || read_integer(value, x);
}

int read_blas_flag(PyObject *value, npy_intp *x)
{
    *x = 0;
    return !value || read_integer(value, x);
}

int read_blas_factors(PyObject *alpha, PyObject *beta, int type, int has_c, scaling *x)
{
    if (!read_scaling(alpha, beta == Py_None ? NULL : beta, NULL, NULL, x))
        return 0;
    if (!PyTypeNum_ISCOMPLEX(type))
        x->alpha.value.imag = x->beta.value.imag = 0;
    if (!has_c)
        x->beta.value = (Py_complex){0, 0};
    return 1;
}

PyArrayObject *blas_result(PyArrayObject *given, npy_intp overwrite, int type, int ndim,
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
    PyArrayObject *a = read_blas_array(values[1], type, 2),
                  *x = read_blas_array(values[2], type, 1);
    int has_y = values[4] && values[4] != Py_None;
    PyArrayObject *y = has_y ? read_blas_array(values[4], type, 1) : NULL;
    scaling scaling;
    nk_call_args call_args = {0};
    npy_intp offx, incx, offy, incy, trans, overwrite;
    if (!a || !x || !y != !has_y || !read_blas_option(values[5], 0, &offx) ||
        !read_blas_option(values[6], 1, &incx) || !read_blas_option(values[7], 0, &offy) ||
        !read_blas_option(values[8], 1, &incy) || !read_blas_option(values[9], 0, &trans) ||
        trans < 0 || trans > 2 || !read_blas_flag(values[10], &overwrite) ||
        !read_blas_factors(values[0], values[3], type, has_y, &scaling))
        return NULL;
    scaling.trans_a = (int)trans;
    if (!set_scaling(&scaling, type, &call_args))
        return NULL;
    npy_intp m, n;
    nk_matrix a_matrix = as_op_matrix(a, scaling.trans_a, &m, &n), x_column, y_column;
    /* Without y, elements of the result that the product does not set are 0. */
    if (m * n == 0 || !as_column(x, n, offx, incx, &x_column) || (!y && (offy || incy != 1)))
        return NULL;
    PyArrayObject *result = blas_result(y, overwrite, type, 1, &m, a, x);
    if (!result || !as_column(result, m, offy, incy, &y_column)) {
        Py_XDECREF(result);
        return NULL;
    }
    return run_fast_path(result, same_type_product(type), m, 1, n, a_matrix, x_column, y_column,
                         call_args);
}

/* ---- for each type ---- */

#define DEFINE_FAST_PATHS(letter, type)                                                            \
    PyObject *fast_##letter##gemv(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)      \
    {                                                                                              \
        return fast_blas_gemv(type, args, nargs, kwnames);                                         \
    }

DEFINE_FAST_PATHS(s, NPY_FLOAT)
DEFINE_FAST_PATHS(d, NPY_DOUBLE)
DEFINE_FAST_PATHS(c, NPY_CFLOAT)
DEFINE_FAST_PATHS(z, NPY_CDOUBLE)

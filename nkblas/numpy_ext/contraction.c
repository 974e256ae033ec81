/* Contractions as products of stacks of matrices, by a recipe. */
#include "numpy_ext.h"

/* ---- operands ---- */

/* Sum over labels of one operand alone, or take diagonals. */
static PyArrayObject *presum(PyObject *subscripts, PyArrayObject *x, int type)
{
    static PyObject *keywords;
    if (!keywords && !(keywords = Py_BuildValue("(s)", "dtype")))
        return NULL;
    PyObject *dtype = (PyObject *)PyArray_DescrFromType(type);
    PyObject *args[] = {subscripts, (PyObject *)x, dtype};
    int has_type = PyArray_TYPE(x) == type && PyArray_ISNOTSWAPPED(x);
    PyObject *sums =
        PyObject_Vectorcall(numpy_function(EINSUM), args, 2, has_type ? NULL : keywords);
    Py_DECREF(dtype);
    if (sums && !PyArray_Check(sums)) { /* without dimensions it is a scalar */
        PyObject *scalar = sums;
        sums = PyArray_FromScalar(scalar, NULL);
        Py_DECREF(scalar);
    }
    return (PyArrayObject *)sums;
}

/* The sums of the rows of a matrix; NULL, maybe without an exception: they are not computed. */
static PyArrayObject *sum_rows(const operand_recipe *how, PyArrayObject *x, int type)
{
    npy_intp rows = how->rows;
    PyArrayObject *sums = (PyArrayObject *)PyArray_SimpleNew(1, &rows, type);
    if (!sums)
        return NULL;
    int dtype = same_type_product(type);
    nk_matrix a = {.data = PyArray_BYTES(x), .rs = how->rs, .cs = how->cs};
    nk_matrix b = {.data = PyArray_BYTES(how->ones), .rs = 1, .cs = 1};
    nk_matrix c = {.data = PyArray_BYTES(sums), .rs = 1, .cs = 1};
    int done = run_product(dtype, rows, 1, how->columns, a, b, c, product_call_args(dtype, 0));
    uncount_calls(1, !done); /* it is a part of another product */
    if (!done)
        Py_CLEAR(sums);
    return sums;
}

static PyArrayObject *transposed(PyArrayObject *x, const copy_recipe *copy)
{
    PyArray_Dims axes = {(npy_intp *)copy->axes, copy->ndim};
    return (PyArrayObject *)PyArray_Transpose(x, &axes);
}

static PyArrayObject *contiguous_copy(const copy_recipe *how, PyArrayObject *x, int type)
{
    PyArrayObject *view = transposed(x, how);
    if (!view)
        return NULL;
    PyArrayObject *copy = (PyArrayObject *)PyArray_SimpleNew(how->ndim, PyArray_DIMS(view), type);
    if (copy && PyArray_CopyInto(copy, view) < 0)
        Py_CLEAR(copy);
    Py_DECREF(view);
    return copy;
}

/* A new reference to the operand as the engine reads it; NULL, maybe without an exception. */
static PyArrayObject *prepare(const operand_recipe *how, PyArrayObject *x, int type)
{
    PyArrayObject *prepared = how->presum ? presum(how->presum, x, type)
                              : how->ones ? sum_rows(how, x, type)
                                          : (PyArrayObject *)Py_NewRef(x);
    if (!prepared || how->copy.ndim < 0)
        return prepared;
    PyArrayObject *copy = contiguous_copy(&how->copy, prepared, type);
    Py_DECREF(prepared);
    return copy;
}

/* Whether all floats of a vector are finite: their exponents are not the largest one. */
#define DEFINE_ALL_FINITE(name, type, exponent)                                                    \
    static int name(const char *data, npy_intp count, npy_intp stride)                             \
    {                                                                                              \
        int finite = 1;                                                                            \
        for (npy_intp i = 0; i < count; i++)                                                       \
            finite &= (*(const type *)(data + i * stride) & exponent) != exponent;                 \
        return finite;                                                                             \
    }
DEFINE_ALL_FINITE(halves_are_finite, uint16_t, 0x7c00)
DEFINE_ALL_FINITE(floats_are_finite, uint32_t, 0x7f800000)
DEFINE_ALL_FINITE(doubles_are_finite, uint64_t, 0x7ff0000000000000)

static int vector_is_finite(int type, const char *data, npy_intp count, npy_intp stride)
{
    switch (type) {
    case NPY_HALF: return halves_are_finite(data, count, stride);
    case NPY_FLOAT: return floats_are_finite(data, count, stride);
    case NPY_DOUBLE: return doubles_are_finite(data, count, stride);
    case NPY_CFLOAT:
        return floats_are_finite(data, count, stride) &&
               floats_are_finite(data + sizeof(float), count, stride);
    case NPY_CDOUBLE:
        return doubles_are_finite(data, count, stride) &&
               doubles_are_finite(data + sizeof(double), count, stride);
    default: return 1;
    }
}

static int is_finite(int type, const char *data, int ndim, const npy_intp *shape,
                     const npy_intp *strides)
{
    if (ndim <= 1)
        return vector_is_finite(type, data, ndim ? shape[0] : 1, ndim ? strides[0] : 0);
    for (npy_intp i = 0; i < shape[0]; i++)
        if (!is_finite(type, data + i * strides[0], ndim - 1, shape + 1, strides + 1))
            return 0;
    return 1;
}

static int array_is_finite(PyArrayObject *x)
{
    return is_finite(PyArray_TYPE(x), PyArray_BYTES(x), PyArray_NDIM(x), PyArray_DIMS(x),
                     PyArray_STRIDES(x));
}

/* ---- the product ---- */

/* Advance to the next stack of the innermost dimension; 0: there is none. */
static int advance(const recipe *x, npy_intp *index, nk_matrix *a, nk_matrix *b, nk_matrix *c)
{
    const nk_itemsizes *itemsize = nk_itemsizes_of(same_type_product(x->type));
    for (int i = x->stack_ndim - 2; i >= 0; i--) {
        const stack_dimension *d = &x->stack[i];
        int is_last = ++index[i] == d->length;
        npy_intp steps = is_last ? 1 - d->length : 1;
        a->data += steps * d->strides.a * itemsize->a;
        b->data += steps * d->strides.b * itemsize->b;
        c->data += steps * d->strides.c * itemsize->c;
        if (!is_last)
            return 1;
        index[i] = 0;
    }
    return 0;
}

static int run_stacks(const recipe *x, nk_matrix a, nk_matrix b, nk_matrix c, int conjugate_a)
{
    int dtype = same_type_product(x->type);
    const stack_dimension *inner = &x->stack[x->stack_ndim - 1];
    nk_call_args call_args = product_call_args(dtype, conjugate_a);
    npy_intp index[MAX_DIMENSIONS] = {0}, done = 0;
    do {
        if (!engine_gemm(dtype, x->m, x->n, x->k, a, b, c, inner->length, inner->strides,
                         call_args)) {
            uncount_calls(done + inner->length, inner->length);
            return 0;
        }
        done += inner->length;
    } while (advance(x, index, &a, &b, &c));
    return 1;
}

static int run_on_engine(const recipe *x, char *a, char *b, char *c, int conjugate_a)
{
    const npy_intp *s = x->strides;
    nk_matrix a_matrix = {.data = a, .rs = s[0], .cs = s[1]};
    nk_matrix b_matrix = {.data = b, .rs = s[2], .cs = s[3]};
    nk_matrix c_matrix = {.data = c, .rs = s[4], .cs = s[5]};
    double work = (double)x->m * (double)x->n * (double)x->k;
    for (int i = 0; i < x->stack_ndim; i++)
        work *= (double)x->stack[i].length;
    if (work <= MIN_WORK_TO_RELEASE_GIL)
        return run_stacks(x, a_matrix, b_matrix, c_matrix, conjugate_a);
    PyThreadState *state = PyEval_SaveThread();
    int done = run_stacks(x, a_matrix, b_matrix, c_matrix, conjugate_a);
    PyEval_RestoreThread(state);
    return done;
}

static PyArrayObject *new_result(const recipe *x)
{
    return (PyArrayObject *)PyArray_New(&PyArray_Type, x->ndim, x->shape, x->type,
                                        x->ndim ? x->result_strides : NULL, NULL, 0, 0, NULL);
}

/* Compute the result where it belongs, or in a contiguous array that is copied there. */
static int compute(const recipe *x, PyArrayObject *a, PyArrayObject *b, PyArrayObject *result,
                   int conjugate_a)
{
    PyArrayObject *view = NULL, *target = result;
    if (x->target.ndim >= 0) {
        view = transposed(result, &x->target);
        target =
            view ? (PyArrayObject *)PyArray_SimpleNew(x->target.ndim, PyArray_DIMS(view), x->type)
                 : NULL;
    }
    int done = target && run_on_engine(x, PyArray_BYTES(a), PyArray_BYTES(b), PyArray_BYTES(target),
                                       conjugate_a);
    if (done && view)
        done = PyArray_CopyInto(view, target) == 0;
    if (x->target.ndim >= 0)
        Py_XDECREF(target);
    Py_XDECREF(view);
    return done;
}

PyArrayObject *run_recipe(const recipe *x, PyArrayObject *const *operands, PyArrayObject *out,
                          int conjugate_a, const char *name)
{
    PyArrayObject *a = prepare(&x->operands[0], operands[0], x->type);
    PyArrayObject *b = a ? prepare(&x->operands[1], operands[1], x->type) : NULL;
    PyArrayObject *c = NULL;
    /* inf * (1 - 1) is not inf * 1 - inf * 1 */
    if (b && (!x->presums_floats || (array_is_finite(a) && array_is_finite(b))))
        c = out ? (PyArrayObject *)Py_NewRef(out) : new_result(x);
    if (c && name)
        clear_float_flags();
    if (c && !compute(x, a, b, c, conjugate_a))
        Py_CLEAR(c);
    else if (c && name && report_float_flags(name) < 0)
        Py_CLEAR(c);
    Py_XDECREF(a);
    Py_XDECREF(b);
    return c;
}

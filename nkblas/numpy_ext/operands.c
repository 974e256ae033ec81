/* Which arrays the engine can read and write without a copy. */
#include "numpy_ext.h"

int is_engine_operand(PyObject *x)
{
    if (!PyArray_CheckExact(x))
        return 0;
    PyArrayObject *array = (PyArrayObject *)x;
    int ndim = PyArray_NDIM(array), type = PyArray_TYPE(array);
    if ((ndim != 1 && ndim != 2) || !PyArray_ISBEHAVED_RO(array) ||
        (same_type_product(type) == NO_PRODUCT && user_dtype_product(type) == NO_PRODUCT))
        return 0;
    npy_intp itemsize = PyArray_ITEMSIZE(array);
    return PyArray_STRIDE(array, 0) % itemsize == 0 &&
           PyArray_STRIDE(array, ndim - 1) % itemsize == 0;
}

int may_overlap(PyArrayObject *x, PyArrayObject *y)
{
    PyArrayObject *arrays[] = {x, y};
    char *low[2], *high[2];
    for (int i = 0; i < 2; i++) {
        low[i] = PyArray_BYTES(arrays[i]);
        high[i] = low[i] + PyArray_ITEMSIZE(arrays[i]);
        for (int j = 0; j < PyArray_NDIM(arrays[i]); j++) {
            npy_intp extent = (PyArray_DIM(arrays[i], j) - 1) * PyArray_STRIDE(arrays[i], j);
            *(extent < 0 ? &low[i] : &high[i]) += extent;
        }
    }
    return low[0] < high[1] && low[1] < high[0];
}

int fits_result(PyObject *out, int ndim, const npy_intp *shape, int type)
{
    PyArrayObject *array = (PyArrayObject *)out;
    return is_engine_operand(out) && PyArray_NDIM(array) == ndim && PyArray_TYPE(array) == type &&
           PyArray_CompareLists(PyArray_DIMS(array), shape, ndim) && PyArray_ISWRITEABLE(array);
}

PyArrayObject *usable_out(PyObject *out, PyArrayObject *a, PyArrayObject *b, int ndim,
                          const npy_intp *shape, int type)
{
    PyArrayObject *array = (PyArrayObject *)out;
    if (!fits_result(out, ndim, shape, type) || may_overlap(array, a) || may_overlap(array, b))
        return NULL;
    Py_INCREF(array);
    return array;
}

/* ---- conversion ---- */

int is_plain_number(PyObject *x)
{
    return PyFloat_CheckExact(x) || PyLong_CheckExact(x) || PyBool_Check(x) ||
           PyComplex_CheckExact(x) ||
           (PyArray_IsScalar(x, Number) && !PyType_HasFeature(Py_TYPE(x), Py_TPFLAGS_HEAPTYPE));
}

int is_plain_list(PyObject *x) { return PyList_CheckExact(x) || PyTuple_CheckExact(x); }

int is_plain(PyObject *x)
{
    if (PyArray_CheckExact(x))
        return 1;
    if (!is_plain_list(x))
        return is_plain_number(x);
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(x); i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(x, i);
        if (!is_plain_number(item) && !is_plain_list(item))
            return 0;
    }
    return 1;
}

int as_plain_arrays(PyObject *const *operands, Py_ssize_t count, PyArrayObject **arrays)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (!is_plain(operands[i]))
            return 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        arrays[i] = PyArray_CheckExact(operands[i]) ? (PyArrayObject *)Py_NewRef(operands[i])
                                                    : (PyArrayObject *)PyArray_FROM_O(operands[i]);
        if (!arrays[i] || !PyArray_CheckExact(arrays[i])) {
            PyErr_Clear();
            release_arrays(arrays, arrays[i] ? i + 1 : i);
            return 0;
        }
    }
    return 1;
}

void release_arrays(PyArrayObject **arrays, Py_ssize_t count)
{
    for (Py_ssize_t i = 0; i < count; i++)
        Py_DECREF(arrays[i]);
}

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

/* Reads the arguments of fast paths. A 0 leaves the call, which may be valid, to Python. */
#include "numpy_ext.h"

int sort_arguments(const parameter_list *parameters, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames, PyObject **values)
{
    if (nargs > parameters->positional)
        return 0;
    for (Py_ssize_t i = 0; i < nargs; i++)
        values[i] = args[i];
    for (Py_ssize_t i = 0; kwnames && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        int j = 0;
        while (j < parameters->count &&
               PyUnicode_CompareWithASCIIString(name, parameters->names[j]))
            j++;
        if (j == parameters->count || values[j])
            return 0;
        values[j] = args[nargs + i];
    }
    for (int i = 0; i < parameters->required; i++)
        if (!values[i])
            return 0;
    return 1;
}

int read_number(PyObject *value, number *x)
{
    PyObject *item = PyArray_IsScalar(value, Generic) ? PyObject_CallMethod(value, "item", NULL)
                                                      : Py_NewRef(value);
    int is_number = 1;
    if (item && PyComplex_CheckExact(item))
        *x = (number){COMPLEX_NUMBER, PyComplex_AsCComplex(item)};
    else if (item && PyFloat_CheckExact(item))
        *x = (number){REAL_NUMBER, {PyFloat_AS_DOUBLE(item), 0}};
    else if (item && (PyLong_CheckExact(item) || PyBool_Check(item)))
        *x = (number){INTEGER_NUMBER, {PyLong_AsDouble(item), 0}};
    else
        is_number = 0;
    Py_XDECREF(item);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    return is_number;
}

int read_integer(PyObject *value, npy_intp *x)
{
    int overflow = 0;
    if (!PyLong_CheckExact(value) && !PyBool_Check(value))
        return 0;
    *x = PyLong_AsLongAndOverflow(value, &overflow);
    return !overflow && INT32_MIN <= *x && *x <= INT32_MAX;
}

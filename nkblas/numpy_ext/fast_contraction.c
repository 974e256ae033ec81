/* The fast paths of tensordot and multi_dot, and of other products that need a recipe. */
#include "numpy_ext.h"

/* The product of two arrays by the recipe with this key, a new reference. */
static PyArrayObject *product_by_recipe(product_rule rule, const char *name, const recipe_key *key,
                                        PyObject *what, PyArrayObject *const *operands)
{
    recipe *found = find_recipe(key, what, operands, 2, NULL);
    PyArrayObject *result = NULL;
    if (found && found->kind == BY_ENGINE)
        result = run_recipe(found, operands, NULL, conjugates_a(rule), name);
    else if (found && found->kind == BY_NUMPY) {
        result = (PyArrayObject *)PyObject_Vectorcall(numpy_function(rule),
                                                      (PyObject *const *)operands, 2, NULL);
        if (result && found->is_fallback)
            count_fallbacks(1);
    }
    release_recipe(found);
    return result;
}

PyObject *contract(product_rule rule, const char *name, PyArrayObject *const *operands)
{
    recipe_key key;
    start_key(&key, rule, NULL);
    if (!add_array(&key, operands[0]) || !add_array(&key, operands[1]))
        return NULL;
    PyArrayObject *result = product_by_recipe(rule, name, &key, NULL, operands);
    return result && PyArray_Check(result) ? PyArray_Return(result) : (PyObject *)result;
}

/* ---- tensordot ---- */

/* Add an integer; 0: it is another object, or too large. */
static int add_integer(recipe_key *key, PyObject *x)
{
    int overflow;
    if (!PyLong_CheckExact(x))
        return 0;
    add_word(key, PyLong_AsLongAndOverflow(x, &overflow));
    return !overflow;
}

/* Add axes: an integer, or a pair of integers or of lists of integers. */
static int add_axes(recipe_key *key, PyObject *axes)
{
    add_word(key, is_plain_list(axes));
    if (!is_plain_list(axes))
        return add_integer(key, axes);
    if (PySequence_Fast_GET_SIZE(axes) != 2)
        return 0;
    for (int i = 0; i < 2; i++) {
        PyObject *one = PySequence_Fast_GET_ITEM(axes, i);
        PyObject *const *items = is_plain_list(one) ? PySequence_Fast_ITEMS(one) : &one;
        Py_ssize_t count = is_plain_list(one) ? PySequence_Fast_GET_SIZE(one) : 1;
        add_word(key, count);
        for (Py_ssize_t j = 0; j < count; j++)
            if (!add_integer(key, items[j]))
                return 0;
    }
    return 1;
}

/* tensordot(a, b, axes) */
PyObject *fast_tensordot(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    Py_ssize_t keywords = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    PyArrayObject *operands[2];
    recipe_key key;
    if (nargs < 2 || nargs + keywords > 3 ||
        (keywords && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "axes")))
        return NULL;
    PyObject *axes = nargs + keywords == 3 ? args[2] : PyLong_FromLong(2), *result = NULL;
    start_key(&key, TENSORDOT, NULL);
    if (add_axes(&key, axes) && as_plain_arrays(args, 2, operands)) {
        if (add_array(&key, operands[0]) && add_array(&key, operands[1]))
            result = (PyObject *)product_by_recipe(TENSORDOT, "dot", &key, axes, operands);
        release_arrays(operands, 2);
    }
    if (nargs + keywords == 2)
        Py_DECREF(axes);
    return result;
}

/* ---- multi_dot ---- */

/* A product of two arrays of which one may be the result of an earlier one, which is counted. */
static PyObject *next_dot(PyObject *a, PyObject *b)
{
    PyObject *args[] = {a, b}, *result = fast_dot(args, 2, NULL);
    if (result || PyErr_Occurred())
        return result;
    result = PyObject_Vectorcall(numpy_function(DOT), args, 2, NULL);
    if (result)
        count_fallbacks(1);
    return result;
}

/* multi_dot of three: the order with fewer multiplications, by NumPy's formula. */
static PyObject *dot_three(PyObject *const *items)
{
    npy_intp length[4];
    PyArrayObject *x[3];
    for (int i = 0; i < 3; i++) {
        x[i] = (PyArrayObject *)items[i];
        if (!PyArray_CheckExact(items[i]) || PyArray_NDIM(x[i]) < (i == 1 ? 2 : 1) ||
            PyArray_NDIM(x[i]) > 2)
            return NULL;
    }
    length[0] = PyArray_NDIM(x[0]) == 2 ? PyArray_DIM(x[0], 0) : 1;
    length[1] = PyArray_DIM(x[1], 0);
    length[2] = PyArray_DIM(x[1], 1);
    length[3] = PyArray_NDIM(x[2]) == 2 ? PyArray_DIM(x[2], 1) : 1;
    if (PyArray_DIM(x[0], PyArray_NDIM(x[0]) - 1) != length[1] || PyArray_DIM(x[2], 0) != length[2])
        return NULL;
    int is_left_first = length[0] * length[2] * (length[1] + length[3]) <
                        length[1] * length[3] * (length[0] + length[2]);
    PyObject *const *pair = is_left_first ? items : items + 1;
    PyObject *product = fast_dot(pair, 2, NULL);
    if (!product)
        return NULL;
    PyObject *result = is_left_first ? next_dot(product, items[2]) : next_dot(items[0], product);
    Py_DECREF(product);
    return result;
}

/* multi_dot([a, b]), multi_dot([a, b, c]) */
PyObject *fast_multi_dot(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (nargs != 1 || kwnames || !is_plain_list(args[0]))
        return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(args[0]);
    if (count != 2 && count != 3)
        return NULL;
    PyObject *items[3]; /* references, since other threads may change the list */
    for (Py_ssize_t i = 0; i < count; i++)
        items[i] = Py_NewRef(PySequence_Fast_GET_ITEM(args[0], i));
    PyObject *result = count == 2 ? fast_dot(items, 2, NULL) : dot_three(items);
    for (Py_ssize_t i = 0; i < count; i++)
        Py_DECREF(items[i]);
    return result;
}

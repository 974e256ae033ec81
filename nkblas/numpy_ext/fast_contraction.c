/* The fast paths of einsum and tensordot, and of products that need a recipe. */
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

/* ---- einsum ---- */

enum { MAX_EINSUM_OPERANDS = 8 };

/* Take out= and optimize=False; `*out` is NULL where the call has none. */
static int read_einsum_keywords(PyObject *const *values, PyObject *kwnames, PyArrayObject **out)
{
    *out = NULL;
    for (Py_ssize_t i = 0; kwnames && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i), *value = values[i];
        if (!PyUnicode_CompareWithASCIIString(name, "optimize")) {
            if (value != Py_False)
                return 0;
        } else if (PyUnicode_CompareWithASCIIString(name, "out")) {
            return 0;
        } else if (value != Py_None) {
            if (!PyArray_CheckExact(value))
                return 0;
            *out = (PyArrayObject *)value;
        }
    }
    return 1;
}

static PyObject *einsum_by_numpy(PyObject *subscripts, PyArrayObject *const *operands,
                                 Py_ssize_t count, PyArrayObject *out)
{
    static PyObject *keywords;
    PyObject *args[MAX_EINSUM_OPERANDS + 2];
    if (!keywords && !(keywords = Py_BuildValue("(s)", "out")))
        return NULL;
    args[0] = subscripts;
    memcpy(args + 1, operands, (size_t)count * sizeof *args);
    args[count + 1] = (PyObject *)out;
    return PyObject_Vectorcall(numpy_function(EINSUM), args, (size_t)count + 1,
                               out ? keywords : NULL);
}

static PyObject *einsum_of_arrays(PyObject *subscripts, PyArrayObject *const *operands,
                                  Py_ssize_t count, PyArrayObject *out)
{
    recipe_key key;
    start_key(&key, EINSUM, subscripts);
    add_word(&key, count);
    /* With another number of operands it is no product, of whatever arrays. */
    if (count == 2 && (!add_array(&key, operands[0]) || !add_array(&key, operands[1]) ||
                       (out && !add_array(&key, out))))
        return NULL;
    recipe *found = find_recipe(&key, subscripts, operands, count, (PyObject *)out);
    PyObject *result = NULL;
    if (found && found->kind == BY_NUMPY) {
        result = einsum_by_numpy(subscripts, operands, count, out);
        if (result && found->is_fallback)
            count_fallbacks(1);
    } else if (found && found->kind == BY_ENGINE &&
               !(out && (!PyArray_ISWRITEABLE(out) || may_overlap(out, operands[0]) ||
                         may_overlap(out, operands[1])))) {
        PyArrayObject *array = run_recipe(found, operands, out, 0, NULL);
        result = array && !out ? PyArray_Return(array) : (PyObject *)array;
    }
    release_recipe(found);
    return result;
}

/* einsum(subscripts, operands..., out=, optimize=False) */
PyObject *fast_einsum(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyArrayObject *operands[MAX_EINSUM_OPERANDS], *out;
    Py_ssize_t count = nargs - 1;
    if (count < 1 || count > MAX_EINSUM_OPERANDS || !PyUnicode_CheckExact(args[0]) ||
        !read_einsum_keywords(args + nargs, kwnames, &out) ||
        !as_plain_arrays(args + 1, count, operands))
        return NULL;
    PyObject *result = einsum_of_arrays(args[0], operands, count, out);
    release_arrays(operands, count);
    return result;
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

static int is_list(PyObject *x) { return PyList_CheckExact(x) || PyTuple_CheckExact(x); }

/* Add axes: an integer, or a pair of integers or of lists of integers. */
static int add_axes(recipe_key *key, PyObject *axes)
{
    add_word(key, is_list(axes));
    if (!is_list(axes))
        return add_integer(key, axes);
    if (PySequence_Fast_GET_SIZE(axes) != 2)
        return 0;
    for (int i = 0; i < 2; i++) {
        PyObject *one = PySequence_Fast_GET_ITEM(axes, i);
        PyObject *const *items = is_list(one) ? PySequence_Fast_ITEMS(one) : &one;
        Py_ssize_t count = is_list(one) ? PySequence_Fast_GET_SIZE(one) : 1;
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

/* The fast path of einsum. */
#include "numpy_ext.h"

/* ---- keywords ---- */

/* The keywords that NumPy's c_einsum has. */
enum { OUT, DTYPE, ORDER, CASTING, EINSUM_KEYWORDS };
static const char *const einsum_keywords[EINSUM_KEYWORDS] = {"out", "dtype", "order", "casting"};

enum { MAX_EINSUM_OPERANDS = 8 };

typedef struct {
    PyArrayObject *out;
    int count; /* of the keywords that are given; without those that have no effect */
    int keywords[EINSUM_KEYWORDS];
    PyObject *values[EINSUM_KEYWORDS]; /* borrowed */
} einsum_options;

static int find_einsum_keyword(PyObject *name)
{
    int keyword = 0;
    while (keyword < EINSUM_KEYWORDS &&
           PyUnicode_CompareWithASCIIString(name, einsum_keywords[keyword]))
        keyword++;
    return keyword;
}

/* Take optimize=False and the keywords of c_einsum; 0: there are others, or `out` is no array. */
static int read_options(PyObject *const *values, PyObject *kwnames, einsum_options *options)
{
    options->out = NULL;
    options->count = 0;
    for (Py_ssize_t i = 0; kwnames && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i), *value = values[i];
        int keyword = find_einsum_keyword(name);
        if (keyword == EINSUM_KEYWORDS) {
            if (value != Py_False || PyUnicode_CompareWithASCIIString(name, "optimize"))
                return 0;
            continue;
        }
        if (keyword == OUT && value == Py_None)
            continue;
        if (keyword == OUT && !PyArray_CheckExact(value))
            return 0;
        if (keyword == OUT)
            options->out = (PyArrayObject *)value;
        options->keywords[options->count] = keyword;
        options->values[options->count++] = value;
    }
    return 1;
}

/* Add options to a key; 0: an option is wrong, or its dtype is not one of a number. */
static int add_options(recipe_key *key, const einsum_options *options)
{
    for (int i = 0; i < options->count; i++) {
        PyObject *value = options->values[i];
        PyArray_Descr *dtype = NULL;
        NPY_ORDER order = NPY_KEEPORDER;
        NPY_CASTING casting = NPY_SAFE_CASTING;
        int keyword = options->keywords[i], code = 0, ok = 1;
        switch (keyword) {
        case OUT: ok = add_array(key, options->out); break;
        case ORDER: ok = PyArray_OrderConverter(value, &order), code = order; break;
        case CASTING: ok = PyArray_CastingConverter(value, &casting), code = casting; break;
        default:
            ok = PyArray_DescrConverter2(value, &dtype) &&
                 (!dtype || PyArray_ISNBO(dtype->byteorder));
            code = dtype ? dtype->type_num : NPY_NOTYPE;
            ok = ok && (!dtype || has_recipes(code));
            Py_XDECREF(dtype);
        }
        if (!ok) {
            PyErr_Clear();
            return 0;
        }
        add_word(key, code << 8 | keyword);
    }
    return 1;
}

/* The options as a dict, for Python. */
static PyObject *options_dict(const einsum_options *options)
{
    PyObject *dict = PyDict_New();
    for (int i = 0; dict && i < options->count; i++)
        if (PyDict_SetItemString(dict, einsum_keywords[options->keywords[i]], options->values[i]) <
            0)
            Py_CLEAR(dict);
    return dict;
}

/* ---- a call of einsum ---- */

static PyObject *einsum_by_numpy(PyObject *subscripts, PyArrayObject *const *operands,
                                 Py_ssize_t count, const einsum_options *options)
{
    PyObject *args[1 + MAX_EINSUM_OPERANDS + EINSUM_KEYWORDS], *names = NULL;
    args[0] = subscripts;
    memcpy(args + 1, operands, (size_t)count * sizeof *args);
    memcpy(args + 1 + count, options->values, (size_t)options->count * sizeof *args);
    if (options->count && !(names = PyTuple_New(options->count)))
        return NULL;
    for (int i = 0; i < options->count; i++) {
        PyObject *name = PyUnicode_InternFromString(einsum_keywords[options->keywords[i]]);
        if (!name) {
            Py_DECREF(names);
            return NULL;
        }
        PyTuple_SET_ITEM(names, i, name);
    }
    PyObject *result = PyObject_Vectorcall(numpy_function(EINSUM), args, (size_t)count + 1, names);
    Py_XDECREF(names);
    return result;
}

static recipe *find_einsum_recipe(PyObject *subscripts, PyArrayObject *const *operands,
                                  Py_ssize_t count, const einsum_options *options)
{
    recipe_key key;
    start_key(&key, EINSUM, subscripts);
    add_word(&key, count);
    /* With another number of operands it is no product, of whatever arrays. */
    if (count != 2)
        return find_recipe(&key, subscripts, operands, count, NULL);
    if (!add_array(&key, operands[0]) || !add_array(&key, operands[1]) ||
        !add_options(&key, options))
        return NULL;
    PyObject *dict = options->count ? options_dict(options) : NULL;
    if (options->count && !dict)
        return NULL;
    recipe *found = find_recipe(&key, subscripts, operands, count, dict);
    Py_XDECREF(dict);
    return found;
}

static PyObject *einsum_of_arrays(PyObject *subscripts, PyArrayObject *const *operands,
                                  Py_ssize_t count, const einsum_options *options)
{
    PyArrayObject *out = options->out;
    recipe *found = find_einsum_recipe(subscripts, operands, count, options);
    PyObject *result = NULL;
    if (found && found->kind == BY_NUMPY) {
        result = einsum_by_numpy(subscripts, operands, count, options);
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

/* ---- the arguments of einsum ---- */

enum { MAX_SUBSCRIPTS = 256 };

/* Append the labels of a list, as NumPy names them; returns the new length, -1: it is no list of
   small integers and ellipses, or too long. */
static int append_labels(char *text, int length, PyObject *labels)
{
    if (!is_plain_list(labels))
        return -1;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(labels); i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(labels, i);
        if (length + 6 > MAX_SUBSCRIPTS)
            return -1;
        if (item == Py_Ellipsis) {
            memcpy(text + length, "...", 3);
            length += 3;
            continue;
        }
        int overflow;
        long label = PyLong_CheckExact(item) ? PyLong_AsLongAndOverflow(item, &overflow) : -1;
        if (label < 0 || label >= 52)
            return -1;
        text[length++] = (char)(label < 26 ? 'A' + label : 'a' + label - 26);
    }
    return length;
}

/* The subscripts of einsum(a, labels, b, labels, ..., out_labels), whose `count` operands are copied
   to `operands`. NULL, maybe without an exception: they are not clear. */
static PyObject *subscripts_of_lists(PyObject *const *args, Py_ssize_t nargs, PyObject **operands)
{
    char text[MAX_SUBSCRIPTS + MAX_EINSUM_OPERANDS + 2]; /* commas and an arrow */
    int length = 0;
    for (Py_ssize_t i = 0; i < nargs / 2; i++) {
        operands[i] = args[2 * i];
        if (i)
            text[length++] = ',';
        length = append_labels(text, length, args[2 * i + 1]);
        if (length < 0)
            return NULL;
    }
    if (nargs % 2) {
        memcpy(text + length, "->", 2);
        length = append_labels(text, length + 2, args[nargs - 1]);
    }
    return length < 0 ? NULL : PyUnicode_FromStringAndSize(text, length);
}

/* einsum(subscripts, operands..., optimize=False, ...), also with lists of labels */
PyObject *fast_einsum(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    PyArrayObject *arrays[MAX_EINSUM_OPERANDS];
    PyObject *items[MAX_EINSUM_OPERANDS], *const *operands = args + 1;
    einsum_options options;
    if (nargs < 2 || !read_options(args + nargs, kwnames, &options))
        return NULL;
    int has_text = PyUnicode_CheckExact(args[0]);
    Py_ssize_t count = has_text ? nargs - 1 : nargs / 2;
    if (count > MAX_EINSUM_OPERANDS)
        return NULL;
    PyObject *subscripts = has_text ? Py_NewRef(args[0]) : subscripts_of_lists(args, nargs, items),
             *result = NULL;
    if (!has_text)
        operands = items;
    if (subscripts && as_plain_arrays(operands, count, arrays)) {
        result = einsum_of_arrays(subscripts, arrays, count, &options);
        release_arrays(arrays, count);
    }
    Py_XDECREF(subscripts);
    return result;
}

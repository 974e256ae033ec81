/* The fast path of brgemm: the sum of the products of blocks (batch-reduce). */
#include "numpy_ext.h"

/* The blocks of one operand: matrices of one type, shape and strides. */
typedef struct {
    PyObject *owner; /* a stack, or a tuple of matrices */
    PyArrayObject *first;
    npy_intp count, rows, columns;
    nk_matrix matrix;       /* the first block */
    const char **addresses; /* of all blocks */
} block_list;

/* Whether an array is a stack of matrices that the engine can read without a copy. */
static int is_engine_stack(PyObject *x)
{
    if (!PyArray_CheckExact(x))
        return 0;
    PyArrayObject *array = (PyArrayObject *)x;
    if (PyArray_NDIM(array) != 3 || !PyArray_ISBEHAVED_RO(array) || !PyArray_SIZE(array) ||
        same_type_product(PyArray_TYPE(array)) == NO_PRODUCT)
        return 0;
    npy_intp itemsize = PyArray_ITEMSIZE(array);
    for (int i = 0; i < 3; i++)
        if (PyArray_STRIDE(array, i) % itemsize)
            return 0;
    return 1;
}

/* Matrix i of a tuple, borrowed; NULL: the engine can't read it, or it differs from the first one
   in type, shape or strides. */
static PyArrayObject *block_of_tuple(PyObject *matrices, npy_intp i)
{
    PyObject *x = PyTuple_GET_ITEM(matrices, i);
    if (!is_engine_operand(x))
        return NULL;
    PyArrayObject *array = (PyArrayObject *)x;
    PyArrayObject *first = (PyArrayObject *)PyTuple_GET_ITEM(matrices, 0);
    int is_like_first = PyArray_NDIM(array) == 2 && PyArray_SIZE(array) &&
                        PyArray_TYPE(array) == PyArray_TYPE(first) &&
                        PyArray_CompareLists(PyArray_DIMS(array), PyArray_DIMS(first), 2) &&
                        PyArray_CompareLists(PyArray_STRIDES(array), PyArray_STRIDES(first), 2);
    return is_like_first ? array : NULL;
}

static void free_blocks(block_list *x)
{
    Py_XDECREF(x->owner);
    PyMem_RawFree(x->addresses);
}

/* Read the blocks of a stack, a list or a tuple; 0: the engine can't take them. Either way the
   caller calls free_blocks. */
static int read_blocks(PyObject *value, block_list *x)
{
    int is_stack = is_engine_stack(value);
    /* a list may be changed by another thread */
    x->owner = PyList_CheckExact(value) ? PyList_AsTuple(value) : Py_NewRef(value);
    if (!x->owner || !(is_stack || PyTuple_CheckExact(x->owner)))
        return 0;
    if (!is_stack && !PyTuple_GET_SIZE(x->owner))
        return 0;
    x->first = (PyArrayObject *)(is_stack ? value : PyTuple_GET_ITEM(x->owner, 0));
    x->count = is_stack ? PyArray_DIM(x->first, 0) : PyTuple_GET_SIZE(x->owner);
    x->addresses = PyMem_RawMalloc((size_t)x->count * sizeof *x->addresses);
    if (!x->addresses)
        return 0;
    for (npy_intp i = 0; i < x->count; i++) {
        PyArrayObject *block = is_stack ? x->first : block_of_tuple(x->owner, i);
        if (!block)
            return 0;
        x->addresses[i] = PyArray_BYTES(block) + (is_stack ? i * PyArray_STRIDE(block, 0) : 0);
    }
    npy_intp itemsize = PyArray_ITEMSIZE(x->first);
    const npy_intp *shape = PyArray_DIMS(x->first) + is_stack;
    const npy_intp *strides = PyArray_STRIDES(x->first) + is_stack;
    x->rows = shape[0], x->columns = shape[1];
    x->matrix =
        (nk_matrix){(char *)x->addresses[0], strides[0] / itemsize, strides[1] / itemsize, 0};
    return 1;
}

static int overlaps_blocks(PyArrayObject *c, const block_list *x)
{
    if (PyArray_Check(x->owner))
        return may_overlap(c, x->first);
    for (npy_intp i = 0; i < x->count; i++)
        if (may_overlap(c, (PyArrayObject *)PyTuple_GET_ITEM(x->owner, i)))
            return 1;
    return 0;
}

/* The array for the result, a new reference, with the elements of C if beta is 1. */
static PyArrayObject *result_array(const block_list *a, const block_list *b, PyArrayObject *c,
                                   int is_added, PyObject *out)
{
    npy_intp shape[2] = {a->rows, b->columns};
    int type = PyArray_TYPE(a->first);
    PyArrayObject *result;
    if (!out) {
        result = (PyArrayObject *)PyArray_SimpleNew(2, shape, type);
    } else {
        result = usable_out(out, a->first, b->first, 2, shape, type);
        int overlaps = result && (overlaps_blocks(result, a) || overlaps_blocks(result, b) ||
                                  (c && c != result && may_overlap(c, result)));
        if (result && (!PyArray_IS_C_CONTIGUOUS(result) || overlaps))
            Py_CLEAR(result);
    }
    if (result && is_added && result != c && copy_elements(result, c) < 0)
        Py_CLEAR(result);
    return result;
}

static PyObject *sum_products(const block_list *a, const block_list *b, PyObject *c_argument,
                              double beta, PyObject *out)
{
    int type = PyArray_TYPE(a->first), dtype = same_type_product(type);
    PyArrayObject *c = (PyArrayObject *)c_argument;
    npy_intp m = a->rows, n = b->columns, shape[2] = {m, n};
    /* api/brgemm.py does not batch-reduce a result of one column, either. */
    if (dtype == NO_PRODUCT || type != PyArray_TYPE(b->first) || a->count != b->count ||
        a->columns != b->rows || n <= 1)
        return NULL;
    if (c ? !is_engine_operand(c_argument) || PyArray_TYPE(c) != type || PyArray_NDIM(c) != 2 ||
                !PyArray_CompareLists(PyArray_DIMS(c), shape, 2)
          : beta != 0)
        return NULL;
    PyArrayObject *result = result_array(a, b, c, beta != 0, out);
    if (!result)
        return NULL;
    nk_call_args call_args = {
        .alpha = 1,
        .beta = beta,
        .a_imag_sign = 1,
        .c_imag_sign = 1,
        .block_count = a->count,
        .a_blocks = a->addresses,
        .b_blocks = b->addresses,
    };
    nk_matrix matrix = as_matrix(result, 0, &m, &n);
    return run_fast_path(result, dtype, m, n, a->columns, a->matrix, b->matrix, matrix, call_args);
}

/* brgemm of stacks, lists or tuples of matrices, with beta 0 or 1 */
PyObject *fast_brgemm(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    enum { A_BLOCKS, B_BLOCKS, C, BETA, OUT, PARAMETERS };
    static const char *const names[PARAMETERS] = {"a_blocks", "b_blocks", "c", "beta", "out"};
    static const parameter_list parameters = {names, PARAMETERS, 2, 3};
    PyObject *arguments[PARAMETERS] = {0}, *c = NULL;
    number beta = {0};
    if (!sort_arguments(&parameters, args, nargs, kwnames, arguments) ||
        (arguments[BETA] && !read_number(arguments[BETA], &beta)) || beta.value.imag != 0 ||
        (beta.value.real != 0 && beta.value.real != 1))
        return NULL;
    for (int i = C; i < PARAMETERS; i++)
        if (arguments[i] == Py_None)
            arguments[i] = NULL;
    block_list a = {0}, b = {0};
    if (read_blocks(arguments[A_BLOCKS], &a) && read_blocks(arguments[B_BLOCKS], &b))
        c = sum_products(&a, &b, arguments[C], beta.value.real, arguments[OUT]);
    free_blocks(&a);
    free_blocks(&b);
    return c;
}

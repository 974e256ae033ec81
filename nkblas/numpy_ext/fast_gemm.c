/* The fast path of gemm, for dense layers: bias, activation, residual, scales. */
#include <math.h>

#include "numpy_ext.h"

/* ---- arguments ---- */

/* The keywords that the fast path knows. */
enum { BIAS, ACTIVATION, RESIDUAL, SCALE, ZERO_POINT, OUT, OUT_DTYPE, KEYWORDS };

static const char *const keyword_names[KEYWORDS] = {
    [BIAS] = "bias",           [ACTIVATION] = "activation", [RESIDUAL] = "residual",
    [SCALE] = "scale",         [ZERO_POINT] = "zero_point", [OUT] = "out",
    [OUT_DTYPE] = "out_dtype",
};

/* Sort the arguments by keyword; None counts as not given, except as a zero point, where it is an
   error. 0: there are other keywords. */
static int read_keywords(PyObject *const *values, PyObject *kwnames, PyObject *arguments[KEYWORDS])
{
    for (Py_ssize_t i = 0; kwnames && i < PyTuple_GET_SIZE(kwnames); i++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, i);
        int keyword = 0;
        while (keyword < KEYWORDS && PyUnicode_CompareWithASCIIString(name, keyword_names[keyword]))
            keyword++;
        if (keyword == KEYWORDS)
            return 0;
        if (values[i] != Py_None || keyword == ZERO_POINT)
            arguments[keyword] = values[i];
    }
    return 1;
}

/* The type number of the argument out_dtype; -1: no product has such a result, or its byte order is
   not native. */
static int read_out_dtype(PyObject *dtype)
{
    PyArray_Descr *descr = NULL;
    if (PyArray_DescrConverter(dtype, &descr) == NPY_FAIL) {
        PyErr_Clear();
        return -1;
    }
    int type = descr->type_num;
    PyArray_Descr *native = same_type_product(type) == NO_PRODUCT ? NULL
                                                                  : PyArray_DescrFromType(type);
    if (descr != native)
        type = -1;
    Py_DECREF(descr);
    Py_XDECREF(native);
    return type;
}

/* The bits of an activation in nk_call_args.fused; -1: it is unknown, or has bounds. */
static int activation_code(PyObject *name, int accumulator_type)
{
    PyObject *codes = PyTypeNum_ISFLOAT(accumulator_type) ? callbacks.float_activations
                                                          : callbacks.integer_activations;
    PyObject *code = PyUnicode_CheckExact(name) ? PyDict_GetItemWithError(codes, name) : NULL;
    return code ? (int)PyLong_AsLong(code) : -1;
}

/* Read a zero point, which a result of `type` has to be able to hold; it is 0 for a float
   result. */
static int read_zero_point(PyObject *value, int type, double *zero_point)
{
    int overflow = 0;
    long number = value && PyLong_Check(value) ? PyLong_AsLongAndOverflow(value, &overflow) : 0;
    long low = type == NPY_BYTE ? -128 : 0, high = type == NPY_FLOAT ? 0 : low + 255;
    *zero_point = (double)number;
    return (!value || PyLong_Check(value)) && !overflow && number >= low && number <= high;
}

static int is_contiguous(PyObject *x, int type, int ndim, const npy_intp *shape)
{
    PyArrayObject *array = (PyArrayObject *)x;
    return is_engine_operand(x) && PyArray_TYPE(array) == type && PyArray_NDIM(array) == ndim &&
           PyArray_CompareLists(PyArray_DIMS(array), shape, ndim) && PyArray_IS_C_CONTIGUOUS(array);
}

/* A copy of a bias or of scales with NK_READ_PADDING elements behind it, from a vector of n
   elements of `type` or a float, which is repeated. NULL, maybe without an exception: it is
   neither. */
static char *padded_vector(PyObject *value, int type, npy_intp n)
{
    double number = 0;
    int is_number = PyFloat_Check(value) || PyArray_IsScalar(value, Float);
    if (is_number) {
        number = PyFloat_Check(value) ? PyFloat_AS_DOUBLE(value) : PyArrayScalar_VAL(value, Float);
        int overflows = isfinite(number) != isfinite((float)number);
        if (!PyTypeNum_ISFLOAT(type) || overflows)
            return NULL;
    } else if (!is_contiguous(value, type, 1, &n)) {
        return NULL;
    }
    size_t itemsize = (size_t)nk_itemsizes_of(same_type_product(type))->c;
    char *vector = PyMem_RawCalloc((size_t)n + NK_READ_PADDING, itemsize);
    if (!vector)
        return (char *)PyErr_NoMemory();
    if (!is_number)
        memcpy(vector, PyArray_BYTES((PyArrayObject *)value), (size_t)n * itemsize);
    for (npy_intp i = 0; is_number && i < n; i++) {
        if (type == NPY_FLOAT)
            ((float *)vector)[i] = (float)number;
        else
            ((double *)vector)[i] = number;
    }
    return vector;
}

/* ---- the layer ---- */

typedef struct {
    PyObject *keywords[KEYWORDS]; /* borrowed; NULL: not given */
    PyArrayObject *a;
    right_operand b;
    nk_matrix a_matrix;
    npy_intp m, n, k;
    int is_scaled;
    int dtype;
    int type, accumulator_type; /* of C; -1: there are no kernels with an epilogue */
    nk_call_args call_args;
} layer;

/* The accumulators' type of a product with a result of `type`, as in api/epilogue_args.py
   (runs_in_kernels, accumulator_dtype); -1: it has no kernels with a fused epilogue. */
static int accumulator_type_of(int type)
{
    switch (same_type_product(type)) {
    case NK_FLOAT16:
    case NK_BFLOAT16: return NPY_FLOAT;
    case NK_FLOAT32:
    case NK_FLOAT64: return type;
    case NK_INT32:
    case NK_INT64: return PyTypeNum_ISSIGNED(type) ? type : -1;
    default: return -1;
    }
}

static int read_operands(layer *x, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    if (nargs != 2 || !is_engine_operand(args[0]) ||
        !(is_engine_operand(args[1]) || is_packed(args[1])) ||
        !read_keywords(args + nargs, kwnames, x->keywords))
        return 0;
    x->a = (PyArrayObject *)args[0];
    x->b = as_right_operand(args[1]);
    x->a_matrix = as_matrix(x->a, 0, &x->m, &x->k);
    x->n = x->b.n;
    return PyArray_NDIM(x->a) == 2 && x->b.ndim == 2 && x->k == x->b.k && x->k != 0 &&
           x->m * x->n != 0;
}

static int find_types(layer *x)
{
    const packed_operand *packed = x->b.packed;
    PyObject *out = x->keywords[OUT];
    int a_type = PyArray_TYPE(x->a);
    x->is_scaled = x->keywords[SCALE] != NULL;
    x->type = packed ? packed->c_type : a_type;
    if (x->is_scaled)
        x->type = out && PyArray_Check(out) ? PyArray_TYPE((PyArrayObject *)out) : NPY_FLOAT;
    if (x->keywords[OUT_DTYPE])
        x->type = read_out_dtype(x->keywords[OUT_DTYPE]);
    if (packed && (a_type != packed->a_type || (!x->is_scaled && x->type != packed->c_type)))
        return 0;
    x->dtype = product_with(&x->b, a_type, x->type, x->is_scaled);
    x->accumulator_type = x->is_scaled ? NPY_FLOAT : accumulator_type_of(x->type);
    /* gemm converts bool operands, since alpha and beta are numbers */
    return x->dtype != NO_PRODUCT && x->type != NPY_BOOL;
}

/* Set the parts of the epilogue that need no memory. */
static int set_epilogue(layer *x)
{
    PyObject **keywords = x->keywords, *residual = keywords[RESIDUAL];
    if (x->is_scaled) {
        /* With a single column the product is transposed, and the scales would be those of rows. */
        if ((x->n == 1 && !x->b.packed) ||
            !read_zero_point(keywords[ZERO_POINT], x->type, &x->call_args.zero_point) ||
            (residual && x->type != NPY_FLOAT))
            return 0;
        x->call_args.fused |= NK_SCALES;
    } else {
        int has_epilogue = keywords[BIAS] || keywords[ACTIVATION] || residual;
        if (keywords[ZERO_POINT] || (has_epilogue && x->accumulator_type < 0))
            return 0;
    }
    if (keywords[ACTIVATION]) {
        int code = activation_code(keywords[ACTIVATION], x->accumulator_type);
        if (code < 0)
            return 0;
        x->call_args.fused |= code;
    }
    if (residual) {
        npy_intp shape[2] = {x->m, x->n};
        if (!is_contiguous(residual, x->type, 2, shape))
            return 0;
        x->call_args.residual = PyArray_BYTES((PyArrayObject *)residual);
        x->call_args.ldr = x->n;
        x->call_args.fused |= NK_RESIDUAL;
    }
    return 1;
}

/* The array for the result, a new reference: contiguous, and without overlap with the residual. */
static PyArrayObject *result_array(const layer *x)
{
    npy_intp shape[2] = {x->m, x->n};
    PyArrayObject *residual = (PyArrayObject *)x->keywords[RESIDUAL];
    PyObject *out = x->keywords[OUT];
    if (!out)
        return (PyArrayObject *)PyArray_SimpleNew(2, shape, x->type);
    PyArrayObject *c = usable_out(out, x->a, x->b.array, 2, shape, x->type);
    if (c && (!PyArray_IS_C_CONTIGUOUS(c) || (residual && may_overlap(c, residual))))
        Py_CLEAR(c);
    return c;
}

static PyArrayObject *run_layer(layer *x)
{
    PyArrayObject *c = result_array(x);
    if (!c)
        return NULL;
    nk_matrix c_matrix = as_matrix(c, 0, &x->m, &x->n);
    if (!run_product(x->dtype, x->m, x->n, x->k, x->a_matrix, x->b.matrix, c_matrix,
                     x->call_args)) {
        uncount_call();
        Py_CLEAR(c);
    }
    return c;
}

/* gemm(a, b, bias=, activation=, residual=, scale=, zero_point=, out=, out_dtype=) of matrices of
   types that have kernels; b may be packed. A bias and a scale are vectors of C's columns or
   floats; C and the residual are contiguous. */
PyObject *fast_gemm(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    layer x = {.call_args = {.alpha = 1, .a_imag_sign = 1, .c_imag_sign = 1}};
    if (!read_operands(&x, args, nargs, kwnames) || !find_types(&x) || !set_epilogue(&x))
        return NULL;
    PyObject *bias_argument = x.keywords[BIAS], *scale_argument = x.keywords[SCALE];
    char *bias = bias_argument ? padded_vector(bias_argument, x.accumulator_type, x.n) : NULL;
    char *scales = scale_argument ? padded_vector(scale_argument, NPY_FLOAT, x.n) : NULL;
    x.call_args.bias = bias, x.call_args.scales = scales;
    if (bias)
        x.call_args.fused |= NK_BIAS_COLUMNS;
    PyArrayObject *c = NULL;
    if (!bias == !bias_argument && !scales == !scale_argument)
        c = run_layer(&x);
    PyMem_RawFree(bias);
    PyMem_RawFree(scales);
    return (PyObject *)c;
}

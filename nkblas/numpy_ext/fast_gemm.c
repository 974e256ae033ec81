/* The fast path of gemm. */
#include <math.h>

#include "numpy_ext.h"

/* ---- arguments ---- */

enum {
    A,
    B,
    C,
    ALPHA,
    BETA,
    TRANS_A,
    TRANS_B,
    BIAS,
    ACTIVATION,
    RESIDUAL,
    SCALE,
    ZERO_POINT,
    OUT,
    OUT_DTYPE,
    PARAMETERS
};

static const char *const names[PARAMETERS] = {
    [A] = "a",
    [B] = "b",
    [C] = "c",
    [ALPHA] = "alpha",
    [BETA] = "beta",
    [TRANS_A] = "trans_a",
    [TRANS_B] = "trans_b",
    [BIAS] = "bias",
    [ACTIVATION] = "activation",
    [RESIDUAL] = "residual",
    [SCALE] = "scale",
    [ZERO_POINT] = "zero_point",
    [OUT] = "out",
    [OUT_DTYPE] = "out_dtype",
};

/* Sort the arguments of a call, in which None means that an optional array, name or dtype is not
   given. */
static int read_arguments(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                          PyObject *arguments[PARAMETERS])
{
    static const parameter_list parameters = {names, PARAMETERS, 2, 3};
    static const int optional[] = {C, BIAS, ACTIVATION, RESIDUAL, SCALE, OUT, OUT_DTYPE};
    if (!sort_arguments(&parameters, args, nargs, kwnames, arguments))
        return 0;
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++)
        if (arguments[optional[i]] == Py_None)
            arguments[optional[i]] = NULL;
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

/* ---- operands ---- */

/* A matrix of NumPy's own class, as a new reference; lists become arrays as in numpy.asarray. NULL,
   without an exception: the general function has to read it. */
static PyArrayObject *read_matrix(PyObject *value)
{
    PyObject *array = NULL;
    if (PyArray_CheckExact(value))
        array = Py_NewRef(value);
    else if (PyList_CheckExact(value) || PyTuple_CheckExact(value))
        array = PyArray_FROM_O(value);
    if (!array)
        PyErr_Clear();
    PyArrayObject *matrix = (PyArrayObject *)array;
    if (matrix && (PyArray_NDIM(matrix) != 2 || !PyArray_ISNOTSWAPPED(matrix)))
        Py_CLEAR(matrix);
    return matrix;
}

/* Replace a matrix that the engine can't read, or that is not of `type`, by a copy, as astype makes
   it. 0: there are no kernels for `type`, or it can't be copied. */
static int convert_matrix(PyArrayObject **matrix, int type)
{
    PyArrayObject *x = *matrix;
    if (PyArray_TYPE(x) == type && is_engine_operand((PyObject *)x))
        return 1;
    PyArray_Descr *descr = PyArray_DescrFromType(type);
    PyArrayObject *copy =
        (PyArrayObject *)PyArray_NewLikeArray(x, NPY_KEEPORDER, descr, 0); /* takes descr */
    if (copy && PyArray_CopyInto(copy, x) < 0)
        Py_CLEAR(copy);
    PyErr_Clear(); /* the general function raises it */
    if (!copy)
        return 0;
    Py_SETREF(*matrix, copy);
    return is_engine_operand((PyObject *)copy);
}

/* ---- the product ---- */

typedef struct {
    PyObject *arguments[PARAMETERS]; /* borrowed; NULL: not given */
    PyArrayObject *matrices[3];      /* A, B and C, owned; NULL: B is packed, there is no C */
    const packed_operand *packed;    /* B, if it is packed */
    scaling scaling;
    int dtype;
    int operand_types[2];       /* that A and B are converted to */
    int type, accumulator_type; /* of the result; -1: there are no kernels with an epilogue */
    nk_matrix a, b;
    npy_intp m, n, k;
    nk_call_args call_args;
} product;

static int read_matrices(product *x)
{
    PyObject **arguments = x->arguments;
    if (is_packed(arguments[B]))
        x->packed = (packed_operand *)arguments[B];
    for (int i = A; i <= C; i++) {
        if (!arguments[i] || (i == B && x->packed))
            continue;
        x->matrices[i] = read_matrix(arguments[i]);
        if (!x->matrices[i])
            return 0;
    }
    return 1;
}

/* The type that the matrices promote to; -1: none. */
static int promoted_type(const product *x)
{
    PyArray_Descr *descrs[3];
    int count = 0, are_same = 1, type = PyArray_TYPE(x->matrices[A]);
    for (int i = A; i <= C; i++) {
        if (x->matrices[i]) {
            descrs[count++] = PyArray_DESCR(x->matrices[i]);
            are_same &= PyArray_TYPE(x->matrices[i]) == type;
        }
    }
    if (are_same)
        return type;
    PyArray_Descr *promoted = PyArray_ResultType(0, NULL, count, descrs);
    if (!promoted) {
        PyErr_Clear();
        return -1;
    }
    type = promoted->type_num;
    Py_DECREF(promoted);
    return type;
}

/* Whether alpha and beta, as Python's own numbers, leave the type of a product as it is. */
static int keeps_type(const scaling *x, int type)
{
    if (x->alpha.kind == COMPLEX_NUMBER || x->beta.kind == COMPLEX_NUMBER)
        return PyTypeNum_ISCOMPLEX(type);
    int is_real = x->alpha.kind == REAL_NUMBER || x->beta.kind == REAL_NUMBER;
    return type != NPY_BOOL && !(is_real && PyTypeNum_ISINTEGER(type));
}

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

/* Find the types of the product, as in api/gemm.py (_dtypes, _quantized_dtypes). 0: the general function has to find them. */
static int find_types(product *x)
{
    const packed_operand *packed = x->packed;
    PyObject *out = x->arguments[OUT], *out_dtype = x->arguments[OUT_DTYPE];
    PyArrayObject **matrices = x->matrices;
    int is_scaled = x->arguments[SCALE] != NULL;
    int is_promoted = !packed && !is_scaled && !out_dtype;
    int a_type = PyArray_TYPE(matrices[A]), b_type = packed ? -1 : PyArray_TYPE(matrices[B]);

    if (out_dtype)
        x->type = read_out_dtype(out_dtype);
    else if (is_scaled)
        x->type = out && PyArray_Check(out) ? PyArray_TYPE((PyArrayObject *)out) : NPY_FLOAT;
    else
        x->type = packed ? packed->c_type : promoted_type(x);
    if (x->type < 0 || !(is_scaled || keeps_type(&x->scaling, x->type)))
        return 0;
    if (packed && (a_type != packed->a_type || !(is_scaled || x->type == packed->c_type)))
        return 0;
    if (matrices[C] && !is_promoted && PyArray_TYPE(matrices[C]) != x->type)
        return 0;

    x->dtype = packed ? packed->dtype : find_product(a_type, b_type, is_scaled ? NPY_INT : x->type);
    if (x->dtype == NO_PRODUCT && is_promoted) {
        a_type = b_type = x->type;
        x->dtype = same_type_product(x->type);
    }
    if (is_scaled)
        x->dtype = quantized_product(x->dtype, x->type);
    x->accumulator_type = is_scaled ? NPY_FLOAT : accumulator_type_of(x->type);
    x->operand_types[A] = a_type, x->operand_types[B] = b_type;
    return x->dtype != NO_PRODUCT;
}

/* Set the matrices and their sizes; returns the rows of op(B). */
static npy_intp set_operands(product *x)
{
    npy_intp rows;
    x->a = as_op_matrix(x->matrices[A], x->scaling.trans_a, &x->m, &x->k);
    if (x->packed) {
        right_operand b = as_right_operand(x->arguments[B]);
        x->b = b.matrix, rows = b.k, x->n = b.n;
    } else {
        x->b = as_op_matrix(x->matrices[B], x->scaling.trans_b, &rows, &x->n);
    }
    return rows;
}

/* Convert the operands: the last step, since the general function would do it again. */
static int convert_operands(product *x)
{
    for (int i = A; i <= B; i++)
        if (x->matrices[i] && !convert_matrix(&x->matrices[i], x->operand_types[i]))
            return 0;
    set_operands(x);
    return 1;
}

/* Whether the shapes fit; then set alpha, beta and signs. */
static int set_call_args(product *x)
{
    const scaling *scaling = &x->scaling;
    npy_intp rows = set_operands(x), shape[2] = {x->m, x->n};
    PyArrayObject *c = x->matrices[C];
    int has_beta = scaling->beta.value.real != 0 || scaling->beta.value.imag != 0;
    int has_alpha = scaling->alpha.value.real != 1 || scaling->alpha.value.imag != 0;
    if (x->arguments[SCALE] && (c || has_alpha || has_beta))
        return 0;
    return x->k == rows && x->k != 0 && x->m * x->n != 0 && !(x->packed && scaling->trans_b) &&
           (c ? PyArray_CompareLists(PyArray_DIMS(c), shape, 2) : !has_beta) &&
           set_scaling(scaling, x->type, &x->call_args);
}

/* Set the parts of the epilogue that need no memory. */
static int set_epilogue(product *x)
{
    PyObject **arguments = x->arguments, *residual = arguments[RESIDUAL];
    if (arguments[SCALE]) {
        /* With a single column the product is transposed, and the scales would be those of rows. */
        if ((x->n == 1 && !x->packed) ||
            !read_zero_point(arguments[ZERO_POINT], x->type, &x->call_args.zero_point) ||
            (residual && x->type != NPY_FLOAT))
            return 0;
        x->call_args.fused |= NK_SCALES;
    } else {
        int has_epilogue = arguments[BIAS] || arguments[ACTIVATION] || residual;
        if (arguments[ZERO_POINT] || (has_epilogue && x->accumulator_type < 0))
            return 0;
    }
    if (arguments[ACTIVATION]) {
        int code = activation_code(arguments[ACTIVATION], x->accumulator_type);
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

/* Whether memory of `out` is read after it is written, or by the general function if the engine
   does not do the product; C may be the same array. */
static int is_read(PyObject *out, PyObject *const *arguments)
{
    static const int arrays[] = {A, B, C, BIAS, RESIDUAL, SCALE};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        PyObject *argument = arguments[arrays[i]];
        if (argument && PyArray_Check(argument) && !(arrays[i] == C && argument == out) &&
            may_overlap((PyArrayObject *)out, (PyArrayObject *)argument))
            return 1;
    }
    return 0;
}

/* The array for the result, a new reference, with the elements of C if they are needed. */
static PyArrayObject *result_array(const product *x)
{
    npy_intp shape[2] = {x->m, x->n};
    PyObject *const *arguments = x->arguments, *out = arguments[OUT];
    PyArrayObject *result = (PyArrayObject *)out, *c = x->matrices[C];
    /* the engine adds a residual and scales columns only in a C in row-major order */
    int is_row_major = arguments[RESIDUAL] || arguments[SCALE];
    if (!out)
        result = (PyArrayObject *)PyArray_SimpleNew(2, shape, x->type);
    else if (!fits_result(out, 2, shape, x->type) || is_read(out, arguments) ||
             (is_row_major && !PyArray_IS_C_CONTIGUOUS(result)))
        return NULL;
    else
        Py_INCREF(result);
    int is_added = x->call_args.beta != 0 || x->call_args.beta_imag != 0;
    if (result && c && is_added && result != c && copy_elements(result, c) < 0) {
        PyErr_Clear(); /* the general function raises it */
        Py_CLEAR(result);
    }
    return result;
}

/* Run the product; NULL, maybe without an exception: it was not done. */
static PyObject *run(product *x)
{
    PyObject *bias_argument = x->arguments[BIAS], *scale_argument = x->arguments[SCALE];
    char *bias = bias_argument ? padded_vector(bias_argument, x->accumulator_type, x->n) : NULL;
    char *scales = scale_argument ? padded_vector(scale_argument, NPY_FLOAT, x->n) : NULL;
    x->call_args.bias = bias, x->call_args.scales = scales;
    if (bias)
        x->call_args.fused |= NK_BIAS_COLUMNS;
    PyObject *c = NULL;
    PyArrayObject *result = NULL;
    if (!bias == !bias_argument && !scales == !scale_argument)
        result = result_array(x);
    if (result && !convert_operands(x))
        Py_CLEAR(result);
    if (result) {
        nk_matrix matrix = as_matrix(result, 0, &x->m, &x->n);
        c = run_fast_path(result, x->dtype, x->m, x->n, x->k, x->a, x->b, matrix, x->call_args);
    }
    PyMem_RawFree(bias);
    PyMem_RawFree(scales);
    return c;
}

/* gemm of matrices and lists of types that have kernels; b may be packed. A bias and a scale are
   vectors of C's columns or floats; the residual is contiguous. */
PyObject *fast_gemm(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    product x = {0};
    PyObject *c = NULL;
    if (read_arguments(args, nargs, kwnames, x.arguments) &&
        read_scaling(x.arguments[ALPHA], x.arguments[BETA], x.arguments[TRANS_A],
                     x.arguments[TRANS_B], &x.scaling) &&
        read_matrices(&x) && find_types(&x) && set_call_args(&x) && set_epilogue(&x))
        c = run(&x);
    for (int i = A; i <= C; i++)
        Py_XDECREF(x.matrices[i]);
    return c;
}

/* NumPy's gufuncs of products (matmul, vecdot, matvec, vecmat) on the engine: as gufuncs of
   nkblas's, and, while NumPy is patched, as the loops of NumPy's own. Stacks, broadcasting, casting,
   `out`, subclasses, overrides and errors are NumPy's; a short way in front of all that takes two
   plain matrices. And the way of nkblas.gemm to the engine. */
#include <fenv.h>
#include <math.h>

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>
#include <numpy/arrayscalars.h>
#include <numpy/ufuncobject.h>

#include "nkblas.h"

/* The engine is another extension module: these are handed over by `bind`. */
static int64_t (*gemm)(int32_t, int64_t, int64_t, int64_t, nk_matrix, nk_matrix, nk_matrix, int64_t,
                       nk_batch_strides, nk_call_args);
static nk_counters *counts;

/* One of NumPy's loops, or one for types that NumPy has none for. */
typedef struct {
    PyUFuncGenericFunction function; /* NULL: it is one of the latter */
    void *data;
    int dtype;         /* nk_dtype, or -1: the engine does not do it */
    nk_itemsizes size; /* bytes of its elements */
} loop;

enum { MAX_GUFUNCS = 4, MAX_LOOPS = 32 };

/* One of NumPy's gufuncs. Its operands are matrices or vectors. */
typedef struct {
    PyUFuncObject *numpy;
    int rows, columns; /* whether the left operand has rows, the right one columns */
    loop loops[MAX_LOOPS];
    PyUFuncGenericFunction before[MAX_LOOPS]; /* what was there when it was patched */
} gufunc;

static gufunc gufuncs[MAX_GUFUNCS];
static int bound;

enum { WORTH_THE_GIL = 1 << 14 }; /* multiply-adds */

/* Types that are not NumPy's own, by their numbers: bfloat16 and the formats of float8, in the order
   of nk_dtype. -1: this process has none yet. */
enum { FORMATS = 7 };
static int bfloat16_type = -1, float8_types[FORMATS];
static float float8_numbers[FORMATS][256]; /* what bytes stand for */

/* The nk_dtype of products with float32 as a result, which NumPy makes of such a type; -1: none. */
static int wider_dtype_of(int type)
{
    if (!PyTypeNum_ISUSERDEF(type))
        return -1;
    if (type == bfloat16_type)
        return NK_BFLOAT16_FLOAT32;
    for (int i = 0; i < FORMATS; i++)
        if (type == float8_types[i])
            return NK_FLOAT8_E3M4_FLOAT32 + i;
    return -1;
}

/* The nk_dtype of products whose matrices are all of one type of NumPy's; -1: there is none. */
static int dtype_of(int type)
{
    static const int integers[] = {-1, NK_INT8, NK_INT16, -1, NK_INT32, -1, -1, -1, NK_INT64};
    if (type >= 0 && type == bfloat16_type)
        return NK_BFLOAT16;
    switch (type) {
    case NPY_FLOAT: return NK_FLOAT32;
    case NPY_DOUBLE: return NK_FLOAT64;
    case NPY_CFLOAT: return NK_COMPLEX64;
    case NPY_CDOUBLE: return NK_COMPLEX128;
    case NPY_HALF: return NK_FLOAT16;
    case NPY_BOOL: return NK_BOOL;
    case NPY_BYTE:
    case NPY_UBYTE: return NK_INT8;
    case NPY_SHORT:
    case NPY_USHORT: return NK_INT16;
    case NPY_INT:
    case NPY_UINT: return integers[sizeof(int)];
    case NPY_LONG:
    case NPY_ULONG: return integers[sizeof(long)];
    case NPY_LONGLONG:
    case NPY_ULONGLONG: return integers[sizeof(long long)];
    default: return -1;
    }
}

/* Products with wider results than operands: the types, and what they make. */
static const struct {
    char a, b, c;
    int dtype;
} mixed[] = {
    {NPY_BYTE, NPY_BYTE, NPY_INT, NK_INT8_INT32},
    {NPY_UBYTE, NPY_UBYTE, NPY_INT, NK_UINT8_INT32},
    {NPY_UBYTE, NPY_UBYTE, NPY_UINT, NK_UINT8_INT32},
    {NPY_UBYTE, NPY_BYTE, NPY_INT, NK_UINT8_INT8_INT32},
    {NPY_BYTE, NPY_UBYTE, NPY_INT, NK_INT8_UINT8_INT32},
    {NPY_HALF, NPY_HALF, NPY_FLOAT, NK_FLOAT16_FLOAT32},
};
enum { MIXED = sizeof mixed / sizeof *mixed };

/* The nk_dtype of products of these types of NumPy's; -1: there is none. */
static int dtype_for(int a, int b, int c)
{
    if (a == b && b == c)
        return dtype_of(a);
    if (a == b && c == NPY_FLOAT && wider_dtype_of(a) >= 0)
        return wider_dtype_of(a);
    for (int i = 0; i < MIXED; i++)
        if (mixed[i].a == a && mixed[i].b == b && mixed[i].c == c)
            return mixed[i].dtype;
    return -1;
}

/* The nk_dtype of products whose sums, those of another one, are scaled; -1: there is none. */
static int quantized_dtype(int sums, int c)
{
    static const char results[3] = {NPY_FLOAT, NPY_BYTE, NPY_UBYTE};
    if (sums >= NK_INT8_INT32 && sums < NK_FLOAT8_E3M4_FLOAT32)
        for (int i = 0; i < 3; i++)
            if (results[i] == c)
                return NK_INT8_FLOAT32 + 4 * i + sums - NK_INT8_INT32;
    return -1;
}

static npy_intp size_of(int type)
{
    PyArray_Descr *descr = PyArray_DescrFromType(type);
    npy_intp size = PyDataType_ELSIZE(descr);
    Py_DECREF(descr);
    return size;
}

static loop make_loop(int a, int b, int c, PyUFuncGenericFunction function, void *data)
{
    return (loop){function, data, dtype_for(a, b, c), {size_of(a), size_of(b), size_of(c)}};
}

/* An element of a mixed product's operand. */
static double number(const char *x, int dtype, int left)
{
    if (dtype >= NK_FLOAT8_E3M4_FLOAT32)
        return float8_numbers[dtype - NK_FLOAT8_E3M4_FLOAT32][*(const uint8_t *)x];
    uint16_t half;
    uint32_t bits;
    float value;
    switch (dtype) {
    case NK_INT8_INT32: return *(const int8_t *)x;
    case NK_UINT8_INT32: return *(const uint8_t *)x;
    case NK_UINT8_INT8_INT32: return left ? *(const uint8_t *)x : *(const int8_t *)x;
    case NK_INT8_UINT8_INT32: return left ? *(const int8_t *)x : *(const uint8_t *)x;
    }
    memcpy(&half, x, sizeof half);
    if (dtype == NK_FLOAT16_FLOAT32) {
        int exponent = half >> 10 & 31, mantissa = half & 1023;
        double size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                      : exponent     ? ldexp(1024 + mantissa, exponent - 25)
                                     : ldexp(mantissa, -24);
        return half >> 15 ? -size : size;
    }
    bits = (uint32_t)half << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A sum as an element of a mixed product's result, or as a bfloat16: to the nearest, ties to even. */
static void store_float(float sum, char *place, int dtype)
{
    uint32_t bits;
    memcpy(&bits, &sum, sizeof bits);
    if (dtype != NK_BFLOAT16) {
        memcpy(place, &bits, sizeof bits);
        return;
    }
    bits = sum == sum ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000;
    memcpy(place, &(uint16_t){(uint16_t)(bits >> 16)}, 2);
}

/* What the engine can't do now and NumPy has no loop for: element by element. */
static void by_elements(int dtype, npy_intp m, npy_intp n, npy_intp k, nk_matrix a, nk_matrix b,
                        nk_matrix c)
{
    int integer = dtype >= NK_INT8_INT32 && dtype < NK_FLOAT8_E3M4_FLOAT32;
    for (npy_intp i = 0; i < m; i++)
        for (npy_intp j = 0; j < n; j++) {
            double sum = 0;
            int64_t whole = 0;
            for (npy_intp p = 0; p < k; p++) {
                double product = number(a.data + i * a.rs + p * a.cs, dtype, 1) *
                                 number(b.data + p * b.rs + j * b.cs, dtype, 0);
                sum += product;
                if (integer)
                    whole += (int64_t)product;
            }
            char *place = c.data + i * c.rs + j * c.cs;
            if (integer)
                memcpy(place, &(int32_t){(int32_t)(uint32_t)whole}, 4);
            else
                store_float((float)sum, place, dtype);
        }
}

/* The product alone: of A's conjugate, if NumPy's rules have it so and it is complex. */
static nk_call_args product_of(int dtype, int conjugate)
{
    int conjugated = conjugate && (dtype == NK_COMPLEX64 || dtype == NK_COMPLEX128);
    return (nk_call_args){.alpha = 1, .a_imag_sign = conjugated ? -1 : 1, .c_imag_sign = 1};
}

static void left_to_numpy(npy_intp products)
{
    __atomic_add_fetch(&counts->calls, (uint64_t)products, __ATOMIC_RELAXED);
    __atomic_add_fetch(&counts->fallbacks, (uint64_t)products, __ATOMIC_RELAXED);
}

static void complex_number(const char *place, int wide, double *parts)
{
    float narrow[2];
    if (wide) {
        memcpy(parts, place, 16);
        return;
    }
    memcpy(narrow, place, 8);
    parts[0] = narrow[0], parts[1] = narrow[1];
}

/* Complex products element by element, for a C of which NumPy's loops would write elements where they
   do not belong: BLAS knows no steps of parts of elements, and NumPy's vecmat no steps at all. */
static void complex_by_elements(int dtype, int conjugate, npy_intp m, npy_intp n, npy_intp k,
                                nk_matrix a, nk_matrix b, nk_matrix c)
{
    int wide = dtype == NK_COMPLEX128;
    double turn = conjugate ? -1 : 1;
    for (npy_intp i = 0; i < m; i++)
        for (npy_intp j = 0; j < n; j++) {
            double re = 0, im = 0;
            for (npy_intp p = 0; p < k; p++) {
                double x[2], y[2];
                complex_number(a.data + i * a.rs + p * a.cs, wide, x);
                complex_number(b.data + p * b.rs + j * b.cs, wide, y);
                x[1] *= turn;
                re += x[0] * y[0] - x[1] * y[1];
                im += x[0] * y[1] + x[1] * y[0];
            }
            char *place = c.data + i * c.rs + j * c.cs;
            if (wide)
                memcpy(place, (double[]){re, im}, 16);
            else
                memcpy(place, (float[]){(float)re, (float)im}, 8);
        }
}

/* The loop of a gufunc for one dtype. The dimensions are the stack's, then those of (m, k, n) that
   there are; the steps are the operands', then those of their dimensions. */
static void run(const gufunc *of, const loop *numpy, char **args, const npy_intp *dimensions,
                const npy_intp *steps)
{
    const npy_intp *length = dimensions + 1, *step = steps + 3, count = dimensions[0];
    npy_intp m = of->rows ? *length++ : 1, k = *length++, n = of->columns ? *length : 1;
    nk_matrix a = {.data = args[0]}, b = {.data = args[1]}, c = {.data = args[2]};
    a.rs = of->rows ? *step++ : 0, a.cs = *step++;
    b.rs = *step++, b.cs = of->columns ? *step++ : 0;
    c.rs = of->rows ? *step++ : 0, c.cs = of->columns ? *step : 0;
    nk_matrix in_bytes[] = {a, b, c};

    if (numpy->dtype >= 0) {
        const nk_itemsizes *size = &numpy->size;
        /* a complex number may be aligned to its parts alone */
        int whole =
            !((a.rs | a.cs) % size->a || (b.rs | b.cs) % size->b || (c.rs | c.cs) % size->c);
        int together = !(steps[0] % size->a || steps[1] % size->b || steps[2] % size->c);
        a.rs /= size->a, a.cs /= size->a, b.rs /= size->b, b.cs /= size->b;
        c.rs /= size->c, c.cs /= size->c;
        nk_batch_strides apart = {steps[0] / size->a, steps[1] / size->b, steps[2] / size->c};
        nk_call_args scale = product_of(numpy->dtype, !of->rows); /* vecdot and vecmat */
        npy_intp done = 0, once = together ? count : 1;
        while (whole && gemm(numpy->dtype, m, n, k, a, b, c, once, apart, scale)) {
            done += once;
            if (done >= count)
                return;
            a.data += steps[0], b.data += steps[1], c.data += steps[2];
        }
        if (!whole)
            left_to_numpy(count);
    } else {
        left_to_numpy(count);
    }
    int is_complex = numpy->dtype == NK_COMPLEX64 || numpy->dtype == NK_COMPLEX128;
    int parts = (in_bytes[2].rs | in_bytes[2].cs) % numpy->size.c != 0;
    int gaps = !of->rows && of->columns && in_bytes[2].cs != numpy->size.c;
    int unfit = is_complex && (parts || gaps);
    if (numpy->function && !unfit) {
        numpy->function(args, dimensions, steps, numpy->data);
        return;
    }
    for (npy_intp i = 0; i < count; i++) {
        if (unfit)
            complex_by_elements(numpy->dtype, !of->rows, m, n, k, in_bytes[0], in_bytes[1],
                                in_bytes[2]);
        else
            by_elements(numpy->dtype, m, n, k, in_bytes[0], in_bytes[1], in_bytes[2]);
        for (int j = 0; j < 3; j++)
            in_bytes[j].data += steps[j];
    }
}

/* NumPy's loops can be replaced, but not what is handed to them: there is a function for each loop
   of each gufunc. */
#define EACH_LOOP(X, g)                                                                            \
    X(g, 0)                                                                                        \
    X(g, 1) X(g, 2) X(g, 3) X(g, 4) X(g, 5) X(g, 6) X(g, 7) X(g, 8) X(g, 9) X(g, 10) X(g, 11)      \
        X(g, 12) X(g, 13) X(g, 14) X(g, 15) X(g, 16) X(g, 17) X(g, 18) X(g, 19) X(g, 20) X(g, 21)  \
            X(g, 22) X(g, 23) X(g, 24) X(g, 25) X(g, 26) X(g, 27) X(g, 28) X(g, 29) X(g, 30)       \
                X(g, 31)
#define DEFINE(g, i)                                                                               \
    static void loop_##g##_##i(char **args, const npy_intp *dimensions, const npy_intp *steps,     \
                               void *data)                                                         \
    {                                                                                              \
        (void)data;                                                                                \
        run(&gufuncs[g], &gufuncs[g].loops[i], args, dimensions, steps);                           \
    }
#define NAME(g, i) loop_##g##_##i,
EACH_LOOP(DEFINE, 0)
EACH_LOOP(DEFINE, 1)
EACH_LOOP(DEFINE, 2)
EACH_LOOP(DEFINE, 3)
static PyUFuncGenericFunction engine_loops[MAX_GUFUNCS][MAX_LOOPS] = {
    {EACH_LOOP(NAME, 0)}, {EACH_LOOP(NAME, 1)}, {EACH_LOOP(NAME, 2)}, {EACH_LOOP(NAME, 3)}};

/* A loop that is no loop of NumPy's: what is handed to it is the loop, in its gufunc. */
typedef struct {
    const gufunc *of;
    loop loop;
} own_loop;

static void run_own_loop(char **args, const npy_intp *dimensions, const npy_intp *steps, void *data)
{
    const own_loop *own = data;
    run(own->of, &own->loop, args, dimensions, steps);
}

/* The way into every ufunc of NumPy's. */
static vectorcallfunc general_call;

/* Whether the engine can take `x` as it is: NumPy's own array of a type that it knows. */
static int is_plain(PyObject *x)
{
    if (!PyArray_CheckExact(x))
        return 0;
    PyArrayObject *array = (PyArrayObject *)x;
    int ndim = PyArray_NDIM(array), type = PyArray_TYPE(array);
    if ((ndim != 1 && ndim != 2) || (dtype_of(type) < 0 && wider_dtype_of(type) < 0) ||
        !PyArray_ISBEHAVED_RO(array))
        return 0;
    npy_intp size = PyArray_ITEMSIZE(array);
    return PyArray_STRIDE(array, 0) % size == 0 && PyArray_STRIDE(array, ndim - 1) % size == 0;
}

/* An array as a matrix; a vector is a row (on the left) or a column (on the right), and what has
   no dimension is a single element. */
static nk_matrix as_matrix(PyArrayObject *x, int column, npy_intp *rows, npy_intp *columns)
{
    npy_intp *shape = PyArray_DIMS(x), *strides = PyArray_STRIDES(x);
    npy_intp size = PyArray_ITEMSIZE(x);
    nk_matrix matrix = {.data = PyArray_BYTES(x), .rs = 1, .cs = 1};
    *rows = *columns = 1;
    if (PyArray_NDIM(x) == 2) {
        *rows = shape[0], *columns = shape[1];
        matrix.rs = strides[0] / size, matrix.cs = strides[1] / size;
    } else if (PyArray_NDIM(x) == 1 && column) {
        *rows = shape[0], matrix.rs = strides[0] / size;
    } else if (PyArray_NDIM(x) == 1) {
        *columns = shape[0], matrix.cs = strides[0] / size;
    }
    return matrix;
}

/* A matrix that was packed; nkblas.PackedMatrix is one. */
typedef struct {
    PyObject_HEAD PyArrayObject *memory; /* its panels; NULL: there are none yet */
    int dtype;                           /* nk_dtype */
    int a, c; /* NumPy's types of what it is multiplied by, and of the product */
    npy_intp k, n;
} panels;

static int init_panels(PyObject *self, PyObject *args, PyObject *names)
{
    panels *x = (panels *)self;
    PyArrayObject *memory;
    (void)names;
    if (!PyArg_ParseTuple(args, "O!iiinn", &PyArray_Type, &memory, &x->dtype, &x->a, &x->c, &x->k,
                          &x->n))
        return -1;
    Py_XSETREF(x->memory, (PyArrayObject *)Py_NewRef(memory));
    return 0;
}

static void free_panels(PyObject *self)
{
    Py_CLEAR(((panels *)self)->memory);
    Py_TYPE(self)->tp_free(self);
}

static PyMemberDef panels_members[] = {
    {"_panels", T_OBJECT_EX, offsetof(panels, memory), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject panels_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "nkblas._numpy_ext.PackedOperand",
    .tp_basicsize = sizeof(panels),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = init_panels,
    .tp_dealloc = free_panels,
    .tp_members = panels_members,
};

static int is_packed(PyObject *x)
{
    return PyObject_TypeCheck(x, &panels_type) && ((panels *)x)->memory;
}

/* The right operand of a product: an array, or what was packed. */
typedef struct {
    const panels *packed; /* NULL: it is an array */
    PyArrayObject *memory;
    nk_matrix matrix;
    npy_intp k, n;
    int ndim;
} right;

static right right_operand(PyObject *x)
{
    right b = {.memory = (PyArrayObject *)x};
    if (!PyArray_Check(x)) {
        b.packed = (panels *)x;
        b.memory = b.packed->memory;
        b.matrix = (nk_matrix){.data = PyArray_BYTES(b.memory), .is_packed = 1};
        b.k = b.packed->k, b.n = b.packed->n, b.ndim = 2;
    } else {
        b.matrix = as_matrix(b.memory, 1, &b.k, &b.n);
        b.ndim = PyArray_NDIM(b.memory);
    }
    return b;
}

/* The nk_dtype of a product with it, whose sums may be scaled, for an A and a C of some types; -1:
   there is none. What was packed is for one product, whose types the caller has seen to. */
static int dtype_with(const right *b, int a, int c, int scaled)
{
    int dtype = b->packed ? b->packed->dtype
                          : dtype_for(a, PyArray_TYPE(b->memory), scaled ? NPY_INT : c);
    return scaled ? quantized_dtype(dtype, c) : dtype;
}

/* Whether two arrays may share memory: their extents do. */
static int may_overlap(PyArrayObject *x, PyArrayObject *y)
{
    PyArrayObject *arrays[] = {x, y};
    char *low[2], *high[2];
    for (int i = 0; i < 2; i++) {
        low[i] = PyArray_BYTES(arrays[i]);
        high[i] = low[i] + PyArray_ITEMSIZE(arrays[i]);
        for (int j = 0; j < PyArray_NDIM(arrays[i]); j++) {
            npy_intp reach = (PyArray_DIM(arrays[i], j) - 1) * PyArray_STRIDE(arrays[i], j);
            *(reach < 0 ? &low[i] : &high[i]) += reach;
        }
    }
    return low[0] < high[1] && low[1] < high[0];
}

/* The `out` of a call, as an array that `shape` fits and that no operand lies in; NULL if there is
   something else about it. */
static PyArrayObject *plain_out(PyObject *out, PyArrayObject *a, PyArrayObject *b, int ndim,
                                const npy_intp *shape, int type)
{
    PyArrayObject *array = (PyArrayObject *)out;
    if (!is_plain(out) || PyArray_NDIM(array) != ndim || PyArray_TYPE(array) != type ||
        !PyArray_CompareLists(PyArray_DIMS(array), shape, ndim) || !PyArray_ISWRITEABLE(array) ||
        may_overlap(array, a) || may_overlap(array, b))
        return NULL;
    Py_INCREF(array);
    return array;
}

/* What Python answers (see matmul.py): called when types turn up that are not NumPy's own, which it may
   know; called where a type is asked for; and the codes of activations that need no more than a name. */
static PyObject *on_new_types, *on_given_types, *float_activations, *integer_activations;

/* Whose rules hold for two plain operands: numpy.inner(A, B) is A @ B.T, numpy.vdot takes their
   elements as vectors, dot's and matmul's differ in what may be `out`. */
typedef enum { AS_MATMUL, AS_DOT, AS_INNER, AS_VDOT, AS_GEMM, AS_BRGEMM, AS_OVERRIDE } rule;

enum { FLAGS = FE_DIVBYZERO | FE_OVERFLOW | FE_UNDERFLOW | FE_INVALID };

/* Report what floating-point flags say, as a ufunc does; -1: it has become an exception. */
static int report_flags(const char *function)
{
    int raised = fetestexcept(FLAGS);
    if (!raised)
        return 0;
    feclearexcept(FLAGS);
    return PyUFunc_GiveFloatingpointErrors(function,
                                           (raised & FE_DIVBYZERO ? NPY_FPE_DIVIDEBYZERO : 0) |
                                               (raised & FE_OVERFLOW ? NPY_FPE_OVERFLOW : 0) |
                                               (raised & FE_UNDERFLOW ? NPY_FPE_UNDERFLOW : 0) |
                                               (raised & FE_INVALID ? NPY_FPE_INVALID : 0));
}

/* One product, by the engine; whether it did it. Other threads run meanwhile, if it is worth it. */
static int multiply(int dtype, npy_intp m, npy_intp n, npy_intp k, nk_matrix a, nk_matrix b,
                    nk_matrix c, nk_call_args scale)
{
    nk_batch_strides steps = {0, 0, 0};
    npy_intp products = scale.block_count > 0 ? scale.block_count : 1;
    if (m * n <= WORTH_THE_GIL / (k ? k : 1) / products)
        return gemm(dtype, m, n, k, a, b, c, 1, steps, scale) != 0;
    int64_t done;
    Py_BEGIN_ALLOW_THREADS done = gemm(dtype, m, n, k, a, b, c, 1, steps, scale);
    Py_END_ALLOW_THREADS return done != 0;
}

/* A product that was counted comes by another way again. */
static void comes_again(void)
{
    __atomic_sub_fetch(&counts->calls, 1, __ATOMIC_RELAXED);
    __atomic_sub_fetch(&counts->fallbacks, 1, __ATOMIC_RELAXED);
}

/* f(a, b), f(a, b, c) and f(a, b, out=c) of plain matrices and vectors; of matmul, `b` may be packed.
   NULL without an exception: the general way has to do it, as everything else and every mistake. */
static PyObject *plain_product(const char *name, rule asked, PyObject *const *args,
                               Py_ssize_t given, PyObject *names)
{
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    int with_out = given + named == 3 && asked <= AS_DOT;
    if (given < 2 || (!with_out && given + named != 2) || !is_plain(args[0]) ||
        !(is_plain(args[1]) || (asked == AS_MATMUL && is_packed(args[1]))))
        return NULL;
    if (named && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "out"))
        return NULL;

    PyArrayObject *a = (PyArrayObject *)args[0], *c;
    right b = right_operand(args[1]);
    npy_intp m, k, shape[2];
    nk_matrix x = as_matrix(a, 0, &m, &k), z;
    if (asked == AS_INNER && b.ndim == 2) {
        npy_intp rows = b.k;
        b.k = b.n, b.n = rows;
        b.matrix = (nk_matrix){.data = b.matrix.data, .rs = b.matrix.cs, .cs = b.matrix.rs};
    }
    int ndim = PyArray_NDIM(a) + b.ndim - 2, type = PyArray_TYPE(a), result = type;
    if (b.packed)
        result = b.packed->c;
    else if (PyTypeNum_ISUSERDEF(type) && asked == AS_MATMUL)
        /* NumPy makes float32 of them, and rounds that to the type of `out` */
        result = with_out && type == bfloat16_type && PyArray_Check(args[2]) &&
                         PyArray_TYPE((PyArrayObject *)args[2]) == type
                     ? type
                     : NPY_FLOAT;
    else if (dtype_of(type) < 0)
        return NULL;
    if (asked == AS_VDOT && ndim) {
        if (!PyArray_IS_C_CONTIGUOUS(a) || !PyArray_IS_C_CONTIGUOUS(b.memory))
            return NULL;
        x.rs = x.cs = b.matrix.rs = b.matrix.cs = 1;
        m = b.n = 1, k = PyArray_SIZE(a), b.k = PyArray_SIZE(b.memory), ndim = 0;
    }
    if (k != b.k || type != (b.packed ? b.packed->a : PyArray_TYPE(b.memory)))
        return NULL;
    shape[0] = PyArray_NDIM(a) == 2 ? m : b.n;
    shape[1] = b.n;
    if (with_out && args[2] != Py_None) {
        c = ndim ? plain_out(args[2], a, b.memory, ndim, shape, result) : NULL;
        if (c && asked == AS_DOT && !PyArray_IS_C_CONTIGUOUS(c))
            Py_CLEAR(c);
    } else {
        c = (PyArrayObject *)PyArray_SimpleNew(ndim, shape, result);
    }
    if (!c)
        return NULL;
    z = as_matrix(c, ndim && PyArray_NDIM(a) == 2, &m, &b.n);

    if (fetestexcept(FLAGS))
        feclearexcept(FLAGS);
    int dtype = dtype_with(&b, type, result, 0);
    nk_call_args scale = product_of(dtype, asked == AS_VDOT);
    int done = multiply(dtype, m, b.n, k, x, b.matrix, z, scale);
    if (!done) {
        Py_DECREF(c);
        comes_again();
        return NULL;
    }
    if (asked != AS_VDOT && !b.packed && report_flags(name) < 0) {
        Py_DECREF(c);
        return NULL;
    }
    return PyArray_Return(c);
}

/* What nk_problem.epilogue has for an activation; -1: the general way has to see to it. */
static int code_of_activation(PyObject *name, int sums)
{
    PyObject *codes = PyTypeNum_ISFLOAT(sums) ? float_activations : integer_activations;
    PyObject *code = PyUnicode_CheckExact(name) ? PyDict_GetItemWithError(codes, name) : NULL;
    return code ? (int)PyLong_AsLong(code) : -1;
}

/* The type of the sums for a C whose kernels do more than multiply; -1: they don't. */
static int sums_of(int type)
{
    int dtype = dtype_of(type);
    if (dtype == NK_FLOAT16 || dtype == NK_BFLOAT16)
        return NPY_FLOAT;
    int exact = (dtype == NK_INT32 || dtype == NK_INT64) && PyTypeNum_ISSIGNED(type);
    return dtype == NK_FLOAT32 || dtype == NK_FLOAT64 || exact ? type : -1;
}

/* The arguments of gemm that have names, as far as there is a short way for them. */
enum { BIAS, ACTIVATION, RESIDUAL, SCALE, ZERO_POINT, OUT, OUT_DTYPE, NAMED };

/* Those of a call; 0: there are others. */
static int find_named(PyObject *const *values, PyObject *names, PyObject *found[NAMED])
{
    static const char *const known[NAMED] = {"bias",       "activation", "residual", "scale",
                                             "zero_point", "out",        "out_dtype"};
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        int which = 0;
        while (which < NAMED &&
               PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, i), known[which]))
            which++;
        if (which == NAMED)
            return 0;
        if (values[i] != Py_None || which == ZERO_POINT)
            found[which] = values[i];
    }
    return 1;
}

/* NumPy's type that is asked for; -1: one that no product makes, or in another byte order, say. */
static int type_asked_for(PyObject *dtype)
{
    PyArray_Descr *descr = NULL;
    if (PyArray_DescrConverter(dtype, &descr) == NPY_FAIL) {
        PyErr_Clear();
        return -1;
    }
    int type = descr->type_num;
    PyArray_Descr *usual = dtype_of(type) < 0 ? NULL : PyArray_DescrFromType(type);
    if (descr != usual)
        type = -1;
    Py_DECREF(descr);
    Py_XDECREF(usual);
    return type;
}

/* Whether an array is a dense one of some type. */
static int is_dense(PyObject *x, int type, int ndim, const npy_intp *shape)
{
    PyArrayObject *array = (PyArrayObject *)x;
    return is_plain(x) && PyArray_TYPE(array) == type && PyArray_NDIM(array) == ndim &&
           PyArray_CompareLists(PyArray_DIMS(array), shape, ndim) && PyArray_IS_C_CONTIGUOUS(array);
}

/* A bias or scales as kernels read them, with room behind: from a vector of n numbers of their type,
   or a float for all. NULL: as for plain_product. */
static char *with_room(PyObject *value, int type, npy_intp n)
{
    double number = 0;
    int one = PyFloat_Check(value) || PyArray_IsScalar(value, Float);
    if (one)
        number = PyFloat_Check(value) ? PyFloat_AS_DOUBLE(value) : PyArrayScalar_VAL(value, Float);
    if (one ? !PyTypeNum_ISFLOAT(type) || isfinite(number) != isfinite((float)number)
            : !is_dense(value, type, 1, &n))
        return NULL;
    size_t item = (size_t)size_of(type);
    char *room = PyMem_RawCalloc((size_t)n + NK_READ_PADDING, item);
    if (!room)
        return (char *)PyErr_NoMemory();
    if (!one)
        memcpy(room, PyArray_BYTES((PyArrayObject *)value), (size_t)n * item);
    for (npy_intp i = 0; one && i < n; i++) {
        if (type == NPY_FLOAT)
            ((float *)room)[i] = (float)number;
        else
            ((double *)room)[i] = number;
    }
    return room;
}

/* What stands for 0 in a C of some type; whether it does. */
static int zero_of(PyObject *value, int type, double *zero)
{
    int overflow = 0;
    long number = value && PyLong_Check(value) ? PyLong_AsLongAndOverflow(value, &overflow) : 0;
    long least = type == NPY_BYTE ? -128 : 0, most = type == NPY_FLOAT ? 0 : least + 255;
    *zero = (double)number;
    return (!value || PyLong_Check(value)) && !overflow && number >= least && number <= most;
}

/* gemm(a, b, bias=, activation=, residual=, scale=, zero_point=, out=, out_dtype=) of plain matrices,
   of which `b` may be packed, in types that there are kernels for; with numbers for C's columns as a
   bias and a scale; a C and a residual that are dense. NULL without an exception: as for
   plain_product. */
static PyObject *plain_layer(PyObject *const *args, Py_ssize_t given, PyObject *names)
{
    PyObject *named[NAMED] = {NULL};
    nk_call_args scale = {.alpha = 1, .a_imag_sign = 1, .c_imag_sign = 1};

    if (given != 2 || !is_plain(args[0]) || !(is_plain(args[1]) || is_packed(args[1])) ||
        !find_named(args + given, names, named))
        return NULL;
    PyArrayObject *a = (PyArrayObject *)args[0], *residual = (PyArrayObject *)named[RESIDUAL];
    PyArrayObject *c = NULL;
    right b = right_operand(args[1]);
    npy_intp m, n = b.n, k;
    nk_matrix x = as_matrix(a, 0, &m, &k);
    npy_intp shape[2] = {m, n};
    if (PyArray_NDIM(a) != 2 || b.ndim != 2 || k != b.k || k == 0 || m * n == 0)
        return NULL;

    int type_a = PyArray_TYPE(a), type = b.packed ? b.packed->c : type_a, scaled = !!named[SCALE];
    if (scaled)
        type = named[OUT] && PyArray_Check(named[OUT]) ? PyArray_TYPE((PyArrayObject *)named[OUT])
                                                       : NPY_FLOAT;
    if (named[OUT_DTYPE])
        type = type_asked_for(named[OUT_DTYPE]);
    if (b.packed && (type_a != b.packed->a || (!scaled && type != b.packed->c)))
        return NULL;
    int dtype = dtype_with(&b, type_a, type, scaled), sums = scaled ? NPY_FLOAT : sums_of(type);
    if (dtype < 0 || type == NPY_BOOL) /* which is none that a product with alpha has */
        return NULL;
    if (scaled) {
        /* what is turned to its side would have scales of rows */
        if ((n == 1 && !b.packed) || !zero_of(named[ZERO_POINT], type, &scale.zero_point) ||
            (residual && type != NPY_FLOAT))
            return NULL;
        scale.fused |= NK_SCALES;
    } else if (named[ZERO_POINT] || (sums < 0 && (named[BIAS] || named[ACTIVATION] || residual))) {
        return NULL;
    }
    if (named[ACTIVATION]) {
        int code = code_of_activation(named[ACTIVATION], sums);
        if (code < 0)
            return NULL;
        scale.fused |= code;
    }
    if (residual) {
        if (!is_dense(named[RESIDUAL], type, 2, shape))
            return NULL;
        scale.residual = PyArray_BYTES(residual);
        scale.ldr = n;
        scale.fused |= NK_RESIDUAL;
    }
    char *bias = named[BIAS] ? with_room(named[BIAS], sums, n) : NULL;
    char *scales = scaled ? with_room(named[SCALE], NPY_FLOAT, n) : NULL;
    if (bias)
        scale.fused |= NK_BIAS_COLUMNS;
    scale.bias = bias, scale.scales = scales;
    if (!bias == !named[BIAS] && !scales == !scaled) {
        c = named[OUT] ? plain_out(named[OUT], a, b.memory, 2, shape, type)
                       : (PyArrayObject *)PyArray_SimpleNew(2, shape, type);
        if (c && (!PyArray_IS_C_CONTIGUOUS(c) || (residual && may_overlap(c, residual))))
            Py_CLEAR(c);
    }
    if (c) {
        nk_matrix z = as_matrix(c, 0, &m, &n);
        if (!multiply(dtype, m, n, k, x, b.matrix, z, scale)) {
            comes_again();
            Py_CLEAR(c);
        }
    }
    PyMem_RawFree(bias);
    PyMem_RawFree(scales);
    return (PyObject *)c;
}

/* Whether an array is a stack of matrices that the engine can take as they are. */
static int is_plain_stack(PyObject *x)
{
    if (!PyArray_CheckExact(x))
        return 0;
    PyArrayObject *array = (PyArrayObject *)x;
    if (PyArray_NDIM(array) != 3 || !PyArray_ISBEHAVED_RO(array) || !PyArray_SIZE(array) ||
        dtype_of(PyArray_TYPE(array)) < 0)
        return 0;
    npy_intp size = PyArray_ITEMSIZE(array);
    for (int i = 0; i < 3; i++)
        if (PyArray_STRIDE(array, i) % size)
            return 0;
    return 1;
}

/* One side of a sum of products: matrices that lie alike. */
typedef struct {
    PyObject *owner; /* a stack, or a tuple of them */
    PyArrayObject *first;
    npy_intp count, rows, columns;
    nk_matrix matrix; /* the first one */
    const char **addresses;
} side;

/* A matrix of a tuple, if all are ones that the engine can take and that lie as the first does. */
static PyArrayObject *one_of(PyObject *matrices, npy_intp i)
{
    PyObject *x = PyTuple_GET_ITEM(matrices, i);
    if (!is_plain(x))
        return NULL;
    PyArrayObject *array = (PyArrayObject *)x;
    PyArrayObject *first = (PyArrayObject *)PyTuple_GET_ITEM(matrices, 0);
    int alike = PyArray_NDIM(array) == 2 && PyArray_SIZE(array) &&
                PyArray_TYPE(array) == PyArray_TYPE(first) &&
                PyArray_CompareLists(PyArray_DIMS(array), PyArray_DIMS(first), 2) &&
                PyArray_CompareLists(PyArray_STRIDES(array), PyArray_STRIDES(first), 2);
    return alike ? array : NULL;
}

static void forget(side *x)
{
    Py_XDECREF(x->owner);
    PyMem_RawFree(x->addresses);
}

/* The matrices of a stack, a list or a tuple; it is to be forgotten. 0: it has others, or none. */
static int find_side(PyObject *value, side *x)
{
    int is_stack = is_plain_stack(value);
    /* a list may change meanwhile */
    x->owner = PyList_CheckExact(value) ? PyList_AsTuple(value) : Py_NewRef(value);
    if (!x->owner || !(is_stack || PyTuple_CheckExact(x->owner)))
        return 0;
    if (!is_stack && !PyTuple_GET_SIZE(x->owner))
        return 0;
    x->first = (PyArrayObject *)(is_stack ? value : PyTuple_GET_ITEM(x->owner, 0));
    x->count = is_stack ? PyArray_DIM(x->first, 0) : PyTuple_GET_SIZE(x->owner);
    x->addresses = PyMem_RawMalloc((size_t)x->count * sizeof *x->addresses);
    for (npy_intp i = 0; x->addresses && i < x->count; i++) {
        PyArrayObject *matrix = is_stack ? x->first : one_of(x->owner, i);
        if (!matrix)
            return 0;
        x->addresses[i] = PyArray_BYTES(matrix) + (is_stack ? i * PyArray_STRIDE(matrix, 0) : 0);
    }
    if (!x->addresses)
        return 0;
    npy_intp size = PyArray_ITEMSIZE(x->first);
    const npy_intp *shape = PyArray_DIMS(x->first) + is_stack;
    const npy_intp *strides = PyArray_STRIDES(x->first) + is_stack;
    x->rows = shape[0], x->columns = shape[1];
    x->matrix = (nk_matrix){(char *)x->addresses[0], strides[0] / size, strides[1] / size, 0};
    return 1;
}

/* Whether a matrix may share memory with one of them. */
static int lies_in(PyArrayObject *c, const side *x)
{
    if (PyArray_Check(x->owner))
        return may_overlap(c, x->first);
    for (npy_intp i = 0; i < x->count; i++)
        if (may_overlap(c, (PyArrayObject *)PyTuple_GET_ITEM(x->owner, i)))
            return 1;
    return 0;
}

/* brgemm(a, b) and brgemm(a, b, out=) of plain stacks, or lists and tuples of plain matrices, where
   kernels go from block to block. NULL without an exception: as for plain_product. */
static PyObject *plain_sum(PyObject *const *args, Py_ssize_t given, PyObject *names)
{
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    if (given != 2 || named > 1 ||
        (named && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "out")))
        return NULL;
    side a = {0}, b = {0};
    PyArrayObject *c = NULL;
    int done = 0;
    if (find_side(args[0], &a) && find_side(args[1], &b)) {
        npy_intp m = a.rows, n = b.columns, k = a.columns, shape[2] = {m, n};
        int type = PyArray_TYPE(a.first), dtype = dtype_of(type);
        int fit = type == PyArray_TYPE(b.first) && a.count == b.count && k == b.rows && n > 1;
        if (fit && dtype >= 0 && (!named || args[2] == Py_None)) {
            c = (PyArrayObject *)PyArray_SimpleNew(2, shape, type);
        } else if (fit && dtype >= 0) {
            c = plain_out(args[2], a.first, b.first, 2, shape, type);
            if (c && (!PyArray_IS_C_CONTIGUOUS(c) || lies_in(c, &a) || lies_in(c, &b)))
                Py_CLEAR(c);
        }
        if (c) {
            nk_call_args scale = {
                .alpha = 1, .a_imag_sign = 1, .c_imag_sign = 1, .block_count = a.count};
            nk_matrix z = as_matrix(c, 0, &m, &n);
            scale.a_blocks = a.addresses, scale.b_blocks = b.addresses;
            done = multiply(dtype, m, n, k, a.matrix, b.matrix, z, scale);
            if (!done)
                comes_again();
        }
    }
    forget(&a);
    forget(&b);
    if (!done)
        Py_CLEAR(c);
    return (PyObject *)c;
}

static int names_a_type(PyObject *names)
{
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (!PyUnicode_CompareWithASCIIString(name, "dtype") ||
            !PyUnicode_CompareWithASCIIString(name, "signature") ||
            !PyUnicode_CompareWithASCIIString(name, "sig"))
            return 1;
    }
    return 0;
}

static int is_of_new_type(PyObject *x)
{
    return PyArray_Check(x) && PyTypeNum_ISUSERDEF(PyArray_TYPE((PyArrayObject *)x)) &&
           wider_dtype_of(PyArray_TYPE((PyArrayObject *)x)) < 0;
}

/* matmul(...), nkblas's or NumPy's. */
static PyObject *call_matmul(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    const char *name = ((PyUFuncObject *)self)->name;
    Py_ssize_t given = PyVectorcall_NARGS(nargsf);
    if (given >= 2 && on_new_types && (is_of_new_type(args[0]) || is_of_new_type(args[1]))) {
        PyObject *none = PyObject_CallNoArgs(on_new_types);
        if (!none)
            return NULL;
        Py_DECREF(none);
    }
    if (on_given_types && names_a_type(names)) {
        PyObject *done = PyObject_Vectorcall(on_given_types, args, nargsf, names);
        if (done != Py_NotImplemented)
            return done;
        Py_DECREF(done);
    }
    PyObject *product = plain_product(name, AS_MATMUL, args, given, names);
    if (product || PyErr_Occurred())
        return product;
    return general_call(self, args, nargsf, names);
}

/* __array_ufunc__(b, numpy.matmul, "__call__", a, b) of a `b` that was packed: a @ b comes to it. NULL
   without an exception: as for plain_product. */
static PyObject *plain_override(PyObject *const *args, Py_ssize_t given, PyObject *names)
{
    if (given != 5 || names || args[1] != (PyObject *)gufuncs[0].numpy || args[4] != args[0] ||
        !PyUnicode_Check(args[2]) || PyUnicode_CompareWithASCIIString(args[2], "__call__"))
        return NULL;
    return plain_product("matmul", AS_MATMUL, args + 3, 2, NULL);
}

/* A function of two operands: plain ones at once, all others by a Python function. */
typedef struct {
    PyObject_HEAD vectorcallfunc vectorcall;
    PyObject *general, *dict;
    rule asked;
} quick;

static PyObject *call_quick(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    quick *function = (quick *)self;
    Py_ssize_t given = PyVectorcall_NARGS(nargsf);
    PyObject *product;
    if (function->asked == AS_GEMM)
        product = plain_layer(args, given, names);
    else if (function->asked == AS_BRGEMM)
        product = plain_sum(args, given, names);
    else if (function->asked == AS_OVERRIDE)
        product = plain_override(args, given, names);
    else
        product = plain_product("dot", function->asked, args, given, names);
    if (product || PyErr_Occurred())
        return product;
    return PyObject_Vectorcall(function->general, args, nargsf, names);
}

static int traverse_quick(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((quick *)self)->general);
    Py_VISIT(((quick *)self)->dict);
    return 0;
}

static int clear_quick(PyObject *self)
{
    Py_CLEAR(((quick *)self)->general);
    Py_CLEAR(((quick *)self)->dict);
    return 0;
}

static void free_quick(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    clear_quick(self);
    Py_TYPE(self)->tp_free(self);
}

static PyObject *bind_quick(PyObject *self, PyObject *instance, PyObject *type)
{
    (void)type;
    return instance ? PyMethod_New(self, instance) : Py_NewRef(self);
}

static PyObject *represent_quick(PyObject *self) { return PyObject_Repr(((quick *)self)->general); }

static PyObject *reduce_quick(PyObject *self, PyObject *none)
{
    (void)none;
    return PyObject_GetAttrString(((quick *)self)->general, "__qualname__"); /* a global */
}

static PyMethodDef quick_methods[] = {
    {"__reduce__", reduce_quick, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef quick_attributes[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject quick_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "nkblas.function",
    .tp_basicsize = sizeof(quick),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(quick, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_dictoffset = offsetof(quick, dict),
    .tp_traverse = traverse_quick,
    .tp_clear = clear_quick,
    .tp_dealloc = free_quick,
    .tp_repr = represent_quick,
    .tp_descr_get = bind_quick,
    .tp_methods = quick_methods,
    .tp_getset = quick_attributes,
};

/* make_quick(general, rule) -> the function that does plain operands as numpy.dot, inner or vdot, as
   nkblas.gemm or brgemm, or as PackedMatrix.__array_ufunc__ */
static PyObject *make_quick(PyObject *self, PyObject *args)
{
    static const struct {
        const char *name;
        rule asked;
    } rules[] = {{"dot", AS_DOT},   {"inner", AS_INNER},   {"vdot", AS_VDOT},
                 {"gemm", AS_GEMM}, {"brgemm", AS_BRGEMM}, {"__array_ufunc__", AS_OVERRIDE},
                 {NULL, 0}};
    PyObject *general;
    const char *name;
    int r = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "Os", &general, &name))
        return NULL;
    while (rules[r].name && strcmp(rules[r].name, name))
        r++;
    if (!rules[r].name)
        return PyErr_Format(PyExc_ValueError,
                            "rule: got %s, expected dot, inner, vdot, gemm, brgemm or "
                            "__array_ufunc__",
                            name);
    quick *function = PyObject_GC_New(quick, &quick_type);
    if (!function)
        return NULL;
    function->vectorcall = call_quick;
    function->general = Py_NewRef(general);
    function->dict = NULL;
    function->asked = rules[r].asked;
    PyObject_GC_Track(function);
    return (PyObject *)function;
}

/* gemm(alpha, a, b, beta, c, turn, sign, epilogue, bias, residual, low, high, blocks,
   scales, zero):
   C = activation(alpha * A @ B + beta * C + bias) + residual for matrices aligned and in the
   machine's byte order, whose shapes fit and of which C overlaps no other and m, n, k and alpha are
   not 0; whether it was done. `turn` and `sign` are nk_call_args's. `epilogue`, and all after it, can be
   left out; what it has no bits for is None. A bias has the type of the sums and room behind it, a
   residual C's type and layout, which is that of rows. `blocks` has the addresses of a sum's left
   operands and, in a second row, of its right ones: they lie as `a` and `b` do, the first of them.
   `scales` are for a sum of bytes, with room behind them. B may be packed. */
static PyObject *scaled(PyObject *self, PyObject *args)
{
    PyArrayObject *a, *c;
    PyObject *b, *bias = Py_None, *residual = Py_None, *blocks = Py_None, *scales = Py_None;
    npy_intp m, n, k;
    Py_complex alpha, beta;
    nk_call_args scale = {0};

    (void)self;
    if (!PyArg_ParseTuple(args, "DO!ODO!dd|LOOddOOd", &alpha, &PyArray_Type, &a, &b, &beta,
                          &PyArray_Type, &c, &scale.a_imag_sign, &scale.c_imag_sign, &scale.fused,
                          &bias, &residual, &scale.clip_low, &scale.clip_high, &blocks, &scales,
                          &scale.zero_point))
        return NULL;
    if (!PyArray_Check(b) && !is_packed(b))
        return PyErr_Format(PyExc_TypeError, "b: got %R, expected an array or panels", b);
    if (bias != Py_None)
        scale.bias = PyArray_BYTES((PyArrayObject *)bias);
    if (residual != Py_None) {
        PyArrayObject *r = (PyArrayObject *)residual;
        scale.residual = PyArray_BYTES(r);
        scale.ldr = PyArray_STRIDE(r, 0) / PyArray_ITEMSIZE(r);
    }
    if (scales != Py_None) {
        scale.scales = PyArray_BYTES((PyArrayObject *)scales);
        scale.fused |= NK_SCALES;
    }
    if (blocks != Py_None) {
        scale.block_count = PyArray_DIM((PyArrayObject *)blocks, 1);
        scale.a_blocks = (const char *const *)PyArray_DATA((PyArrayObject *)blocks);
        scale.b_blocks = scale.a_blocks + scale.block_count;
    }
    scale.alpha = alpha.real, scale.alpha_imag = alpha.imag;
    scale.beta = beta.real, scale.beta_imag = beta.imag;
    right y = right_operand(b);
    int dtype = dtype_with(&y, PyArray_TYPE(a), PyArray_TYPE(c), scale.scales != NULL);
    if (dtype < 0)
        Py_RETURN_FALSE;
    nk_matrix x = as_matrix(a, 0, &m, &k), z = as_matrix(c, 0, &m, &n);
    int done = multiply(dtype, m, n, k, x, y.matrix, z, scale);
    return PyBool_FromLong(done);
}

/* NumPy's rules for the types of a product. Loops for types that are not its own are for two operands
   of just that type; by its search others would be cast to it, and rounded: ml_dtypes calls that safe
   for 8-bit integers, those of 4 bits, and formats of float8. Such are done as by the gufunc without
   these loops. */
static int resolve_types(PyUFuncObject *ours, NPY_CASTING casting, PyArrayObject **operands,
                         PyObject *types, PyArray_Descr **found)
{
    int g = 0;
    while (strcmp(gufuncs[g].numpy->core_signature, ours->core_signature))
        g++;
    PyUFuncObject *numpy = gufuncs[g].numpy;
    int type = PyArray_TYPE(operands[0]);
    int has_loop = type == PyArray_TYPE(operands[1]) && wider_dtype_of(type) >= 0;
    return numpy->type_resolver(has_loop ? ours : numpy, casting, operands, types, found);
}

/* bind(gufunc of NumPy's, name, doc, addresses of nk_gemm, the counters) -> nkblas's */
static PyObject *bind(PyObject *self, PyObject *args)
{
    PyUFuncObject *numpy;
    PyObject *name, *doc;
    unsigned long long gemm_address, counts_address;
    static void *data[MAX_LOOPS];

    (void)self;
    if (!PyArg_ParseTuple(args, "O!UUKK", &PyUFunc_Type, &numpy, &name, &doc, &gemm_address,
                          &counts_address))
        return NULL;
    int g = 0;
    while (g < bound && gufuncs[g].numpy != numpy)
        g++;
    if (g == MAX_GUFUNCS || numpy->ntypes > MAX_LOOPS || numpy->nin != 2 || numpy->nout != 1 ||
        !numpy->core_enabled)
        return PyErr_Format(PyExc_ValueError, "bind: expected a gufunc of products, got %s",
                            numpy->name);
    gemm = (void *)(uintptr_t)gemm_address;
    counts = (void *)(uintptr_t)counts_address;

    gufunc *of = &gufuncs[g];
    of->rows = numpy->core_num_dims[0] == 2;
    of->columns = numpy->core_num_dims[1] == 2;
    for (int i = 0; i < numpy->ntypes; i++) {
        const char *type = &numpy->types[3 * i];
        of->loops[i] = make_loop(type[0], type[1], type[2], numpy->functions[i],
                                 numpy->data ? numpy->data[i] : NULL);
    }
    const char *name_text = PyUnicode_AsUTF8(name), *doc_text = PyUnicode_AsUTF8(doc);
    if (!name_text || !doc_text)
        return NULL;
    PyUFuncObject *ours = (PyUFuncObject *)PyUFunc_FromFuncAndDataAndSignature(
        engine_loops[g], data, numpy->types, numpy->ntypes, 2, 1, PyUFunc_None, name_text, doc_text,
        0, numpy->core_signature);
    if (!ours)
        return NULL;
    /* The gufunc is for ever, and refers to these. */
    Py_INCREF(name);
    Py_INCREF(doc);
    if (g == bound) {
        of->numpy = (PyUFuncObject *)Py_NewRef(numpy);
        bound++;
    }
    /* The constructor does not set what NumPy's has of its own: the type resolver (its errors),
       and the iterator's flags (operands that overlap `out` are copied). */
    ours->type_resolver = resolve_types;
    ours->iter_flags = numpy->iter_flags;
    for (int i = 0; i < 3; i++)
        ours->op_flags[i] = numpy->op_flags[i];
    if (of->rows && of->columns) {
        general_call = ours->vectorcall;
        ours->vectorcall = call_matmul;
    }
    return (PyObject *)ours;
}

/* Products with operands of one type and a result of another, for who asks for them. (Beside the
   loops of matmul they would change what it makes where nobody asks.) */
static gufunc mixed_gufunc = {.rows = 1, .columns = 1};
static PyUFuncObject *mixed_products;

/* make_mixed() -> the gufunc of products with another type of result than of operands */
static PyObject *make_mixed(PyObject *self, PyObject *none)
{
    static PyUFuncGenericFunction functions[MIXED];
    static own_loop loops[MIXED];
    static void *data[MIXED];
    static char types[MIXED][3];
    (void)self, (void)none;
    for (int i = 0; i < MIXED; i++) {
        char type[] = {mixed[i].a, mixed[i].b, mixed[i].c};
        loops[i] = (own_loop){&mixed_gufunc, make_loop(type[0], type[1], type[2], NULL, NULL)};
        functions[i] = run_own_loop;
        data[i] = &loops[i];
        memcpy(types[i], type, sizeof type);
    }
    mixed_products = (PyUFuncObject *)PyUFunc_FromFuncAndDataAndSignature(
        functions, data, &types[0][0], MIXED, 2, 1, PyUFunc_None, "matmul",
        "Products whose results are of another type than their operands.", 0,
        "(n?,k),(k,m?)->(n?,m?)");
    if (!mixed_products)
        return NULL;
    mixed_products->iter_flags = gufuncs[0].numpy->iter_flags;
    for (int i = 0; i < 3; i++)
        mixed_products->op_flags[i] = gufuncs[0].numpy->op_flags[i];
    return Py_NewRef(mixed_products);
}

static int add_loop(PyUFuncObject *to, const gufunc *of, int type, int result)
{
    const int types[] = {type, type, result};
    own_loop *own = malloc(sizeof *own); /* the gufunc is for ever, and refers to it */
    if (!own) {
        PyErr_NoMemory();
        return -1;
    }
    *own = (own_loop){of, make_loop(type, type, result, NULL, NULL)};
    return PyUFunc_RegisterLoopForType(to, type, run_own_loop, types, own);
}

/* register_user_dtypes((bfloat16's type number, those of float8), the numbers that float8's bytes stand
   for, gufuncs): from now on they are the engine's. NumPy's gufuncs make float32 of them, and so do
   these. */
static PyObject *register_user_dtypes(PyObject *self, PyObject *args)
{
    PyObject *ours;
    const char *numbers;
    Py_ssize_t size;
    int types[1 + FORMATS];
    (void)self;
    if (!PyArg_ParseTuple(args, "(iiiiiiii)y#O!", &types[0], &types[1], &types[2], &types[3],
                          &types[4], &types[5], &types[6], &types[7], &numbers, &size,
                          &PyTuple_Type, &ours))
        return NULL;
    if (size != sizeof float8_numbers)
        return PyErr_Format(PyExc_ValueError, "got %zd bytes of numbers, expected %zu", size,
                            sizeof float8_numbers);
    if (bfloat16_type >= 0)
        Py_RETURN_NONE;
    bfloat16_type = types[0];
    memcpy(float8_types, &types[1], sizeof float8_types);
    memcpy(float8_numbers, numbers, sizeof float8_numbers);
    for (int i = 0; i < (int)PyTuple_GET_SIZE(ours); i++) {
        PyUFuncObject *to = (PyUFuncObject *)PyTuple_GET_ITEM(ours, i);
        int g = 0;
        while (g < bound && strcmp(gufuncs[g].numpy->core_signature, to->core_signature))
            g++;
        for (int t = 0; g < bound && t < 1 + FORMATS; t++)
            if (types[t] >= 0 && add_loop(to, &gufuncs[g], types[t], NPY_FLOAT) < 0)
                return NULL;
    }
    if (mixed_products && add_loop(mixed_products, &mixed_gufunc, bfloat16_type, bfloat16_type) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* ask(on_new_types, on_given_types, activations): the second does the products of given types that it
   can, and returns NotImplemented for others. */
static PyObject *ask(PyObject *self, PyObject *args)
{
    PyObject *new_types, *given_types, *of_floats, *of_integers;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOO!O!", &new_types, &given_types, &PyDict_Type, &of_floats,
                          &PyDict_Type, &of_integers))
        return NULL;
    Py_XSETREF(on_new_types, Py_NewRef(new_types));
    Py_XSETREF(on_given_types, Py_NewRef(given_types));
    Py_XSETREF(float_activations, Py_NewRef(of_floats));
    Py_XSETREF(integer_activations, Py_NewRef(of_integers));
    Py_RETURN_NONE;
}

/* patch(on): have the loops of NumPy's gufuncs run on the engine; or as they were. */
static PyObject *patch(PyObject *self, PyObject *args)
{
    static int patched;
    int on;
    (void)self;
    if (!PyArg_ParseTuple(args, "p", &on))
        return NULL;
    if (on == patched)
        Py_RETURN_NONE;
    for (int g = 0; g < bound; g++) {
        gufunc *of = &gufuncs[g];
        for (int i = 0; i < of->numpy->ntypes; i++) {
            const char *types = &of->numpy->types[3 * i];
            const int signature[] = {types[0], types[1], types[2]};
            PyUFuncGenericFunction loop = on ? engine_loops[g][i] : of->before[i];
            PyUFunc_ReplaceLoopBySignature(of->numpy, loop, signature, on ? &of->before[i] : NULL);
        }
        if (of->rows && of->columns)
            of->numpy->vectorcall = on ? call_matmul : general_call;
    }
    patched = on;
    Py_RETURN_NONE;
}

/* reimplement(function, implementation): have a function of NumPy's, which asks its arguments for
   `__array_function__` and then calls an implementation, call another one. NumPy shows what it
   calls, but has no way to set it: the place is found by what is in it. */
static PyObject *reimplement(PyObject *self, PyObject *args)
{
    PyObject *function, *implementation, **place = NULL;
    (void)self;
    if (!PyArg_ParseTuple(args, "OO", &function, &implementation))
        return NULL;
    PyObject *had = PyObject_GetAttrString(function, "_implementation");
    if (!had)
        return NULL;
    PyObject **slots = (PyObject **)function;
    size_t size = (size_t)Py_TYPE(function)->tp_basicsize / sizeof *slots;
    int places = 0;
    for (size_t i = sizeof(PyObject) / sizeof *slots; i < size; i++) {
        if (slots[i] == had) {
            place = &slots[i];
            places++;
        }
    }
    Py_DECREF(had); /* the function has it */
    if (places != 1) {
        PyErr_Format(PyExc_RuntimeError, "%d places hold what %R calls, expected 1", places,
                     function);
        return NULL;
    }
    *place = Py_NewRef(implementation);
    Py_DECREF(had);
    Py_RETURN_NONE;
}

/* count_fallbacks(products): NumPy did so many that were asked of nkblas. */
static PyObject *count_fallbacks(PyObject *self, PyObject *products)
{
    Py_ssize_t number = PyLong_AsSsize_t(products);
    (void)self;
    if (number == -1 && PyErr_Occurred())
        return NULL;
    left_to_numpy(number);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"make_gufunc", bind, METH_VARARGS, "Make nkblas's gufunc from one of NumPy's and the engine."},
    {"set_patched", patch, METH_VARARGS,
     "Put the engine under NumPy's gufuncs that are bound, or not."},
    {"make_mixed_gufunc", make_mixed, METH_NOARGS, "Products with another type of result."},
    {"register_callbacks", ask, METH_VARARGS, "What to ask in Python."},
    {"register_user_dtypes", register_user_dtypes, METH_VARARGS,
     "Have the engine do products of types."},
    {"replace_implementation", reimplement, METH_VARARGS,
     "Have a function of NumPy's call another one."},
    {"make_fast_path", make_quick, METH_VARARGS, "A function with a short way for plain operands."},
    {"count_fallbacks", count_fallbacks, METH_O, "Count products that NumPy did."},
    {"gemm", scaled, METH_VARARGS, "C = alpha * A @ B + beta * C, if the engine can do it."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "nkblas._numpy_ext", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__numpy_ext(void)
{
    /* The engine asks Python by cffi, which knows the main interpreter alone. */
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "nkblas does not run in a subinterpreter, as NumPy does "
                                           "not: import it in the main interpreter (mod_wsgi: "
                                           "WSGIApplicationGroup %{GLOBAL})");
        return NULL;
    }
    import_array();
    import_umath();
    if (PyType_Ready(&quick_type) < 0 || PyType_Ready(&panels_type) < 0)
        return NULL;
    PyObject *made = PyModule_Create(&module);
    if (made && PyModule_AddObjectRef(made, "PackedOperand", (PyObject *)&panels_type) < 0)
        Py_CLEAR(made);
    return made;
}

/* nkblas.matmul: a gufunc with the loops of numpy.matmul, of which those of float32 and float64
   run on the engine. Stacks, broadcasting, casting, `out`, subclasses, overrides and errors are
   NumPy's own; a short way in front of all that takes two plain matrices. And the way of
   nkblas.gemm to the engine. */
#include <fenv.h>

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>
#include <numpy/ufuncobject.h>

#include "nkblas.h"

/* One of numpy.matmul's loops. */
typedef struct {
    PyUFuncGenericFunction function;
    void *data;
    int dtype; /* nk_dtype, or -1: the engine does not do it */
} loop;

enum { MAX_LOOPS = 64 };
static loop loops[MAX_LOOPS];

/* The engine is another extension module: these are handed over by `bind`. */
static int64_t (*gemm)(int32_t, int64_t, int64_t, int64_t, nk_matrix, nk_matrix, nk_matrix, int64_t,
                       nk_steps);
static int64_t (*gemm_scaled)(int32_t, int64_t, int64_t, int64_t, nk_matrix, nk_matrix, nk_matrix,
                              nk_scale);
static nk_counters *counts;

enum { WORTH_THE_GIL = 1 << 14 }; /* multiply-adds */

/* Signature (n?,k),(k,m?)->(n?,m?): dimensions are stack, m, k, n. */
static void engine_loop(char **args, const npy_intp *dimensions, const npy_intp *steps, void *data)
{
    const loop *numpy = data;
    npy_intp m = dimensions[1], k = dimensions[2], n = dimensions[3];
    npy_intp size = numpy->dtype == NK_FLOAT32 ? 4 : 8;
    nk_matrix a = {args[0], steps[3] / size, steps[4] / size};
    nk_matrix b = {args[1], steps[5] / size, steps[6] / size};
    nk_matrix c = {args[2], steps[7] / size, steps[8] / size};

    nk_steps apart = {steps[0] / size, steps[1] / size, steps[2] / size};

    if (!gemm(numpy->dtype, m, n, k, a, b, c, dimensions[0], apart))
        numpy->function(args, dimensions, steps, numpy->data);
}

static void numpy_loop(char **args, const npy_intp *dimensions, const npy_intp *steps, void *data)
{
    const loop *numpy = data;
    __atomic_add_fetch(&counts->calls, (uint64_t)dimensions[0], __ATOMIC_RELAXED);
    __atomic_add_fetch(&counts->fallbacks, (uint64_t)dimensions[0], __ATOMIC_RELAXED);
    numpy->function(args, dimensions, steps, numpy->data);
}

/* numpy.matmul's own way in, and ours. */
static vectorcallfunc general_call;

/* Whether the engine can take `x` as it is: NumPy's own array of float32 or float64. */
static int is_plain(PyObject *x)
{
    if (!PyArray_CheckExact(x))
        return 0;
    PyArrayObject *array = (PyArrayObject *)x;
    int type = PyArray_TYPE(array), ndim = PyArray_NDIM(array);
    return (type == NPY_FLOAT || type == NPY_DOUBLE) && (ndim == 1 || ndim == 2) &&
           PyArray_ISBEHAVED_RO(array);
}

/* An array as a matrix; a vector is a row (on the left) or a column (on the right). */
static nk_matrix as_matrix(PyArrayObject *x, int column, npy_intp *rows, npy_intp *columns)
{
    npy_intp *shape = PyArray_DIMS(x), *strides = PyArray_STRIDES(x);
    npy_intp size = PyArray_TYPE(x) == NPY_FLOAT ? 4 : 8;
    nk_matrix matrix = {PyArray_BYTES(x), 1, 1};
    *rows = *columns = 1;
    if (PyArray_NDIM(x) == 2) {
        *rows = shape[0], *columns = shape[1];
        matrix.rs = strides[0] / size, matrix.cs = strides[1] / size;
    } else if (column) {
        *rows = shape[0], matrix.rs = strides[0] / size;
    } else {
        *columns = shape[0], matrix.cs = strides[0] / size;
    }
    return matrix;
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
                                const npy_intp *shape)
{
    PyArrayObject *array = (PyArrayObject *)out;
    if (!is_plain(out) || PyArray_NDIM(array) != ndim || PyArray_TYPE(array) != PyArray_TYPE(a) ||
        !PyArray_CompareLists(PyArray_DIMS(array), shape, ndim) || !PyArray_ISWRITEABLE(array) ||
        may_overlap(array, a) || may_overlap(array, b))
        return NULL;
    Py_INCREF(array);
    return array;
}

/* matmul(a, b) and matmul(a, b, out=c) of plain matrices and vectors; everything else, and every
   mistake, goes the general way. */
static PyObject *call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *names)
{
    Py_ssize_t given = PyVectorcall_NARGS(nargsf), named = names ? PyTuple_GET_SIZE(names) : 0;
    int with_out = given + named == 3;
    if (given < 2 || (!with_out && given + named != 2) || !is_plain(args[0]) || !is_plain(args[1]))
        goto general;
    if (named && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "out"))
        goto general;

    PyArrayObject *a = (PyArrayObject *)args[0], *b = (PyArrayObject *)args[1], *c;
    npy_intp m, n, k, k_of_b, shape[2];
    nk_matrix x = as_matrix(a, 0, &m, &k), y = as_matrix(b, 1, &k_of_b, &n), z;
    int ndim = PyArray_NDIM(a) + PyArray_NDIM(b) - 2, type = PyArray_TYPE(a);
    if (k != k_of_b || type != PyArray_TYPE(b) || ndim == 0)
        goto general;
    shape[0] = PyArray_NDIM(a) == 2 ? m : n;
    shape[1] = n;
    c = with_out ? plain_out(args[2], a, b, ndim, shape)
                 : (PyArrayObject *)PyArray_SimpleNew(ndim, shape, type);
    if (!c) {
        if (PyErr_Occurred())
            return NULL;
        goto general;
    }
    z = as_matrix(c, PyArray_NDIM(a) == 2, &m, &n);

    enum { FLAGS = FE_DIVBYZERO | FE_OVERFLOW | FE_UNDERFLOW | FE_INVALID };
    if (fetestexcept(FLAGS))
        feclearexcept(FLAGS);
    int dtype = type == NPY_FLOAT ? NK_FLOAT32 : NK_FLOAT64;
    int64_t done;
    if (m * n > WORTH_THE_GIL / (k ? k : 1)) {
        Py_BEGIN_ALLOW_THREADS
        done = gemm(dtype, m, n, k, x, y, z, 1, (nk_steps){0, 0, 0});
        Py_END_ALLOW_THREADS
    } else {
        done = gemm(dtype, m, n, k, x, y, z, 1, (nk_steps){0, 0, 0});
    }
    if (!done) {
        Py_DECREF(c);
        __atomic_sub_fetch(&counts->calls, 1, __ATOMIC_RELAXED); /* it comes again */
        __atomic_sub_fetch(&counts->fallbacks, 1, __ATOMIC_RELAXED);
        goto general;
    }
    int raised = fetestexcept(FLAGS);
    if (raised) {
        int errors = (raised & FE_DIVBYZERO ? NPY_FPE_DIVIDEBYZERO : 0) |
                     (raised & FE_OVERFLOW ? NPY_FPE_OVERFLOW : 0) |
                     (raised & FE_UNDERFLOW ? NPY_FPE_UNDERFLOW : 0) |
                     (raised & FE_INVALID ? NPY_FPE_INVALID : 0);
        feclearexcept(FLAGS);
        if (PyUFunc_GiveFloatingpointErrors("matmul", errors) < 0) {
            Py_DECREF(c);
            return NULL;
        }
    }
    return (PyObject *)c;

general:
    return general_call(self, args, nargsf, names);
}

PyDoc_STRVAR(doc,
"Matrix product of two arrays: `numpy.matmul`, on generated kernels.\n"
"\n"
"Parameters, result, broadcasting, casting and errors are those of `numpy.matmul`.\n"
"float32 and float64 products run on nkblas; NumPy's own loops do every other dtype.\n"
"\n"
"Parameters\n"
"----------\n"
"x1, x2 : array_like\n"
"    Matrices, or stacks of matrices in the last two dimensions: shapes ``(..., m, k)`` and\n"
"    ``(..., k, n)``. A vector of shape ``(k,)`` is a row on the left, a column on the right.\n"
"out : ndarray, optional\n"
"    Where the result goes: shape ``(..., m, n)``. It may overlap the inputs.\n"
"**kwargs\n"
"    `casting`, `order`, `dtype`, `subok`, `signature`, `axes`, `axis` as for any gufunc.\n"
"\n"
"Returns\n"
"-------\n"
"ndarray\n"
"    Shape ``(..., m, n)``. Each element is within ``k * eps * (|x1| @ |x2|)`` of the exact\n"
"    product (Higham, Accuracy and Stability of Numerical Algorithms, section 3.5).\n"
"\n"
"Raises\n"
"------\n"
"ValueError\n"
"    The inner dimensions differ, or an operand is a scalar.\n"
"\n"
"Examples\n"
"--------\n"
">>> import numpy as np, nkblas\n"
">>> nkblas.matmul(np.eye(2), [[1, 2], [3, 4]])\n"
"array([[1., 2.],\n"
"       [3., 4.]])\n");

/* gemm(alpha, a, b, beta, c): C = alpha * A @ B + beta * C for matrices of one dtype, aligned and
   in the machine's byte order, whose shapes fit and of which C overlaps no other; whether it was
   done. */
static PyObject *scaled(PyObject *self, PyObject *args)
{
    PyArrayObject *a, *b, *c;
    npy_intp m, n, k;
    nk_scale scale;

    (void)self;
    if (!PyArg_ParseTuple(args, "dO!O!dO!", &scale.alpha, &PyArray_Type, &a, &PyArray_Type, &b,
                          &scale.beta, &PyArray_Type, &c))
        return NULL;
    int type = PyArray_TYPE(c);
    if ((type != NPY_FLOAT && type != NPY_DOUBLE) || PyArray_TYPE(a) != type ||
        PyArray_TYPE(b) != type)
        Py_RETURN_FALSE;
    nk_matrix x = as_matrix(a, 0, &m, &k), y = as_matrix(b, 1, &k, &n), z = as_matrix(c, 0, &m, &n);
    int dtype = type == NPY_FLOAT ? NK_FLOAT32 : NK_FLOAT64;
    int64_t done;
    if (m * n > WORTH_THE_GIL / (k ? k : 1)) {
        Py_BEGIN_ALLOW_THREADS
        done = gemm_scaled(dtype, m, n, k, x, y, z, scale);
        Py_END_ALLOW_THREADS
    } else {
        done = gemm_scaled(dtype, m, n, k, x, y, z, scale);
    }
    return PyBool_FromLong(done != 0);
}

/* bind(matmul, addresses of nk_gemm, nk_gemm_scaled, the counters) -> nkblas's gufunc */
static PyObject *bind(PyObject *self, PyObject *args)
{
    PyUFuncObject *numpy;
    unsigned long long gemm_address, scaled_address, counts_address;
    static PyUFuncGenericFunction functions[MAX_LOOPS];
    static void *data[MAX_LOOPS];

    (void)self;
    if (!PyArg_ParseTuple(args, "O!KKK", &PyUFunc_Type, &numpy, &gemm_address, &scaled_address,
                          &counts_address))
        return NULL;
    if (numpy->ntypes > MAX_LOOPS || numpy->nin != 2 || numpy->nout != 1) {
        PyErr_SetString(PyExc_ValueError, "bind: expected numpy.matmul, got another ufunc");
        return NULL;
    }
    gemm = (void *)(uintptr_t)gemm_address;
    gemm_scaled = (void *)(uintptr_t)scaled_address;
    counts = (void *)(uintptr_t)counts_address;

    for (int i = 0; i < numpy->ntypes; i++) {
        char type = numpy->types[3 * i];
        loops[i] = (loop){numpy->functions[i], numpy->data ? numpy->data[i] : NULL,
                          type == NPY_FLOAT    ? NK_FLOAT32
                          : type == NPY_DOUBLE ? NK_FLOAT64
                                               : -1};
        functions[i] = loops[i].dtype < 0 ? numpy_loop : engine_loop;
        data[i] = &loops[i];
    }
    PyUFuncObject *ours = (PyUFuncObject *)PyUFunc_FromFuncAndDataAndSignature(
        functions, data, numpy->types, numpy->ntypes, 2, 1, PyUFunc_None, "matmul", doc, 0,
        "(n?,k),(k,m?)->(n?,m?)");
    if (!ours)
        return NULL;
    /* The constructor does not set what matmul has of its own: the type resolver (its errors),
       and the iterator's flags (operands that overlap `out` are copied). */
    ours->type_resolver = numpy->type_resolver;
    ours->iter_flags = numpy->iter_flags;
    for (int i = 0; i < 3; i++)
        ours->op_flags[i] = numpy->op_flags[i];
    general_call = ours->vectorcall;
    ours->vectorcall = call;
    return (PyObject *)ours;
}

static PyMethodDef methods[] = {
    {"bind", bind, METH_VARARGS, "Make nkblas.matmul from numpy.matmul and the engine."},
    {"gemm", scaled, METH_VARARGS, "C = alpha * A @ B + beta * C, if the engine can do it."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "nkblas._gufunc", NULL, -1, methods,
                                    NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__gufunc(void)
{
    import_array();
    import_umath();
    return PyModule_Create(&module);
}

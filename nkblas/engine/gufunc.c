/* nkblas.matmul: a gufunc with the loops of numpy.matmul, of which those of float32 and float64
   run on the engine. Stacks, broadcasting, casting, `out`, subclasses, overrides and errors are
   NumPy's own. */
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

/* The engine is another extension module: these two are handed over by `bind`. */
static int (*gemm)(int32_t, int64_t, int64_t, int64_t, nk_matrix, nk_matrix, nk_matrix);
static nk_counters *counts;

/* Signature (n?,k),(k,m?)->(n?,m?): dimensions are stack, m, k, n. */
static void engine_loop(char **args, const npy_intp *dimensions, const npy_intp *steps, void *data)
{
    const loop *numpy = data;
    npy_intp m = dimensions[1], k = dimensions[2], n = dimensions[3];
    npy_intp size = numpy->dtype == NK_FLOAT32 ? 4 : 8;
    nk_matrix a = {args[0], steps[3] / size, steps[4] / size};
    nk_matrix b = {args[1], steps[5] / size, steps[6] / size};
    nk_matrix c = {args[2], steps[7] / size, steps[8] / size};

    for (npy_intp i = 0; i < dimensions[0]; i++) {
        if (gemm(numpy->dtype, m, n, k, a, b, c)) {
            char *one[] = {a.data, b.data, c.data};
            const npy_intp dimensions_of_one[] = {1, m, k, n};
            numpy->function(one, dimensions_of_one, steps, numpy->data);
        }
        a.data += steps[0];
        b.data += steps[1];
        c.data += steps[2];
    }
}

static void numpy_loop(char **args, const npy_intp *dimensions, const npy_intp *steps, void *data)
{
    const loop *numpy = data;
    __atomic_add_fetch(&counts->calls, (uint64_t)dimensions[0], __ATOMIC_RELAXED);
    __atomic_add_fetch(&counts->fallbacks, (uint64_t)dimensions[0], __ATOMIC_RELAXED);
    numpy->function(args, dimensions, steps, numpy->data);
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

/* bind(matmul, address of nk_gemm, address of the counters) -> nkblas's gufunc */
static PyObject *bind(PyObject *self, PyObject *args)
{
    PyUFuncObject *numpy;
    unsigned long long gemm_address, counts_address;
    static PyUFuncGenericFunction functions[MAX_LOOPS];
    static void *data[MAX_LOOPS];

    (void)self;
    if (!PyArg_ParseTuple(args, "O!KK", &PyUFunc_Type, &numpy, &gemm_address, &counts_address))
        return NULL;
    if (numpy->ntypes > MAX_LOOPS || numpy->nin != 2 || numpy->nout != 1) {
        PyErr_SetString(PyExc_ValueError, "bind: expected numpy.matmul, got another ufunc");
        return NULL;
    }
    gemm = (void *)(uintptr_t)gemm_address;
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
    return (PyObject *)ours;
}

static PyMethodDef methods[] = {
    {"bind", bind, METH_VARARGS, "Make nkblas.matmul from numpy.matmul and the engine."},
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

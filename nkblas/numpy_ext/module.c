/* The module nkblas._numpy_ext: its functions, and those that need no file of their own. */
#define IMPORTS_NUMPY
#include "numpy_ext.h"

_Static_assert(sizeof(long long) == sizeof(int64_t), "gemm parses nk_call_args.fused as long long");

python_callbacks callbacks;

/* register_callbacks(register_user_dtypes, mixed_product, float_activations,
   integer_activations) */
static PyObject *register_callbacks(PyObject *self, PyObject *args)
{
    python_callbacks given;
    (void)self;
    if (!PyArg_ParseTuple(args, "OOO!O!", &given.register_user_dtypes, &given.mixed_product,
                          &PyDict_Type, &given.float_activations, &PyDict_Type,
                          &given.integer_activations))
        return NULL;
    Py_XSETREF(callbacks.register_user_dtypes, Py_NewRef(given.register_user_dtypes));
    Py_XSETREF(callbacks.mixed_product, Py_NewRef(given.mixed_product));
    Py_XSETREF(callbacks.float_activations, Py_NewRef(given.float_activations));
    Py_XSETREF(callbacks.integer_activations, Py_NewRef(given.integer_activations));
    Py_RETURN_NONE;
}

/* gemm(alpha, a, b, beta, c, a_imag_sign, c_imag_sign, fused, bias, residual, clip_low, clip_high,
   blocks, scales, zero_point) -> whether the engine did it

   C = activation(alpha * A @ B + beta * C + bias) + residual, with the arguments of nk_call_args,
   for arrays that are aligned and in native byte order and whose shapes fit. C overlaps no other
   array; m, n, k and alpha are not 0; B may be packed. The arguments after c_imag_sign are
   optional; an array that `fused` has no bits for is None. The bias and the scales have
   NK_READ_PADDING elements behind them; the residual is row-major. `blocks` holds addresses: a row
   of the left operands and a row of the right ones, which have the shape and the strides of a and
   b, the first of them. */
static PyObject *gemm(PyObject *self, PyObject *args)
{
    PyArrayObject *a, *c;
    PyObject *b, *bias = Py_None, *residual = Py_None, *blocks = Py_None, *scales = Py_None;
    npy_intp m, n, k;
    Py_complex alpha, beta;
    nk_call_args call_args = {0};

    (void)self;
    if (!PyArg_ParseTuple(args, "DO!ODO!dd|LOOddOOd", &alpha, &PyArray_Type, &a, &b, &beta,
                          &PyArray_Type, &c, &call_args.a_imag_sign, &call_args.c_imag_sign,
                          &call_args.fused, &bias, &residual, &call_args.clip_low,
                          &call_args.clip_high, &blocks, &scales, &call_args.zero_point))
        return NULL;
    if (!PyArray_Check(b) && !is_packed(b))
        return PyErr_Format(PyExc_TypeError, "b: got %R, expected an array or a packed operand", b);
    if (bias != Py_None)
        call_args.bias = PyArray_BYTES((PyArrayObject *)bias);
    if (residual != Py_None) {
        PyArrayObject *array = (PyArrayObject *)residual;
        call_args.residual = PyArray_BYTES(array);
        call_args.ldr = PyArray_STRIDE(array, 0) / PyArray_ITEMSIZE(array);
    }
    if (scales != Py_None) {
        call_args.scales = PyArray_BYTES((PyArrayObject *)scales);
        call_args.fused |= NK_SCALES;
    }
    if (blocks != Py_None) {
        call_args.block_count = PyArray_DIM((PyArrayObject *)blocks, 1);
        call_args.a_blocks = (const char *const *)PyArray_DATA((PyArrayObject *)blocks);
        call_args.b_blocks = call_args.a_blocks + call_args.block_count;
    }
    call_args.alpha = alpha.real, call_args.alpha_imag = alpha.imag;
    call_args.beta = beta.real, call_args.beta_imag = beta.imag;
    right_operand right = as_right_operand(b);
    int dtype = product_with(&right, PyArray_TYPE(a), PyArray_TYPE(c), call_args.scales != NULL);
    if (dtype == NO_PRODUCT)
        Py_RETURN_FALSE;
    nk_matrix a_matrix = as_matrix(a, 0, &m, &k), c_matrix = as_matrix(c, 0, &m, &n);
    int done = run_product(dtype, m, n, k, a_matrix, right.matrix, c_matrix, call_args);
    return PyBool_FromLong(done);
}

/* replace_implementation(function, implementation): have a function of NumPy's that dispatches by
   __array_function__ call another implementation. NumPy shows the implementation as an attribute
   but can't set it, so the field is found by its content. */
static PyObject *replace_implementation(PyObject *self, PyObject *args)
{
    PyObject *function, *implementation, **field = NULL;
    (void)self;
    if (!PyArg_ParseTuple(args, "OO", &function, &implementation))
        return NULL;
    PyObject *previous = PyObject_GetAttrString(function, "_implementation");
    if (!previous)
        return NULL;
    PyObject **fields = (PyObject **)function;
    size_t size = (size_t)Py_TYPE(function)->tp_basicsize / sizeof *fields;
    int matches = 0;
    for (size_t i = sizeof(PyObject) / sizeof *fields; i < size; i++) {
        if (fields[i] == previous) {
            field = &fields[i];
            matches++;
        }
    }
    Py_DECREF(previous); /* the function holds another reference */
    if (matches != 1) {
        PyErr_Format(PyExc_RuntimeError, "%d fields of %R hold its implementation, expected 1",
                     matches, function);
        return NULL;
    }
    *field = Py_NewRef(implementation);
    Py_DECREF(previous);
    Py_RETURN_NONE;
}

/* count_fallbacks(products): count products that NumPy does in place of nkblas. */
static PyObject *count_fallbacks_method(PyObject *self, PyObject *products)
{
    Py_ssize_t number = PyLong_AsSsize_t(products);
    (void)self;
    if (number == -1 && PyErr_Occurred())
        return NULL;
    count_fallbacks(number);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"make_gufunc", make_gufunc, METH_VARARGS, "Make nkblas's gufunc from NumPy's."},
    {"make_mixed_gufunc", make_mixed_gufunc, METH_NOARGS,
     "Make the gufunc of products whose result is wider than the operands."},
    {"register_user_dtypes", register_user_dtypes, METH_VARARGS,
     "Give gufuncs loops for user dtypes."},
    {"set_patched", set_patched, METH_VARARGS, "Have NumPy's gufuncs run nkblas's loops, or not."},
    {"replace_implementation", replace_implementation, METH_VARARGS,
     "Have a function of NumPy's call another implementation."},
    {"make_fast_path", make_fast_path, METH_VARARGS, "Give a function a fast path."},
    {"register_callbacks", register_callbacks, METH_VARARGS,
     "Register the Python objects that the fast paths use."},
    {"register_planner", register_planner, METH_VARARGS,
     "Register the function that derives recipes, and NumPy's functions."},
    {"count_fallbacks", count_fallbacks_method, METH_O, "Count products that NumPy does."},
    {"gemm", gemm, METH_VARARGS, "C = alpha * A @ B + beta * C and an epilogue, on the engine."},
    {"register_level3", register_level3, METH_VARARGS,
     "Register the engine's functions for triangles."},
    {"level3", level3, METH_VARARGS, "An operation with a triangle, on the engine."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "nkblas._numpy_ext", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__numpy_ext(void)
{
    /* The engine calls Python through cffi, which knows only the main interpreter. */
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "nkblas does not run in a subinterpreter, as NumPy does "
                                           "not: import it in the main interpreter (mod_wsgi: "
                                           "WSGIApplicationGroup %{GLOBAL})");
        return NULL;
    }
    import_array();
    import_umath();
    init_types();
    if (PyType_Ready(&fast_function_type) < 0 || PyType_Ready(&packed_operand_type) < 0)
        return NULL;
    PyObject *self = PyModule_Create(&module);
    if (self && PyModule_AddObjectRef(self, "PackedOperand", (PyObject *)&packed_operand_type) < 0)
        Py_CLEAR(self);
    return self;
}

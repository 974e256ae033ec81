/* A Python function with a fast path: it tries the fast path, then calls the general function. */
#include "numpy_ext.h"

typedef struct {
    PyObject_HEAD vectorcallfunc vectorcall;
    PyObject *general, *dict;
    fast_path *fast;
} fast_function;

static PyObject *call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    fast_function *function = (fast_function *)self;
    PyObject *result = function->fast(args, PyVectorcall_NARGS(nargsf), kwnames);
    if (result || PyErr_Occurred())
        return result;
    return PyObject_Vectorcall(function->general, args, nargsf, kwnames);
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((fast_function *)self)->general);
    Py_VISIT(((fast_function *)self)->dict);
    return 0;
}

static int clear(PyObject *self)
{
    Py_CLEAR(((fast_function *)self)->general);
    Py_CLEAR(((fast_function *)self)->dict);
    return 0;
}

static void deallocate(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    clear(self);
    Py_TYPE(self)->tp_free(self);
}

/* As an attribute of a class it is a method. */
static PyObject *bind(PyObject *self, PyObject *instance, PyObject *type)
{
    (void)type;
    return instance ? PyMethod_New(self, instance) : Py_NewRef(self);
}

static PyObject *represent(PyObject *self)
{
    return PyObject_Repr(((fast_function *)self)->general);
}

/* Pickle it as functions are, by the name of a global. */
static PyObject *reduce(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyObject_GetAttrString(((fast_function *)self)->general, "__qualname__");
}

static PyMethodDef methods[] = {
    {"__reduce__", reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef attributes[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

PyTypeObject fast_function_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "nkblas.function",
    .tp_basicsize = sizeof(fast_function),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(fast_function, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_dictoffset = offsetof(fast_function, dict),
    .tp_traverse = traverse,
    .tp_clear = clear,
    .tp_dealloc = deallocate,
    .tp_repr = represent,
    .tp_descr_get = bind,
    .tp_methods = methods,
    .tp_getset = attributes,
};

/* make_fast_path(general, name) -> a function with the fast path of that name */
PyObject *make_fast_path(PyObject *self, PyObject *args)
{
    static const struct {
        const char *name;
        fast_path *fast;
    } fast_paths[] = {
        {"dot", fast_dot},     {"inner", fast_inner},   {"vdot", fast_vdot},
        {"gemm", fast_gemm},   {"brgemm", fast_brgemm}, {"__array_ufunc__", fast_array_ufunc},
        {"sgemm", fast_sgemm}, {"dgemm", fast_dgemm},   {"cgemm", fast_cgemm},
        {"zgemm", fast_zgemm}, {"sgemv", fast_sgemv},   {"dgemv", fast_dgemv},
        {"cgemv", fast_cgemv}, {"zgemv", fast_zgemv},   {NULL, NULL},
    };
    PyObject *general;
    const char *name;
    int i = 0;
    (void)self;
    if (!PyArg_ParseTuple(args, "Os", &general, &name))
        return NULL;
    while (fast_paths[i].name && strcmp(fast_paths[i].name, name))
        i++;
    if (!fast_paths[i].name)
        return PyErr_Format(PyExc_ValueError, "name: got %s, expected that of a fast path", name);
    fast_function *function = PyObject_GC_New(fast_function, &fast_function_type);
    if (!function)
        return NULL;
    function->vectorcall = call;
    function->general = Py_NewRef(general);
    function->dict = NULL;
    function->fast = fast_paths[i].fast;
    PyObject_GC_Track(function);
    return (PyObject *)function;
}

/* A Python function with a fast path: it tries the fast path, then calls the general function; or the
   NumPy function that it replaces, if an argument overrides that. */
#include "numpy_ext.h"

typedef struct {
    PyObject_HEAD vectorcallfunc vectorcall;
    PyObject *general, *dict;
    PyObject *numpy; /* the function that arguments can override, or NULL */
    fast_path *fast; /* or NULL */
    const level3_routine
        *routine; /* or NULL; then it has the fast path of level 3, for this type */
    int type;
} fast_function;

/* ---- overrides ---- */

static PyObject *ndarray_override; /* numpy.ndarray.__array_function__ */

/* Whether an argument has its own versions of NumPy's functions; -1: an exception is set. */
static int overrides(PyObject *x)
{
    PyTypeObject *type = Py_TYPE(x);
    if (type == &PyArray_Type || type == &PyList_Type || type == &PyTuple_Type ||
        type == &PyFloat_Type || type == &PyLong_Type || type == &PyUnicode_Type || x == Py_None)
        return 0;
    PyObject *own = PyObject_GetAttrString((PyObject *)type, "__array_function__");
    if (!own) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError))
            return -1;
        PyErr_Clear();
        return 0;
    }
    Py_DECREF(own);
    return own != ndarray_override;
}

/* The same of an argument or, if it is a list or a tuple, of its items. */
static int has_override(PyObject *x)
{
    int found = overrides(x);
    if (!PyList_Check(x) && !PyTuple_Check(x))
        return found;
    for (Py_ssize_t i = 0; !found && i < PySequence_Fast_GET_SIZE(x); i++)
        found = overrides(PySequence_Fast_GET_ITEM(x, i));
    return found;
}

static int any_overrides(PyObject *const *args, Py_ssize_t count)
{
    int found = 0;
    for (Py_ssize_t i = 0; !found && i < count; i++)
        found = has_override(args[i]);
    return found;
}

/* ---- the function ---- */

static PyObject *call(PyObject *self, PyObject *const *args, size_t nargsf, PyObject *kwnames)
{
    fast_function *function = (fast_function *)self;
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf);
    PyObject *result = NULL;
    if (function->fast)
        result = function->fast(args, nargs, kwnames);
    else if (function->routine)
        result = fast_level3(function->routine, function->type, args, nargs, kwnames);
    if (result || PyErr_Occurred())
        return result;
    int is_overridden = 0;
    if (function->numpy)
        is_overridden = any_overrides(args, nargs + (kwnames ? PyTuple_GET_SIZE(kwnames) : 0));
    if (is_overridden < 0)
        return NULL;
    return PyObject_Vectorcall(is_overridden ? function->numpy : function->general, args, nargsf,
                               kwnames);
}

static int traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(((fast_function *)self)->numpy);
    Py_VISIT(((fast_function *)self)->general);
    Py_VISIT(((fast_function *)self)->dict);
    return 0;
}

static int clear(PyObject *self)
{
    Py_CLEAR(((fast_function *)self)->numpy);
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

static const struct {
    const char *name;
    fast_path *fast;
} fast_paths[] = {
    {"dot", fast_dot},
    {"inner", fast_inner},
    {"vdot", fast_vdot},
    {"tensordot", fast_tensordot},
    {"multi_dot", fast_multi_dot},
    {"einsum", fast_einsum},
    {"gemm", fast_gemm},
    {"brgemm", fast_brgemm},
    {"sgemv", fast_sgemv},
    {"dgemv", fast_dgemv},
    {"cgemv", fast_cgemv},
    {"zgemv", fast_zgemv},
    {"__array_ufunc__", fast_array_ufunc},
};

/* NULL: there is none, and an exception is set. */
static fast_path *find_fast_path(const char *name)
{
    for (size_t i = 0; i < sizeof fast_paths / sizeof *fast_paths; i++)
        if (!strcmp(fast_paths[i].name, name))
            return fast_paths[i].fast;
    PyErr_Format(PyExc_ValueError, "name: got %s, expected a function with a fast path", name);
    return NULL;
}

/* make_fast_path(general, name, numpy) -> a function with the fast path of that name, and with
   overrides of NumPy's function; each may be None */
PyObject *make_fast_path(PyObject *self, PyObject *args)
{
    PyObject *general, *numpy;
    const char *name;
    (void)self;
    if (!PyArg_ParseTuple(args, "OzO", &general, &name, &numpy))
        return NULL;
    int type = NPY_NOTYPE;
    const level3_routine *routine = name ? find_level3(name, &type) : NULL;
    fast_path *fast = name && !routine ? find_fast_path(name) : NULL;
    if (!ndarray_override)
        ndarray_override = PyObject_GetAttrString((PyObject *)&PyArray_Type, "__array_function__");
    if (!ndarray_override || (name && !fast && !routine))
        return NULL;
    fast_function *function = PyObject_GC_New(fast_function, &fast_function_type);
    if (!function)
        return NULL;
    function->vectorcall = call;
    function->general = Py_NewRef(general);
    function->numpy = numpy == Py_None ? NULL : Py_NewRef(numpy);
    function->dict = NULL;
    function->fast = fast;
    function->routine = routine;
    function->type = type;
    PyObject_GC_Track(function);
    return (PyObject *)function;
}

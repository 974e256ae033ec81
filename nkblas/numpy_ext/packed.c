/* PackedOperand: a right operand in the panels that microkernels read. */
#include "numpy_ext.h"

static int init_packed_operand(PyObject *self, PyObject *args, PyObject *kwargs)
{
    packed_operand *x = (packed_operand *)self;
    PyArrayObject *panels;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "O!iiinn", &PyArray_Type, &panels, &x->dtype, &x->a_type,
                          &x->c_type, &x->k, &x->n))
        return -1;
    Py_XSETREF(x->panels, (PyArrayObject *)Py_NewRef(panels));
    return 0;
}

static void free_packed_operand(PyObject *self)
{
    Py_CLEAR(((packed_operand *)self)->panels);
    Py_TYPE(self)->tp_free(self);
}

static PyMemberDef packed_operand_members[] = {
    {"_panels", T_OBJECT_EX, offsetof(packed_operand, panels), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyTypeObject packed_operand_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "nkblas._numpy_ext.PackedOperand",
    .tp_basicsize = sizeof(packed_operand),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_new = PyType_GenericNew,
    .tp_init = init_packed_operand,
    .tp_dealloc = free_packed_operand,
    .tp_members = packed_operand_members,
};

right_operand as_right_operand(PyObject *x)
{
    right_operand b = {.array = (PyArrayObject *)x};
    if (!PyArray_Check(x)) {
        b.packed = (packed_operand *)x;
        b.array = b.packed->panels;
        b.matrix = (nk_matrix){.data = PyArray_BYTES(b.array), .is_packed = 1};
        b.k = b.packed->k, b.n = b.packed->n, b.ndim = 2;
    } else {
        b.matrix = as_matrix(b.array, 1, &b.k, &b.n);
        b.ndim = PyArray_NDIM(b.array);
    }
    return b;
}

int product_with(const right_operand *b, int a_type, int c_type, int is_scaled)
{
    int sums_type = is_scaled ? NPY_INT : c_type;
    int dtype = b->packed ? b->packed->dtype
                          : find_product(a_type, PyArray_TYPE(b->array), sums_type);
    return is_scaled ? quantized_product(dtype, c_type) : dtype;
}

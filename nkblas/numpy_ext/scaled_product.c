/* What gemm and the functions of BLAS have in common: alpha * op(A) @ op(B) + beta * C. */
#include "numpy_ext.h"

static int read_trans(PyObject *value, int *trans)
{
    npy_intp number;
    if (!value)
        return 1;
    if (!read_integer(value, &number) || number < 0 || number > 2)
        return 0;
    *trans = (int)number;
    return 1;
}

int read_scaling(PyObject *alpha, PyObject *beta, PyObject *trans_a, PyObject *trans_b, scaling *x)
{
    *x = (scaling){.alpha = {INTEGER_NUMBER, {1, 0}}};
    return (!alpha || read_number(alpha, &x->alpha)) && (!beta || read_number(beta, &x->beta)) &&
           read_trans(trans_a, &x->trans_a) && read_trans(trans_b, &x->trans_b);
}

int set_scaling(const scaling *x, int type, nk_call_args *call_args)
{
    Py_complex alpha = x->alpha.value, beta = x->beta.value;
    int is_plain = alpha.real == 1 && alpha.imag == 0 && beta.imag == 0 &&
                   (beta.real == 0 || beta.real == 1);
    if ((alpha.real == 0 && alpha.imag == 0) || (PyTypeNum_ISINTEGER(type) && !is_plain))
        return 0;
    call_args->alpha = alpha.real, call_args->alpha_imag = alpha.imag;
    call_args->beta = beta.real, call_args->beta_imag = beta.imag;
    /* A @ conj(B) is computed as conj(conj(A) @ B) */
    int conj_a = PyTypeNum_ISCOMPLEX(type) && x->trans_a == 2;
    int conj_b = PyTypeNum_ISCOMPLEX(type) && x->trans_b == 2;
    call_args->a_imag_sign = conj_a != conj_b ? -1 : 1;
    call_args->c_imag_sign = conj_b ? -1 : 1;
    return 1;
}

nk_matrix as_op_matrix(PyArrayObject *x, int trans, npy_intp *rows, npy_intp *columns)
{
    if (!trans)
        return as_matrix(x, 0, rows, columns);
    return nk_transposed(as_matrix(x, 0, columns, rows));
}

int copy_elements(PyArrayObject *to, PyArrayObject *from)
{
    int is_contiguous = (PyArray_IS_C_CONTIGUOUS(to) && PyArray_IS_C_CONTIGUOUS(from)) ||
                        (PyArray_IS_F_CONTIGUOUS(to) && PyArray_IS_F_CONTIGUOUS(from));
    if (!is_contiguous || PyArray_TYPE(to) != PyArray_TYPE(from) || !PyArray_ISNOTSWAPPED(from))
        return PyArray_CopyInto(to, from);
    memcpy(PyArray_DATA(to), PyArray_DATA(from), (size_t)PyArray_NBYTES(to));
    return 0;
}

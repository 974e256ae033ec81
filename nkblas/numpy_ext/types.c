/* Maps NumPy's type numbers to the engine's products, user dtypes included. */
#include "numpy_ext.h"

_Static_assert(sizeof(npy_bool) == 1 && sizeof(npy_half) == 2 && sizeof(float) == 4 &&
                   sizeof(double) == 8,
               "NumPy's types have the sizes of the engine's");

user_dtype user_dtypes[MAX_USER_DTYPES];
int user_dtype_count;
float float8_values[NK_TYPES][256];

static const user_dtype *find_user_dtype(int type)
{
    for (int i = 0; i < user_dtype_count; i++)
        if (user_dtypes[i].type == type)
            return &user_dtypes[i];
    return NULL;
}

/* Integers wrap, so signed and unsigned ones of one size share a product. */
static int integer_product(size_t itemsize)
{
    switch (itemsize) {
    case 1: return NK_INT8;
    case 2: return NK_INT16;
    case 4: return NK_INT32;
    case 8: return NK_INT64;
    default: return NO_PRODUCT;
    }
}

int same_type_product(int type)
{
    if (PyTypeNum_ISUSERDEF(type)) {
        const user_dtype *user = find_user_dtype(type);
        return user ? user->same_type_product : NO_PRODUCT;
    }
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
    case NPY_USHORT: return integer_product(sizeof(short));
    case NPY_INT:
    case NPY_UINT: return integer_product(sizeof(int));
    case NPY_LONG:
    case NPY_ULONG: return integer_product(sizeof(long));
    case NPY_LONGLONG:
    case NPY_ULONGLONG: return integer_product(sizeof(long long));
    default: return NO_PRODUCT;
    }
}

int user_dtype_product(int type)
{
    const user_dtype *user = PyTypeNum_ISUSERDEF(type) ? find_user_dtype(type) : NULL;
    return user ? user->float32_product : NO_PRODUCT;
}

int find_product(int a, int b, int c)
{
    if (a == b && b == c)
        return same_type_product(a);
    if (a == b && c == NPY_FLOAT && user_dtype_product(a) != NO_PRODUCT)
        return user_dtype_product(a);
    for (int i = 0; i < MIXED_PRODUCTS; i++) {
        const mixed_product *x = &mixed_products[i];
        if (x->a == a && x->b == b && x->c == c)
            return x->dtype;
    }
    return NO_PRODUCT;
}

/* By the product whose sums are scaled and the element type of the result. */
static int quantized_products[NK_DTYPES][NK_TYPES];

void init_types(void)
{
    for (int sums = 0; sums < NK_DTYPES; sums++)
        for (int type = 0; type < NK_TYPES; type++)
            quantized_products[sums][type] = NO_PRODUCT;
    for (int dtype = 0; dtype < NK_DTYPES; dtype++) {
        const nk_product *x = &nk_products[dtype];
        if ((int)x->sums != dtype)
            quantized_products[x->sums][x->c] = dtype;
    }
}

int quantized_product(int sums, int c)
{
    if (sums == NO_PRODUCT)
        return NO_PRODUCT;
    switch (c) {
    case NPY_FLOAT: return quantized_products[sums][NK_TYPE_FLOAT32];
    case NPY_BYTE: return quantized_products[sums][NK_TYPE_QINT8];
    case NPY_UBYTE: return quantized_products[sums][NK_TYPE_QUINT8];
    default: return NO_PRODUCT;
    }
}

/* The product of three matrices of one element type. */
static int product_of_element_type(nk_type type)
{
    for (int dtype = 0; dtype < NK_DTYPES; dtype++) {
        const nk_product *x = &nk_products[dtype];
        if (x->a == type && x->b == type && x->c == type)
            return dtype;
    }
    return NO_PRODUCT;
}

static int add_user_dtype(PyObject *description)
{
    user_dtype added;
    const char *values;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(description, "iiy#", &added.type, &added.float32_product, &values, &size))
        return -1;
    int dtype = added.float32_product;
    if (dtype < 0 || dtype >= NK_DTYPES || nk_products[dtype].a != nk_products[dtype].b ||
        nk_products[dtype].c != NK_TYPE_FLOAT32 || user_dtype_count == MAX_USER_DTYPES) {
        PyErr_Format(PyExc_ValueError,
                     "user dtype: got product %d, expected one with float32 "
                     "results, and at most %d dtypes",
                     dtype, MAX_USER_DTYPES);
        return -1;
    }
    nk_type element_type = nk_products[dtype].a;
    size_t expected = nk_products[dtype].itemsizes.a == 1 ? sizeof float8_values[0] : 0;
    if ((size_t)size != expected) {
        PyErr_Format(PyExc_ValueError, "values: got %zd bytes, expected %zu", size, expected);
        return -1;
    }
    added.same_type_product = product_of_element_type(element_type);
    memcpy(float8_values[element_type], values, expected);
    user_dtypes[user_dtype_count++] = added;
    return 0;
}

int add_user_dtypes(PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++)
        if (add_user_dtype(PyList_GET_ITEM(list, i)) < 0) {
            user_dtype_count = 0;
            return -1;
        }
    return 0;
}

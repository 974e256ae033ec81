/* The extension module nkblas._numpy_ext: the engine behind NumPy's C API.

   It has gufuncs on the engine (NumPy's own while nkblas is patched in), fast paths for calls that
   need no conversion of an argument, and the call that the Python front ends make. A "dtype" is an
   nk_dtype, the engine's code of a product; a "type" is one of NumPy's type numbers. */
#ifndef NUMPY_EXT_H
#define NUMPY_EXT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

/* module.c imports NumPy's C API, once for all files. */
#define PY_ARRAY_UNIQUE_SYMBOL nkblas_array_api
#define PY_UFUNC_UNIQUE_SYMBOL nkblas_ufunc_api
#ifndef IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#define NO_IMPORT_UFUNC
#endif
#define NPY_NO_DEPRECATED_API NPY_2_0_API_VERSION
#include <numpy/arrayobject.h>
#include <numpy/arrayscalars.h>
#include <numpy/ufuncobject.h>

#include "nkblas.h"

_Static_assert(sizeof(npy_intp) == sizeof(int64_t), "NumPy's lengths and strides are the engine's");

enum { NO_PRODUCT = -1 }; /* in place of an nk_dtype: the engine has no such product */

/* ---- types.c: NumPy's types and the engine's products ---- */

void init_types(void);

/* The product whose three matrices have one type; like the next three, NO_PRODUCT if there is
   none. */
int same_type_product(int type);
/* The product of two matrices of a user dtype with a float32 result, which NumPy's gufuncs
   return. */
int user_dtype_product(int type);
/* The product of matrices of these types. */
int find_product(int a, int b, int c);
/* The product that scales the sums of the product `sums` and stores them as type `c`. */
int quantized_product(int sums, int c);

/* Products whose result is wider than the operands, of NumPy's own types. */
typedef struct {
    char a, b, c;
    int dtype;
} mixed_product;
static const mixed_product mixed_products[] = {
    {NPY_BYTE, NPY_BYTE, NPY_INT, NK_INT8_INT32},
    {NPY_UBYTE, NPY_UBYTE, NPY_INT, NK_UINT8_INT32},
    {NPY_UBYTE, NPY_UBYTE, NPY_UINT, NK_UINT8_INT32},
    {NPY_UBYTE, NPY_BYTE, NPY_INT, NK_UINT8_INT8_INT32},
    {NPY_BYTE, NPY_UBYTE, NPY_INT, NK_INT8_UINT8_INT32},
    {NPY_HALF, NPY_HALF, NPY_FLOAT, NK_FLOAT16_FLOAT32},
};
enum { MIXED_PRODUCTS = sizeof mixed_products / sizeof *mixed_products };
_Static_assert(sizeof(int) == 4, "the result of mixed products of bytes is NPY_INT");

/* Types that extend NumPy: bfloat16 and the float8 formats of package ml_dtypes. */
typedef struct {
    int type;
    int float32_product;   /* with a float32 result */
    int same_type_product; /* with a result of the same type; or NO_PRODUCT */
} user_dtype;
enum { MAX_USER_DTYPES = 16 };
extern user_dtype user_dtypes[MAX_USER_DTYPES];
extern int user_dtype_count;
/* Add a list of tuples (type number, nk_dtype of the product with a float32 result, values): for an
   8-bit type the values are the 256 float32 that its bytes stand for. -1: an exception is set. */
int add_user_dtypes(PyObject *list);
extern float float8_values[NK_TYPES][256]; /* by element type */

/* ---- reference.c: products without kernels, strides in bytes ---- */

void reference_product(int dtype, npy_intp m, npy_intp n, npy_intp k, nk_matrix a, nk_matrix b,
                       nk_matrix c);
void reference_complex_product(int dtype, int conjugate_a, npy_intp m, npy_intp n, npy_intp k,
                               nk_matrix a, nk_matrix b, nk_matrix c);

/* ---- engine_call.c ---- */

/* The engine is another extension module: make_gufunc receives these addresses. */
extern __typeof__(nk_gemm) *engine_gemm;
extern nk_counters *engine_counters;
extern void (*engine_pass_through)(int32_t on); /* cblas/doors.h */

/* For C = A @ B, or conj(A) @ B if `conjugate_a` is set and the product is complex. */
static inline nk_call_args product_call_args(int dtype, int conjugate_a)
{
    int is_conjugated = conjugate_a && nk_is_complex(dtype);
    return (nk_call_args){.alpha = 1, .a_imag_sign = is_conjugated ? -1 : 1, .c_imag_sign = 1};
}
enum { MIN_WORK_TO_RELEASE_GIL = 1 << 14 }; /* multiply-adds */
/* Run one product on the engine; 0: it was not done, and is counted as a fallback. Releases the GIL
   for large products. */
int run_product(int dtype, npy_intp m, npy_intp n, npy_intp k, nk_matrix a, nk_matrix b,
                nk_matrix c, nk_call_args call_args);
/* Undo the count of calls and fallbacks: the general function counts the products again. */
void uncount_calls(npy_intp calls, npy_intp fallbacks);
/* Run the product of a fast path, whose C is the memory of `result`, and return `result`. If it was
   not done, release `result` and return NULL without an exception. */
static inline PyObject *run_fast_path(PyArrayObject *result, int dtype, npy_intp m, npy_intp n,
                                      npy_intp k, nk_matrix a, nk_matrix b, nk_matrix c,
                                      nk_call_args call_args)
{
    if (!run_product(dtype, m, n, k, a, b, c, call_args)) {
        uncount_calls(1, 1);
        Py_CLEAR(result);
    }
    return (PyObject *)result;
}
/* Count products that NumPy does. */
void count_fallbacks(npy_intp products);

/* Forget floating-point errors of earlier operations. */
void clear_float_flags(void);
/* Report floating-point errors as ufuncs do, under the name of a function; -1: as an exception. */
int report_float_flags(const char *function);

/* ---- operands.c: arrays as matrices of the engine ---- */

/* Whether the engine can read `x` without a copy: a vector or matrix of NumPy's own class, aligned
   and in native byte order, of a type that has kernels, with strides of whole elements. */
int is_engine_operand(PyObject *x);
/* Whether the extents of two arrays overlap in memory. */
int may_overlap(PyArrayObject *x, PyArrayObject *y);
/* Whether the engine can store a result in the argument `out`: its shape and type fit. */
int fits_result(PyObject *out, int ndim, const npy_intp *shape, int type);
/* A new reference to the argument `out` if the result fits and it overlaps neither operand. NULL,
   without an exception, if not. */
PyArrayObject *usable_out(PyObject *out, PyArrayObject *a, PyArrayObject *b, int ndim,
                          const npy_intp *shape, int type);
/* Whether `x` is a number of a class without attributes of its own; a list or a tuple; an array of
   NumPy's own class, such a number, or a list of numbers or lists: neither it nor its items override
   NumPy's functions. */
int is_plain_number(PyObject *x);
int is_plain_list(PyObject *x);
int is_plain(PyObject *x);
/* New references to `count` plain operands as arrays of NumPy's own class. 0, without an exception: an
   operand is not plain, or NumPy raises an error. */
int as_plain_arrays(PyObject *const *operands, Py_ssize_t count, PyArrayObject **arrays);
void release_arrays(PyArrayObject **arrays, Py_ssize_t count);

/* An array as a matrix. A vector is a column if `is_column` is set, otherwise a row; an array
   without dimensions has one element. */
static inline nk_matrix as_matrix(PyArrayObject *x, int is_column, npy_intp *rows,
                                  npy_intp *columns)
{
    npy_intp *shape = PyArray_DIMS(x), *strides = PyArray_STRIDES(x);
    npy_intp itemsize = PyArray_ITEMSIZE(x);
    nk_matrix matrix = {.data = PyArray_BYTES(x), .rs = 1, .cs = 1};
    *rows = *columns = 1;
    if (PyArray_NDIM(x) == 2) {
        *rows = shape[0], *columns = shape[1];
        matrix.rs = strides[0] / itemsize, matrix.cs = strides[1] / itemsize;
    } else if (PyArray_NDIM(x) == 1 && is_column) {
        *rows = shape[0], matrix.rs = strides[0] / itemsize;
    } else if (PyArray_NDIM(x) == 1) {
        *columns = shape[0], matrix.cs = strides[0] / itemsize;
    }
    return matrix;
}

/* ---- packed.c ---- */

/* A packed right operand, the base class of nkblas.PackedMatrix. */
typedef struct {
    PyObject_HEAD PyArrayObject *panels; /* NULL until __init__ has run */
    int dtype;                           /* of the product that it is packed for */
    int a_type, c_type;                  /* of the left operand and the result */
    npy_intp k, n;
} packed_operand;
extern PyTypeObject packed_operand_type;

static inline int is_packed(PyObject *x)
{
    return PyObject_TypeCheck(x, &packed_operand_type) && ((packed_operand *)x)->panels;
}

/* The right operand of a product: an array or a packed operand. Its references are borrowed. */
typedef struct {
    const packed_operand *packed; /* NULL: it is an array */
    PyArrayObject *array;         /* the array, or the panels */
    nk_matrix matrix;
    npy_intp k, n;
    int ndim;
} right_operand;
right_operand as_right_operand(PyObject *x);
/* The product with a left operand and a result of these types. With `is_scaled`, the quantized
   product. The caller has compared the types with those that a packed operand is for. */
int product_with(const right_operand *b, int a_type, int c_type, int is_scaled);

/* ---- arguments.c: the arguments of fast paths; 0: the general function has to read them ---- */

/* The parameters of a function, in order: the first ones are required, and those up to `positional`
   can be given by position. */
typedef struct {
    const char *const *names;
    int count, required, positional;
} parameter_list;
/* Sort arguments by parameter; `values` has to be NULL, and stays so where there are none. */
int sort_arguments(const parameter_list *parameters, PyObject *const *args, Py_ssize_t nargs,
                   PyObject *kwnames, PyObject **values);

/* A number, and the kind of Python number that it is. */
typedef struct {
    enum { INTEGER_NUMBER, REAL_NUMBER, COMPLEX_NUMBER } kind;
    Py_complex value;
} number;
/* Read a number of Python's or a scalar of NumPy's. */
int read_number(PyObject *value, number *x);
/* Read an int of at most 32 bits, or a bool. */
int read_integer(PyObject *value, npy_intp *x);

/* ---- scaled_product.c: alpha * op(A) @ op(B) + beta * C ---- */

typedef struct {
    number alpha, beta;
    int trans_a, trans_b; /* 0: none, 1: transpose, 2: conjugate transpose */
} scaling;
/* Read these arguments; NULL: the argument is not given. */
int read_scaling(PyObject *alpha, PyObject *beta, PyObject *trans_a, PyObject *trans_b, scaling *x);
/* Set factors and conjugation for matrices of `type`. 0: kernels do not do it, since alpha is 0, or
   integers would be scaled. */
int set_scaling(const scaling *x, int type, nk_call_args *call_args);
/* An array as op(A) or op(B), without the conjugation. */
nk_matrix as_op_matrix(PyArrayObject *x, int trans, npy_intp *rows, npy_intp *columns);
/* Copy the elements of an array to one of the same shape; -1: an exception is set. */
int copy_elements(PyArrayObject *to, PyArrayObject *from);

/* ---- level3.c: operations with a triangle (BLAS level 3) ---- */

/* In the order of OPERATIONS in api/level3_call.py, which describes them and the fields. */
typedef enum { GEMMT, SYMM, TRMM, TRSM } level3_operation;

typedef struct {
    level3_operation operation;
    int dtype;
    nk_triangle triangle;
    int is_hermitian, is_unit;
    npy_intp m, n, k; /* C is m x n; k: of gemmt */
    nk_matrix a, b, c;
    nk_call_args call_args;
} level3_call;
/* As run_product. If it was not done, the diagonal of a Hermitian C may be real now. */
int run_level3(const level3_call *call);
PyObject *level3(PyObject *self, PyObject *args);
PyObject *register_level3(PyObject *self, PyObject *args);

/* ---- recipes.c: what is known of calls of one kind ---- */

/* The functions that have fast paths, whose rules hold. */
typedef enum {
    MATMUL,
    VECDOT,
    MATVEC,
    VECMAT,
    DOT,
    INNER,
    VDOT,
    TENSORDOT,
    EINSUM,
    PRODUCT_RULES,
} product_rule;

/* Whether the function conjugates its left operand, a vector. */
static inline int conjugates_a(product_rule rule)
{
    return rule == VECDOT || rule == VECMAT || rule == VDOT;
}

enum { MAX_DIMENSIONS = 16, MAX_KEY_WORDS = 96 };

typedef struct {
    npy_intp length;
    nk_batch_strides strides;
} stack_dimension;

/* A copy of an operand, or in place of the result: C-contiguous, with these axes. */
typedef struct {
    int ndim; /* -1: there is no copy */
    npy_intp axes[MAX_DIMENSIONS];
} copy_recipe;

/* How an operand becomes a stack of matrices. */
typedef struct {
    PyObject *presum;               /* subscripts of a call of NumPy's einsum, or NULL */
    PyArrayObject *ones;            /* sum each row of a matrix by a product with it, or NULL */
    npy_intp rows, columns, rs, cs; /* of that matrix; strides are in elements */
    copy_recipe copy;
} operand_recipe;

/* How to do the calls of one kind; derived in api/recipes.py, which describes the fields. */
typedef struct recipe recipe;
struct recipe {
    int references;
    enum { BY_PYTHON, BY_NUMPY, BY_ENGINE } kind;
    int is_fallback; /* of kind BY_NUMPY */
    int type, presums_floats;
    npy_intp m, n, k;
    npy_intp strides[6];
    operand_recipe operands[2];
    copy_recipe target;
    int stack_ndim;
    stack_dimension stack[MAX_DIMENSIONS];
    int ndim; /* of the result, as its shape and its strides in bytes */
    npy_intp shape[MAX_DIMENSIONS], result_strides[MAX_DIMENSIONS];
    /* the key */
    PyObject *text;
    uint64_t hash;
    int words;
    npy_intp key[];
};

/* The kind of a call. */
typedef struct {
    PyObject *text; /* borrowed; NULL: there is none */
    int words;
    npy_intp word[MAX_KEY_WORDS];
} recipe_key;

static inline void start_key(recipe_key *key, product_rule rule, PyObject *text)
{
    key->text = text;
    key->word[0] = rule;
    key->words = 1;
}
/* Add to a key, unless it is full: it is no key then, and has no recipe. */
static inline void add_word(recipe_key *key, npy_intp word)
{
    if (key->words < MAX_KEY_WORDS)
        key->word[key->words] = word;
    key->words++;
}
/* Whether a type's number says all about it, but its byte order. */
static inline int has_recipes(int type)
{
    return (type >= 0 && type <= NPY_OBJECT) || type == NPY_HALF;
}
/* 0: arrays of this type have no recipes. */
int add_array(recipe_key *key, PyArrayObject *array);
/* The recipe of a call, a new reference; `options` are keyword arguments, a dict or NULL. NULL: there
   is none, maybe with an exception. */
recipe *find_recipe(const recipe_key *key, PyObject *what, PyArrayObject *const *operands,
                    Py_ssize_t count, PyObject *options);
void release_recipe(recipe *x);
/* NumPy's function; NULL: it is not registered. */
PyObject *numpy_function(product_rule rule);
/* register_planner(make_recipe, NumPy's functions by name) */
PyObject *register_planner(PyObject *self, PyObject *args);

/* ---- contraction.c ---- */

/* Execute a recipe of kind BY_ENGINE, into `out` if that is not NULL; `name` is the function that
   warnings of floating-point errors name, NULL: it does not warn. Returns a new reference; NULL,
   maybe without an exception: it was not done, and is not counted. */
PyArrayObject *run_recipe(const recipe *x, PyArrayObject *const *operands, PyArrayObject *out,
                          int conjugate_a, const char *name);

/* ---- fast paths ---- */

/* A fast path does the calls of a Python function that are worth no Python code: with arrays of
   NumPy's own class and options of the usual types. It returns NULL without an exception for every
   other call, invalid ones included: the general function has to handle it. What it reads is then
   unchanged. */
typedef PyObject *fast_path(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

/* fast_matmul.c */
fast_path fast_dot, fast_inner, fast_vdot;
fast_path fast_array_ufunc; /* PackedMatrix.__array_ufunc__ */
/* Have calls of a gufunc, nkblas's or NumPy's, try the fast path first; or not. */
void set_fast_gufunc(PyUFuncObject *gufunc, int on);

fast_path fast_einsum; /* fast_einsum.c */

/* fast_contraction.c */
fast_path fast_tensordot, fast_multi_dot;
/* A product of two plain arrays by its recipe; as a fast path, it may be NULL. */
PyObject *contract(product_rule rule, const char *name, PyArrayObject *const *operands);

fast_path fast_gemm;   /* fast_gemm.c */
fast_path fast_brgemm; /* fast_brgemm.c */
/* fast_blas.c */
fast_path fast_sgemv, fast_dgemv, fast_cgemv, fast_zgemv;

/* An array of the function's type that the engine can read; NULL: the argument is none. */
PyArrayObject *read_blas_array(PyObject *value, int type, int ndim);
/* Read an optional integer: None, or no argument (NULL), is the default. */
int read_blas_option(PyObject *value, npy_intp default_value, npy_intp *x);
/* Read an optional integer that must not be None, 0 if there is no argument. */
int read_blas_flag(PyObject *value, npy_intp *x);
/* Read alpha and the optional beta. A real type takes the real part of a complex number. Without C,
   beta has no effect. */
int read_blas_factors(PyObject *alpha, PyObject *beta, int type, int has_c, scaling *x);
/* The array to return, a new reference, with C or y in it: the argument itself if it can be
   overwritten, else a copy in Fortran order; without an argument, a new array of this shape. */
PyArrayObject *blas_result(PyArrayObject *given, npy_intp overwrite, int type, int ndim,
                           npy_intp *shape, PyArrayObject *a, PyArrayObject *b);

/* fast_level3.c: one fast path for all routines of BLAS level 3. */
typedef struct level3_routine level3_routine;
/* By the name of a function, and the type that it is for; NULL: it is no such function. */
const level3_routine *find_level3(const char *name, int *type);
PyObject *fast_level3(const level3_routine *routine, int type, PyObject *const *args,
                      Py_ssize_t nargs, PyObject *kwnames);

/* fast_path.c: the Python object that calls a fast path and then the general function. */
extern PyTypeObject fast_function_type;
PyObject *make_fast_path(PyObject *self, PyObject *args);

/* What the fast paths need from Python (api/gufuncs.py); set by register_callbacks. */
typedef struct {
    PyObject *register_user_dtypes; /* called where an operand has an unknown user dtype */
    PyObject *mixed_product;        /* called where a dtype is given; may return NotImplemented */
    PyObject *float_activations, *integer_activations; /* codes of activations without bounds */
} python_callbacks;
extern python_callbacks callbacks; /* module.c */

/* ---- gufuncs.c: functions of the module ---- */

extern PyUFuncObject *numpy_matmul; /* numpy.matmul */
PyObject *make_gufunc(PyObject *self, PyObject *args);
PyObject *make_mixed_gufunc(PyObject *self, PyObject *unused);
PyObject *register_user_dtypes(PyObject *self, PyObject *args);
PyObject *set_patched(PyObject *self, PyObject *args);

#endif

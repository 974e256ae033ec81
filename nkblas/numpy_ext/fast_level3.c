/* The fast paths of BLAS level 3 (nkblas.blas), for arrays of the function's type. */
#include "numpy_ext.h"

/* ---- the table; api/level3.py has the same ---- */

/* What a parameter is: those of all routines. */
typedef enum {
    ALPHA,
    A,
    B,
    BETA,
    C,
    TRANS,
    TRANS_A,
    TRANS_B,
    SIDE,
    LOWER,
    DIAG,
    OVERWRITE,
    ROLES,
} role;

enum { MAX_PARAMETERS = 9 };

typedef struct {
    parameter_list parameters;
    char roles[MAX_PARAMETERS];
} signature;

#define SIGNATURE(names, required, ...)                                                            \
    {                                                                                              \
        {names, sizeof names / sizeof *names, required, sizeof names / sizeof *names},             \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }

static const char *const gemm_names[] = {
    "alpha", "a", "b", "beta", "c", "trans_a", "trans_b", "overwrite_c",
};
static const char *const gemmt_names[] = {
    "alpha", "a", "b", "beta", "c", "trans_a", "trans_b", "lower", "overwrite_c",
};
static const char *const rank_k_names[] = {
    "alpha", "a", "beta", "c", "trans", "lower", "overwrite_c",
};
static const char *const rank_2k_names[] = {
    "alpha", "a", "b", "beta", "c", "trans", "lower", "overwrite_c",
};
static const char *const symm_names[] = {
    "alpha", "a", "b", "beta", "c", "side", "lower", "overwrite_c",
};
static const char *const triangular_names[] = {
    "alpha", "a", "b", "side", "lower", "trans_a", "diag", "overwrite_b",
};

static const signature of_gemm =
    SIGNATURE(gemm_names, 3, ALPHA, A, B, BETA, C, TRANS_A, TRANS_B, OVERWRITE);
static const signature of_gemmt =
    SIGNATURE(gemmt_names, 3, ALPHA, A, B, BETA, C, TRANS_A, TRANS_B, LOWER, OVERWRITE);
static const signature of_rank_k =
    SIGNATURE(rank_k_names, 2, ALPHA, A, BETA, C, TRANS, LOWER, OVERWRITE);
static const signature of_rank_2k =
    SIGNATURE(rank_2k_names, 3, ALPHA, A, B, BETA, C, TRANS, LOWER, OVERWRITE);
static const signature of_symm =
    SIGNATURE(symm_names, 3, ALPHA, A, B, BETA, C, SIDE, LOWER, OVERWRITE);
static const signature of_triangular =
    SIGNATURE(triangular_names, 3, ALPHA, A, B, SIDE, LOWER, TRANS_A, DIAG, OVERWRITE);

struct level3_routine {
    const char *kind; /* the name without the letter of the type */
    const signature *signature;
    enum { PRODUCT, TRIANGLE_OF_PRODUCT, RANK_K, RANK_2K, WITH_SQUARE } form;
    level3_operation operation; /* not for a PRODUCT */
    int is_hermitian;
};

static const level3_routine routines[] = {
    {"gemm", &of_gemm, PRODUCT, 0, 0},
    {"gemmt", &of_gemmt, TRIANGLE_OF_PRODUCT, GEMMT, 0},
    {"syrk", &of_rank_k, RANK_K, GEMMT, 0},
    {"herk", &of_rank_k, RANK_K, GEMMT, 1},
    {"syr2k", &of_rank_2k, RANK_2K, GEMMT, 0},
    {"her2k", &of_rank_2k, RANK_2K, GEMMT, 1},
    {"symm", &of_symm, WITH_SQUARE, SYMM, 0},
    {"hemm", &of_symm, WITH_SQUARE, SYMM, 1},
    {"trmm", &of_triangular, WITH_SQUARE, TRMM, 0},
    {"trsm", &of_triangular, WITH_SQUARE, TRSM, 0},
};

/* Whether its result is in the place of B. */
static int is_in_place(const level3_routine *routine)
{
    return routine->operation == TRMM || routine->operation == TRSM;
}

const level3_routine *find_level3(const char *name, int *type)
{
    static const struct {
        char letter;
        int type;
    } letters[] = {{'s', NPY_FLOAT}, {'d', NPY_DOUBLE}, {'c', NPY_CFLOAT}, {'z', NPY_CDOUBLE}};
    for (size_t i = 0; i < sizeof letters / sizeof *letters; i++)
        for (size_t j = 0; j < sizeof routines / sizeof *routines; j++)
            if (name[0] == letters[i].letter && !strcmp(name + 1, routines[j].kind)) {
                *type = letters[i].type;
                return &routines[j];
            }
    return NULL;
}

/* ---- one call ---- */

/* The arguments of a call, by role. */
typedef struct {
    PyArrayObject *a, *b, *c; /* without b: a; without c: NULL. Trmm and trsm: b is c, too */
    npy_intp options[ROLES];
    scaling scaling;
} arguments;

/* Read the options; with `trans`, the left operand is transposed, without it the right one. */
static int read_options(const level3_routine *routine, int type, PyObject *const *given,
                        arguments *x)
{
    for (int role = TRANS; role <= DIAG; role++) {
        npy_intp largest = role <= TRANS_B ? 2 : 1;
        if (!read_blas_option(given[role], 0, &x->options[role]) || x->options[role] < 0 ||
            x->options[role] > largest)
            return 0;
    }
    if (!read_blas_flag(given[OVERWRITE], &x->options[OVERWRITE]))
        return 0;
    x->scaling.trans_a = (int)x->options[TRANS_A], x->scaling.trans_b = (int)x->options[TRANS_B];
    if (routine->form == RANK_K || routine->form == RANK_2K) {
        int trans = x->options[TRANS] != 0, transpose = routine->is_hermitian ? 2 : 1;
        x->scaling.trans_a = trans ? transpose : 0, x->scaling.trans_b = trans ? 0 : transpose;
        return !trans || x->options[TRANS] == transpose || !PyTypeNum_ISCOMPLEX(type);
    }
    return 1;
}

/* Those of Hermitian sums are real, but for the alpha of her2k. */
static int read_factors(const level3_routine *routine, int type, PyObject *const *given,
                        arguments *x)
{
    scaling factors;
    if (!read_blas_factors(given[ALPHA], given[BETA], type, x->c != NULL, &factors))
        return 0;
    if (routine->is_hermitian && routine->form == RANK_K)
        factors.alpha.value.imag = 0;
    if (routine->is_hermitian && (routine->form == RANK_K || routine->form == RANK_2K))
        factors.beta.value.imag = 0;
    x->scaling.alpha = factors.alpha, x->scaling.beta = factors.beta;
    return 1;
}

static int read_arguments(const level3_routine *routine, int type, PyObject *const *args,
                          Py_ssize_t nargs, PyObject *kwnames, arguments *x)
{
    PyObject *values[MAX_PARAMETERS] = {0}, *given[ROLES] = {0};
    const signature *signature = routine->signature;
    if (!sort_arguments(&signature->parameters, args, nargs, kwnames, values))
        return 0;
    for (int i = 0; i < signature->parameters.count; i++)
        given[(int)signature->roles[i]] = values[i];
    x->a = read_blas_array(given[A], type, 2);
    x->b = given[B] ? read_blas_array(given[B], type, 2) : x->a;
    if (!x->a || !x->b)
        return 0;
    x->c = NULL;
    if (is_in_place(routine))
        x->c = x->b;
    else if (given[C] && given[C] != Py_None && !(x->c = read_blas_array(given[C], type, 2)))
        return 0;
    return read_options(routine, type, given, x) && read_factors(routine, type, given, x);
}

/* Set matrices and sizes, but for C; 0: the shapes don't fit, or there is nothing to multiply. */
static int describe_operands(const level3_routine *routine, const arguments *x, level3_call *call)
{
    npy_intp rows, columns;
    call->triangle = x->options[LOWER] ? NK_LOWER : NK_UPPER;
    if (routine->form == WITH_SQUARE) {
        /* On the right it is done as C.T = op(A).T @ B.T. */
        int side = x->options[SIDE] != 0, is_transposed = side != (x->scaling.trans_a != 0);
        call->a = as_op_matrix(x->a, is_transposed, &rows, &columns);
        call->b = as_op_matrix(x->b, side, &call->m, &call->n);
        call->k = call->m;
        if (is_transposed)
            call->triangle = x->options[LOWER] ? NK_UPPER : NK_LOWER;
        return rows == columns && rows == call->m && call->m * call->n > 0;
    }
    call->a = as_op_matrix(x->a, x->scaling.trans_a, &call->m, &call->k);
    call->b = as_op_matrix(x->b, x->scaling.trans_b, &rows, &call->n);
    return rows == call->k && (routine->form == PRODUCT || call->m == call->n) &&
           call->m * call->n * call->k > 0;
}

/* The array to return, a new reference; NULL, maybe without an exception: C overlaps an operand, or
   has another shape. */
static PyArrayObject *find_result(const level3_routine *routine, int type, const arguments *x,
                                  const level3_call *call)
{
    int side = x->options[SIDE] != 0;
    npy_intp shape[2] = {side ? call->n : call->m, side ? call->m : call->n};
    if (x->c && !PyArray_CompareLists(PyArray_DIMS(x->c), shape, 2))
        return NULL;
    int reads_c = call->call_args.beta != 0 || call->call_args.beta_imag != 0;
    if (routine->form == RANK_2K && x->c && x->options[OVERWRITE] && reads_c)
        return NULL; /* C would be lost if the engine did the first of the two products only */
    PyArrayObject *b = is_in_place(routine) ? x->a : x->b;
    if (!x->c && routine->operation == GEMMT && routine->form != PRODUCT)
        return (PyArrayObject *)PyArray_ZEROS(2, shape, type, 1);
    return blas_result(x->c, x->options[OVERWRITE], type, 2, shape, x->a, b);
}

/* The second product of a rank 2k update. */
static void swap_operands(const level3_routine *routine, const arguments *x, level3_call *call)
{
    npy_intp rows, columns;
    call->a = as_op_matrix(x->b, x->scaling.trans_a, &rows, &columns);
    call->b = as_op_matrix(x->a, x->scaling.trans_b, &rows, &columns);
    call->call_args.beta = 1, call->call_args.beta_imag = 0;
    if (routine->is_hermitian)
        call->call_args.alpha_imag = -call->call_args.alpha_imag;
}

PyObject *fast_level3(const level3_routine *routine, int type, PyObject *const *args,
                      Py_ssize_t nargs, PyObject *kwnames)
{
    arguments x;
    level3_call call = {.operation = routine->operation, .dtype = same_type_product(type)};
    if (!read_arguments(routine, type, args, nargs, kwnames, &x) ||
        !describe_operands(routine, &x, &call) || !set_scaling(&x.scaling, type, &call.call_args))
        return NULL;
    call.is_hermitian = routine->is_hermitian;
    call.is_unit = x.options[DIAG] != 0;
    PyArrayObject *result = find_result(routine, type, &x, &call);
    if (!result)
        return NULL;
    npy_intp rows, columns;
    call.c = as_op_matrix(result, x.options[SIDE] != 0, &rows, &columns);
    if (routine->form == PRODUCT)
        return run_fast_path(result, call.dtype, call.m, call.n, call.k, call.a, call.b, call.c,
                             call.call_args);
    int products = 1, done = run_level3(&call);
    if (done && routine->form == RANK_2K) {
        swap_operands(routine, &x, &call);
        done = run_level3(&call);
        products++;
    }
    if (!done) {
        uncount_calls(products, 1);
        Py_CLEAR(result);
    }
    return (PyObject *)result;
}

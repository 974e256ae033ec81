/* NumPy's gufuncs of products (matmul, vecdot, matvec, vecmat) on the engine: nkblas's own, and
   NumPy's while nkblas is patched in. Stacks, broadcasting, casting, `out`, subclasses, overrides
   and errors are handled by NumPy. */
#include "numpy_ext.h"

PyUFuncObject *numpy_matmul;

typedef struct product_gufunc product_gufunc;

/* One loop of a gufunc. */
typedef struct {
    const product_gufunc *gufunc;
    int dtype;                         /* nk_dtype or NO_PRODUCT */
    PyUFuncGenericFunction numpy_loop; /* for the same types; NULL: NumPy has none */
    void *numpy_data;
} gufunc_loop;

enum { MAX_GUFUNCS = 4, MAX_LOOPS = 32 };

/* One of NumPy's gufuncs. Each operand is a matrix or a vector. */
struct product_gufunc {
    PyUFuncObject *numpy;
    int a_is_matrix, b_is_matrix;
    gufunc_loop loops[MAX_LOOPS];
    PyUFuncGenericFunction unpatched_loops[MAX_LOOPS];
};

static product_gufunc gufuncs[MAX_GUFUNCS];
static int gufunc_count;

static product_gufunc *find_gufunc(const char *signature)
{
    for (int i = 0; i < gufunc_count; i++)
        if (!strcmp(gufuncs[i].numpy->core_signature, signature))
            return &gufuncs[i];
    return NULL;
}

/* ---- the loops ---- */

/* A stack of products as NumPy describes it: all strides are in bytes. */
typedef struct {
    npy_intp count, m, n, k;
    nk_matrix a, b, c;
    nk_batch_strides strides;
} stack;

/* The dimensions are the stack's, then those of (m, k, n) that the operands have. The steps are the
   operands' in the stack, then those of their dimensions. */
static void read_arguments(stack *x, const product_gufunc *gufunc, char **args,
                           const npy_intp *dimensions, const npy_intp *steps)
{
    int a_is_matrix = gufunc->a_is_matrix, b_is_matrix = gufunc->b_is_matrix;
    const npy_intp *length = dimensions + 1, *step = steps + 3;
    x->count = dimensions[0];
    x->m = a_is_matrix ? *length++ : 1;
    x->k = *length++;
    x->n = b_is_matrix ? *length : 1;
    x->strides = (nk_batch_strides){steps[0], steps[1], steps[2]};
    x->a = (nk_matrix){.data = args[0]};
    x->b = (nk_matrix){.data = args[1]};
    x->c = (nk_matrix){.data = args[2]};
    x->a.rs = a_is_matrix ? *step++ : 0, x->a.cs = *step++;
    x->b.rs = *step++, x->b.cs = b_is_matrix ? *step++ : 0;
    x->c.rs = a_is_matrix ? *step++ : 0, x->c.cs = b_is_matrix ? *step : 0;
}

/* Run a stack on the engine; 0: it was not done, and is counted as fallbacks. */
static int run_on_engine(int dtype, int conjugate_a, const stack *x)
{
    const nk_itemsizes *itemsize = nk_itemsizes_of(dtype);
    nk_matrix a = x->a, b = x->b, c = x->c;
    nk_batch_strides strides = x->strides;
    /* NumPy aligns a complex number to its parts: a stride may be a fraction of an element. */
    if ((a.rs | a.cs) % itemsize->a || (b.rs | b.cs) % itemsize->b || (c.rs | c.cs) % itemsize->c) {
        count_fallbacks(x->count);
        return 0;
    }
    int is_one_call =
        !(strides.a % itemsize->a || strides.b % itemsize->b || strides.c % itemsize->c);
    a.rs /= itemsize->a, a.cs /= itemsize->a, strides.a /= itemsize->a;
    b.rs /= itemsize->b, b.cs /= itemsize->b, strides.b /= itemsize->b;
    c.rs /= itemsize->c, c.cs /= itemsize->c, strides.c /= itemsize->c;
    nk_call_args call_args = product_call_args(dtype, conjugate_a);
    npy_intp per_call = is_one_call ? x->count : 1, done = 0;
    while (engine_gemm(dtype, x->m, x->n, x->k, a, b, c, per_call, strides, call_args)) {
        done += per_call;
        if (done >= x->count)
            return 1;
        a.data += x->strides.a, b.data += x->strides.b, c.data += x->strides.c;
    }
    return 0;
}

/* Whether NumPy's complex loops would write outside of C: BLAS has no strides of fractions of an
   element, and NumPy's vecmat ignores the stride of C. */
static int numpy_writes_outside(const gufunc_loop *loop, const stack *x)
{
    if (!nk_is_complex(loop->dtype))
        return 0;
    int64_t itemsize = nk_itemsizes_of(loop->dtype)->c;
    int is_vecmat = !loop->gufunc->a_is_matrix && loop->gufunc->b_is_matrix;
    return (x->c.rs | x->c.cs) % itemsize || (is_vecmat && x->c.cs != itemsize);
}

static void run_loop(const gufunc_loop *loop, char **args, const npy_intp *dimensions,
                     const npy_intp *steps)
{
    stack x;
    read_arguments(&x, loop->gufunc, args, dimensions, steps);
    int conjugate_a = !loop->gufunc->a_is_matrix; /* as vecdot and vecmat do */
    if (loop->dtype == NO_PRODUCT)
        count_fallbacks(x.count);
    else if (run_on_engine(loop->dtype, conjugate_a, &x))
        return;
    int needs_complex_reference = numpy_writes_outside(loop, &x);
    if (loop->numpy_loop && !needs_complex_reference) {
        int may_call_blas = loop->dtype != NO_PRODUCT; /* loops over objects run any code */
        engine_pass_through(may_call_blas);
        loop->numpy_loop(args, dimensions, steps, loop->numpy_data);
        engine_pass_through(0);
        return;
    }
    for (npy_intp i = 0; i < x.count; i++) {
        if (needs_complex_reference)
            reference_complex_product(loop->dtype, conjugate_a, x.m, x.n, x.k, x.a, x.b, x.c);
        else
            reference_product(loop->dtype, x.m, x.n, x.k, x.a, x.b, x.c);
        x.a.data += x.strides.a, x.b.data += x.strides.b, x.c.data += x.strides.c;
    }
}

/* A loop that receives its description as data. */
static void run_loop_of_data(char **args, const npy_intp *dimensions, const npy_intp *steps,
                             void *data)
{
    run_loop(data, args, dimensions, steps);
}

/* NumPy can replace a loop but not the data that it passes to the loop. So each loop of each gufunc
   has a function of its own. */
/* clang-format off */
#define EACH_LOOP(X, g)                                                                            \
    X(g, 0) X(g, 1) X(g, 2) X(g, 3) X(g, 4) X(g, 5) X(g, 6) X(g, 7)                                \
    X(g, 8) X(g, 9) X(g, 10) X(g, 11) X(g, 12) X(g, 13) X(g, 14) X(g, 15)                          \
    X(g, 16) X(g, 17) X(g, 18) X(g, 19) X(g, 20) X(g, 21) X(g, 22) X(g, 23)                        \
    X(g, 24) X(g, 25) X(g, 26) X(g, 27) X(g, 28) X(g, 29) X(g, 30) X(g, 31)
/* clang-format on */
#define DEFINE(g, i)                                                                               \
    static void loop_##g##_##i(char **args, const npy_intp *dimensions, const npy_intp *steps,     \
                               void *data)                                                         \
    {                                                                                              \
        (void)data;                                                                                \
        run_loop(&gufuncs[g].loops[i], args, dimensions, steps);                                   \
    }
#define NAME(g, i) loop_##g##_##i,
EACH_LOOP(DEFINE, 0)
EACH_LOOP(DEFINE, 1)
EACH_LOOP(DEFINE, 2)
EACH_LOOP(DEFINE, 3)
static PyUFuncGenericFunction loop_functions[][MAX_LOOPS] = {
    {EACH_LOOP(NAME, 0)}, {EACH_LOOP(NAME, 1)}, {EACH_LOOP(NAME, 2)}, {EACH_LOOP(NAME, 3)}};
#define COUNT(g, i) +1
_Static_assert(EACH_LOOP(COUNT, 0) == MAX_LOOPS, "each gufunc has MAX_LOOPS functions");
_Static_assert(sizeof loop_functions / sizeof loop_functions[0] == MAX_GUFUNCS,
               "loop_functions has a row for each gufunc");

/* ---- nkblas's gufuncs ---- */

/* The ufunc constructor does not set these flags, which make the iterator copy operands that overlap
   `out`. */
static void copy_iterator_flags(PyUFuncObject *to, const PyUFuncObject *from)
{
    to->iter_flags = from->iter_flags;
    for (int i = 0; i < 3; i++)
        to->op_flags[i] = from->op_flags[i];
}

/* NumPy's type resolution, with a restriction for user dtypes: their loops serve two operands of
   just that type. NumPy's search would also cast other operands to it, and round them, since
   ml_dtypes declares such casts of 8-bit integers, 4-bit integers and other float8 formats safe.
   Those operands are resolved as by NumPy's gufunc, which lacks the loops. */
static int resolve_types(PyUFuncObject *ours, NPY_CASTING casting, PyArrayObject **operands,
                         PyObject *types, PyArray_Descr **resolved)
{
    PyUFuncObject *numpy = find_gufunc(ours->core_signature)->numpy;
    int type = PyArray_TYPE(operands[0]);
    int has_loop = type == PyArray_TYPE(operands[1]) && user_dtype_product(type) != NO_PRODUCT;
    return numpy->type_resolver(has_loop ? ours : numpy, casting, operands, types, resolved);
}

static void set_loops(product_gufunc *gufunc, const PyUFuncObject *numpy)
{
    gufunc->a_is_matrix = numpy->core_num_dims[0] == 2;
    gufunc->b_is_matrix = numpy->core_num_dims[1] == 2;
    for (int i = 0; i < numpy->ntypes; i++) {
        const char *types = &numpy->types[3 * i];
        gufunc->loops[i] = (gufunc_loop){gufunc, find_product(types[0], types[1], types[2]),
                                         numpy->functions[i], numpy->data ? numpy->data[i] : NULL};
    }
}

/* make_gufunc(NumPy's gufunc, name, doc, addresses of nk_gemm, the counters, nk_pass_through) ->
   nkblas's gufunc */
PyObject *make_gufunc(PyObject *self, PyObject *args)
{
    PyUFuncObject *numpy;
    PyObject *name, *doc;
    unsigned long long gemm_address, counters_address, pass_address;
    static void *data[MAX_LOOPS];

    (void)self;
    if (!PyArg_ParseTuple(args, "O!UUKKK", &PyUFunc_Type, &numpy, &name, &doc, &gemm_address,
                          &counters_address, &pass_address))
        return NULL;
    int g = 0;
    while (g < gufunc_count && gufuncs[g].numpy != numpy)
        g++;
    if (g == MAX_GUFUNCS || numpy->ntypes > MAX_LOOPS || numpy->nin != 2 || numpy->nout != 1 ||
        !numpy->core_enabled)
        return PyErr_Format(PyExc_ValueError, "make_gufunc: got %s, expected a gufunc of products",
                            numpy->name);
    engine_gemm = (void *)(uintptr_t)gemm_address;
    engine_counters = (void *)(uintptr_t)counters_address;
    engine_pass_through = (void *)(uintptr_t)pass_address;
    set_loops(&gufuncs[g], numpy);

    const char *name_text = PyUnicode_AsUTF8(name), *doc_text = PyUnicode_AsUTF8(doc);
    if (!name_text || !doc_text)
        return NULL;
    PyUFuncObject *ours = (PyUFuncObject *)PyUFunc_FromFuncAndDataAndSignature(
        loop_functions[g], data, numpy->types, numpy->ntypes, 2, 1, PyUFunc_None, name_text,
        doc_text, 0, numpy->core_signature);
    if (!ours)
        return NULL;
    Py_INCREF(name); /* the gufunc refers to their text and is never freed */
    Py_INCREF(doc);
    int is_matmul = gufuncs[g].a_is_matrix && gufuncs[g].b_is_matrix;
    if (g == gufunc_count) {
        gufuncs[g].numpy = (PyUFuncObject *)Py_NewRef(numpy);
        gufunc_count++;
        if (is_matmul)
            numpy_matmul = numpy;
    }
    ours->type_resolver = resolve_types;
    copy_iterator_flags(ours, numpy);
    set_fast_gufunc(ours, 1);
    return (PyObject *)ours;
}

/* ---- products with a result of another type than the operands ---- */

/* The loops are not nkblas.matmul's, whose result types would change with them: they are only for
   callers that name a result type. */
static const product_gufunc mixed_gufunc = {.a_is_matrix = 1, .b_is_matrix = 1};
static PyUFuncObject *mixed_matmul;

/* make_mixed_gufunc() -> the gufunc of mixed_products */
PyObject *make_mixed_gufunc(PyObject *self, PyObject *unused)
{
    static PyUFuncGenericFunction functions[MIXED_PRODUCTS];
    static gufunc_loop loops[MIXED_PRODUCTS];
    static void *data[MIXED_PRODUCTS];
    static char types[MIXED_PRODUCTS][3];
    (void)self, (void)unused;
    if (!numpy_matmul)
        return PyErr_Format(PyExc_RuntimeError, "make_mixed_gufunc: make_gufunc has to be called "
                                                "with numpy.matmul first");
    for (int i = 0; i < MIXED_PRODUCTS; i++) {
        const mixed_product *x = &mixed_products[i];
        loops[i] = (gufunc_loop){&mixed_gufunc, x->dtype, NULL, NULL};
        functions[i] = run_loop_of_data;
        data[i] = &loops[i];
        types[i][0] = x->a, types[i][1] = x->b, types[i][2] = x->c;
    }
    mixed_matmul = (PyUFuncObject *)PyUFunc_FromFuncAndDataAndSignature(
        functions, data, &types[0][0], MIXED_PRODUCTS, 2, 1, PyUFunc_None, "matmul",
        "Matrix products with a result of another type than the operands.", 0,
        numpy_matmul->core_signature);
    if (!mixed_matmul)
        return NULL;
    copy_iterator_flags(mixed_matmul, numpy_matmul);
    return Py_NewRef(mixed_matmul);
}

/* ---- user dtypes ---- */

static int add_loop(PyUFuncObject *ufunc, const product_gufunc *gufunc, int type, int result_type)
{
    const int types[] = {type, type, result_type};
    gufunc_loop *added = malloc(sizeof *added); /* the ufunc refers to it and is never freed */
    if (!added) {
        PyErr_NoMemory();
        return -1;
    }
    *added = (gufunc_loop){gufunc, find_product(type, type, result_type), NULL, NULL};
    return PyUFunc_RegisterLoopForType(ufunc, type, run_loop_of_data, types, added);
}

/* register_user_dtypes(descriptions, gufuncs): give nkblas's gufuncs loops for user dtypes (see
   add_user_dtypes) with float32 results, which is the result type of NumPy's gufuncs. */
PyObject *register_user_dtypes(PyObject *self, PyObject *args)
{
    PyObject *descriptions, *ufuncs;
    (void)self;
    if (!PyArg_ParseTuple(args, "O!O!", &PyList_Type, &descriptions, &PyTuple_Type, &ufuncs))
        return NULL;
    if (user_dtype_count)
        Py_RETURN_NONE;
    if (add_user_dtypes(descriptions) < 0)
        return NULL;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(ufuncs); i++) {
        PyUFuncObject *ufunc = (PyUFuncObject *)PyTuple_GET_ITEM(ufuncs, i);
        const product_gufunc *gufunc = find_gufunc(ufunc->core_signature);
        for (int t = 0; gufunc && t < user_dtype_count; t++)
            if (add_loop(ufunc, gufunc, user_dtypes[t].type, NPY_FLOAT) < 0)
                return NULL;
    }
    for (int t = 0; mixed_matmul && t < user_dtype_count; t++) {
        const user_dtype *x = &user_dtypes[t];
        if (x->same_type_product != NO_PRODUCT &&
            add_loop(mixed_matmul, &mixed_gufunc, x->type, x->type) < 0)
            return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- NumPy's gufuncs ---- */

/* set_patched(on): have NumPy's gufuncs run nkblas's loops, or their own again. */
PyObject *set_patched(PyObject *self, PyObject *args)
{
    static int is_patched;
    int on;
    (void)self;
    if (!PyArg_ParseTuple(args, "p", &on))
        return NULL;
    if (on == is_patched)
        Py_RETURN_NONE;
    for (int g = 0; g < gufunc_count; g++) {
        product_gufunc *x = &gufuncs[g];
        for (int i = 0; i < x->numpy->ntypes; i++) {
            const char *types = &x->numpy->types[3 * i];
            const int signature[] = {types[0], types[1], types[2]};
            PyUFunc_ReplaceLoopBySignature(x->numpy,
                                           on ? loop_functions[g][i] : x->unpatched_loops[i],
                                           signature, on ? &x->unpatched_loops[i] : NULL);
        }
        set_fast_gufunc(x->numpy, on);
    }
    is_patched = on;
    Py_RETURN_NONE;
}

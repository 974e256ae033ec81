/* The cache of recipes: a call's key, the lookup, and the call of Python that derives a recipe. */
#include "numpy_ext.h"

/* The names that api/recipes.py knows the functions by. */
static const char *const names[PRODUCT_RULES] = {
    [MATMUL] = "matmul", [VECDOT] = "vecdot", [MATVEC] = "matvec",
    [VECMAT] = "vecmat", [DOT] = "dot",       [INNER] = "inner",
    [VDOT] = "vdot",     [EINSUM] = "einsum", [TENSORDOT] = "tensordot",
};

static PyObject *make_recipe, *numpy_functions[PRODUCT_RULES];

PyObject *register_planner(PyObject *self, PyObject *args)
{
    PyObject *maker, *functions;
    (void)self;
    if (!PyArg_ParseTuple(args, "OO!", &maker, &PyDict_Type, &functions))
        return NULL;
    Py_XSETREF(make_recipe, Py_NewRef(maker));
    for (int rule = 0; rule < PRODUCT_RULES; rule++)
        Py_XSETREF(numpy_functions[rule], Py_XNewRef(PyDict_GetItemString(functions, names[rule])));
    Py_RETURN_NONE;
}

PyObject *numpy_function(product_rule rule) { return numpy_functions[rule]; }

/* ---- keys ---- */

int add_array(recipe_key *key, PyArrayObject *array)
{
    int type = PyArray_TYPE(array), ndim = PyArray_NDIM(array);
    if (!has_recipes(type))
        return 0;
    int is_native = PyArray_ISNOTSWAPPED(array) != 0, is_aligned = PyArray_ISALIGNED(array) != 0;
    add_word(key, type << 8 | ndim << 2 | is_native << 1 | is_aligned);
    for (int i = 0; i < ndim; i++) {
        add_word(key, PyArray_DIM(array, i));
        add_word(key, PyArray_STRIDE(array, i));
    }
    return 1;
}

static uint64_t hash_of(const recipe_key *key)
{
    uint64_t hash = key->text ? (uint64_t)PyObject_Hash(key->text) : 0;
    for (int i = 0; i < key->words; i++) {
        hash = (hash ^ (uint64_t)key->word[i]) * 0x9e3779b97f4a7c15; /* 2**64 / golden ratio */
        hash ^= hash >> 32;
    }
    return hash;
}

static int has_key(const recipe *x, const recipe_key *key, uint64_t hash)
{
    return x->hash == hash && x->words == key->words &&
           !memcmp(x->key, key->word, (size_t)key->words * sizeof *key->word) &&
           (x->text == key->text ||
            (x->text && key->text && !PyUnicode_Compare(x->text, key->text)));
}

/* ---- recipes from Python ---- */

void release_recipe(recipe *x)
{
    if (!x || --x->references)
        return;
    Py_XDECREF(x->text);
    for (int i = 0; i < 2; i++) {
        Py_XDECREF(x->operands[i].presum);
        Py_XDECREF(x->operands[i].ones);
    }
    PyMem_Free(x);
}

/* Read a tuple of integers; returns their number, -1: there are more than `max`. */
static int read_integers(PyObject *tuple, npy_intp *to, Py_ssize_t max)
{
    Py_ssize_t size = PyTuple_GET_SIZE(tuple);
    for (Py_ssize_t i = 0; i < size && size <= max; i++)
        to[i] = PyLong_AsSsize_t(PyTuple_GET_ITEM(tuple, i));
    return size <= max ? (int)size : -1;
}

/* Read a transposition or None. */
static int read_copy(copy_recipe *x, PyObject *axes)
{
    x->ndim = axes == Py_None ? -1 : read_integers(axes, x->axes, MAX_DIMENSIONS);
    return axes == Py_None || x->ndim >= 0;
}

static int read_operand(operand_recipe *x, PyObject *from)
{
    PyObject *presum, *ones, *copy;
    if (!PyArg_ParseTuple(from, "OO(nnnn)O", &presum, &ones, &x->rows, &x->columns, &x->rs, &x->cs,
                          &copy))
        return 0;
    x->presum = presum == Py_None ? NULL : Py_NewRef(presum);
    x->ones = ones == Py_None ? NULL : (PyArrayObject *)Py_NewRef(ones);
    return read_copy(&x->copy, copy);
}

/* Read an api.recipes.Recipe; 0: it is too large, or an exception is set. */
static int read_recipe(recipe *x, PyObject *from)
{
    PyObject *strides, *stack, *shape, *result_strides, *a, *b, *target;
    if (!PyArg_ParseTuple(from, "ip(nnn)O!O!O!O!OOO", &x->type, &x->presums_floats, &x->m, &x->n,
                          &x->k, &PyTuple_Type, &strides, &PyTuple_Type, &stack, &PyTuple_Type,
                          &shape, &PyTuple_Type, &result_strides, &a, &b, &target))
        return 0;
    npy_intp dimensions[4 * MAX_DIMENSIONS];
    int numbers = read_integers(stack, dimensions, 4 * MAX_DIMENSIONS);
    x->ndim = read_integers(shape, x->shape, MAX_DIMENSIONS);
    if (numbers < 0 || x->ndim < 0)
        return 0;
    x->stack_ndim = numbers / 4;
    for (int i = 0; i < x->stack_ndim; i++) {
        npy_intp *d = &dimensions[4 * i];
        x->stack[i] = (stack_dimension){d[0], {d[1], d[2], d[3]}};
    }
    read_integers(strides, x->strides, 6);
    read_integers(result_strides, x->result_strides, MAX_DIMENSIONS);
    return read_operand(&x->operands[0], a) && read_operand(&x->operands[1], b) &&
           read_copy(&x->target, target) && !PyErr_Occurred();
}

static recipe *new_recipe(const recipe_key *key, uint64_t hash, PyObject *from)
{
    size_t key_size = (size_t)key->words * sizeof *key->word;
    recipe *x = PyMem_Calloc(1, sizeof *x + key_size);
    if (!x)
        return (recipe *)PyErr_NoMemory();
    x->references = 1;
    x->text = Py_XNewRef(key->text);
    x->hash = hash;
    x->words = key->words;
    memcpy(x->key, key->word, key_size);
    x->kind = from == Py_None ? BY_PYTHON : PyBool_Check(from) ? BY_NUMPY : BY_ENGINE;
    x->is_fallback = from == Py_True;
    if (x->kind == BY_ENGINE && !read_recipe(x, from))
        x->kind = BY_PYTHON;
    if (PyErr_Occurred()) {
        release_recipe(x);
        return NULL;
    }
    return x;
}

/* ---- the cache ---- */

enum { SETS = 256, WAYS = 4 };
static recipe *cache[SETS][WAYS];

/* Whether a call is worth the derivation of its recipe. The functions that are no gufuncs need one, or
   Python. A recipe saves a gufunc about a hundredth of the time in which it is derived: a program whose
   stacks grow with each call would only lose. Calls are counted by hash: kinds may share a counter. */
static int is_worth_recipe(const recipe_key *key, uint64_t hash)
{
    enum { MIN_GUFUNC_CALLS = 64, COUNTERS = 4096 };
    static uint8_t calls[COUNTERS];
    uint8_t *count = &calls[hash / SETS % COUNTERS];
    if (key->word[0] > VECMAT)
        return 1;
    *count = (uint8_t)((*count + 1) % MIN_GUFUNC_CALLS);
    return *count == 0;
}

/* Derive a recipe in Python. */
static recipe *derive(const recipe_key *key, uint64_t hash, PyObject *what,
                      PyArrayObject *const *operands, Py_ssize_t count, PyObject *options)
{
    PyObject *args[3 + NPY_MAXARGS];
    if (!make_recipe)
        return NULL;
    args[0] = PyUnicode_FromString(names[key->word[0]]);
    if (!args[0])
        return NULL;
    args[1] = what ? what : Py_None;
    args[2] = options ? options : Py_None;
    for (Py_ssize_t i = 0; i < count; i++)
        args[3 + i] = (PyObject *)operands[i];
    PyObject *from = PyObject_Vectorcall(make_recipe, args, (size_t)(3 + count), NULL);
    Py_DECREF(args[0]);
    recipe *x = from ? new_recipe(key, hash, from) : NULL;
    Py_XDECREF(from);
    return x;
}

recipe *find_recipe(const recipe_key *key, PyObject *what, PyArrayObject *const *operands,
                    Py_ssize_t count, PyObject *options)
{
    static unsigned next_way;
    if (key->words > MAX_KEY_WORDS)
        return NULL;
    uint64_t hash = hash_of(key);
    recipe **set = cache[hash % SETS];
    for (int way = 0; way < WAYS; way++)
        if (set[way] && has_key(set[way], key, hash)) {
            set[way]->references++;
            return set[way];
        }
    recipe *x = NULL;
    if (is_worth_recipe(key, hash))
        x = derive(key, hash, what, operands, count, options);
    if (!x)
        return NULL;
    recipe **slot = &set[next_way++ % WAYS];
    recipe *replaced = *slot;
    *slot = x;
    x->references++;
    release_recipe(replaced);
    return x;
}

/* Blocks on the diagonal of a triangular matrix: products and systems in place, by generated kernels.

   An upper triangle becomes a lower one with rows and columns in reverse order. The columns of B are
   divided into strips of the kernel's width. A kernel works on rows of strips that are contiguous: those
   of a row-major B in place, others in a panel. */
#include <complex.h>
#include <string.h>

#include "level3.h"

/* One block. */
typedef struct {
    const nk_plan *plan;
    nk_triangular kernel;
    int is_bottom_up; /* a product's rows depend on those before them as they were */
    int is_complex;
    int64_t itemsize, m, n, chunks;
    nk_matrix a, b;
    const char *diagonal;  /* what the kernel multiplies rows with, padded to whole tiles */
    const char *last_rows; /* of A: those of the last tile, padded; NULL: they are whole */
    double alpha, alpha_imag, imag_sign;
} block;

/* The largest buffers: a kernel has at most MAX_MR rows and two vectors. */
enum { MAX_MR = 8, MAX_NR_BYTES = 128, MAX_ROWS = NK_TRIANGULAR_ROWS + MAX_MR, MAX_ITEMSIZE = 16 };

/* ---- alpha and conjugates: conj(A) @ X is conj(A @ conj(X)) ---- */

#define DEFINE_SCALE(name, real, complex_type)                                                     \
    static void name##_complex(complex_type *x, int64_t n, double re, double im, double sign)      \
    {                                                                                              \
        complex_type alpha = (complex_type)CMPLX(re, im);                                          \
        for (int64_t i = 0; i < n; i++) {                                                          \
            complex_type value = alpha * x[i];                                                     \
            x[i] = sign < 0 ? (complex_type)conj(value) : value;                                   \
        }                                                                                          \
    }                                                                                              \
    static void name(real *x, int64_t n, double re, double sign)                                   \
    {                                                                                              \
        real even = (real)re, odd = (real)(re * sign);                                             \
        for (int64_t i = 0; i + 1 < n; i += 2)                                                     \
            x[i] *= even, x[i + 1] *= odd;                                                         \
        if (n % 2)                                                                                 \
            x[n - 1] *= even;                                                                      \
    }

DEFINE_SCALE(scale_float, float, float complex)
DEFINE_SCALE(scale_double, double, double complex)

/* Rows of a strip times a number, and then the conjugates of them. */
static void scale_rows(const block *x, char *rows, int64_t distance, int64_t columns, double re,
                       double im)
{
    if (re == 1 && im == 0 && x->imag_sign > 0)
        return;
    int64_t parts = x->is_complex ? 2 : 1, part = x->itemsize / parts;
    double sign = x->is_complex ? x->imag_sign : 1;
    for (int64_t i = 0; i < x->m; i++) {
        void *row = rows + i * distance * x->itemsize;
        if (im != 0 && part == sizeof(float))
            scale_float_complex(row, columns, re, im, sign);
        else if (im != 0)
            scale_double_complex(row, columns, re, im, sign);
        else if (part == sizeof(float))
            scale_float(row, parts * columns, re, sign);
        else
            scale_double(row, parts * columns, re, sign);
    }
}

/* ---- the diagonal ---- */

#define DEFINE_DIAGONAL(name, type)                                                                \
    static void name(const nk_stored *a, int solves, int64_t m, int64_t padded, void *target)      \
    {                                                                                              \
        type *out = target;                                                                        \
        const type *diagonal = (const type *)a->matrix.data;                                       \
        for (int64_t i = 0; i < padded; i++) {                                                     \
            out[i] = i >= m || a->is_unit ? 1 : diagonal[i * (a->matrix.rs + a->matrix.cs)];       \
            if (solves && i < m && !a->is_unit)                                                    \
                out[i] = 1 / out[i];                                                               \
        }                                                                                          \
    }

DEFINE_DIAGONAL(diagonal_s, float)
DEFINE_DIAGONAL(diagonal_d, double)
DEFINE_DIAGONAL(diagonal_c, float complex)
DEFINE_DIAGONAL(diagonal_z, double complex)

static void fill_diagonal(int32_t dtype, const nk_stored *a, int solves, int64_t m, int64_t padded,
                          void *target)
{
    switch (dtype) {
    case NK_FLOAT32: diagonal_s(a, solves, m, padded, target); break;
    case NK_FLOAT64: diagonal_d(a, solves, m, padded, target); break;
    case NK_COMPLEX64: diagonal_c(a, solves, m, padded, target); break;
    case NK_COMPLEX128: diagonal_z(a, solves, m, padded, target); break;
    }
}

/* ---- strips ---- */

/* Copy a strip of B to a panel, or back. */
static void copy_strip(const block *x, nk_matrix b, nk_matrix panel, int64_t columns, int is_back)
{
    int is_column_major = b.rs == 1 || b.rs == -1;
    nk_matrix from = is_back ? panel : b, to = is_back ? b : panel;
    if (b.cs == 1) {
        for (int64_t i = 0; i < x->m; i++)
            nk_copy_row(nk_element(to, i, 0, x->itemsize), nk_element(from, i, 0, x->itemsize),
                        columns * x->itemsize);
        return;
    }
    if (!is_column_major) {
        x->plan->copy(x->m, columns, from.data, from.rs, from.cs, to.data, to.rs, to.cs);
        return;
    }
    if (b.rs == -1) { /* in the order of memory */
        from = nk_offset(from, (x->m - 1) * from.rs, x->itemsize), from.rs = -from.rs;
        to = nk_offset(to, (x->m - 1) * to.rs, x->itemsize), to.rs = -to.rs;
    }
    if (is_back)
        x->plan->mirror(x->m, columns, from.data, from.rs, to.data, to.cs);
    else
        x->plan->mirror(columns, x->m, from.data, from.cs, to.data, to.rs);
}

static void run_strip(const block *x, int64_t column, char *panel)
{
    const nk_plan *plan = x->plan;
    int64_t mr = plan->m.tile, nr = plan->n.tile, tiles = (x->m + mr - 1) / mr;
    int64_t columns = nk_min(nr, x->n - column), itemsize = x->itemsize;
    nk_matrix b = nk_block(x->b, 0, column, itemsize), rows = b;
    int is_in_place = b.cs == 1 && columns == nr && !x->last_rows;
    if (!is_in_place) {
        rows = (nk_matrix){panel, nr, 1, 0};
        if (columns < nr || x->last_rows)
            memset(panel, 0, (size_t)(tiles * mr * nr * itemsize));
        copy_strip(x, b, rows, columns, 0);
    }
    scale_rows(x, rows.data, rows.rs, columns, x->alpha, x->alpha_imag);
    for (int64_t t = 0; t < tiles; t++) {
        int64_t k = (x->is_bottom_up ? tiles - 1 - t : t) * mr;
        nk_matrix a = nk_block(x->a, k, 0, itemsize);
        if (x->last_rows && k + mr > x->m)
            a = (nk_matrix){(char *)x->last_rows, tiles * mr, 1, 0};
        x->kernel(k, a.data, a.rs, a.cs, x->diagonal + k * itemsize, rows.data, rows.rs);
    }
    scale_rows(x, rows.data, rows.rs, columns, 1, 0);
    if (!is_in_place)
        copy_strip(x, b, rows, columns, 1);
}

static void run_chunk(void *argument, int64_t chunk)
{
    block *x = argument;
    int64_t nr = x->plan->n.tile, strips = (x->n + nr - 1) / nr;
    _Alignas(64) char panel[MAX_ROWS * MAX_NR_BYTES];
    for (int64_t s = strips * chunk / x->chunks; s < strips * (chunk + 1) / x->chunks; s++)
        run_strip(x, s * nr, panel);
}

/* ---- blocks ---- */

int nk_find_triangular(int32_t dtype, nk_plan *plan)
{
    enum { SIDE = NK_TRIANGULAR_ROWS };
    nk_problem problem = {SIDE, SIDE, SIDE, .dtype = (int8_t)dtype, .structure = NK_TRIANGULAR};
    return nk_find_plan(&problem, plan);
}

/* The same matrix in the reverse order of rows, and of columns. */
static nk_matrix reversed(nk_matrix x, int64_t m, int64_t n, int64_t itemsize)
{
    x.data = nk_element(x, m - 1, n - 1, itemsize);
    x.rs = -x.rs, x.cs = -x.cs;
    return x;
}

void nk_triangular_block(const nk_plan *plan, int solves, nk_stored a, int64_t m, int64_t n,
                         nk_matrix b, const nk_call_args *alpha)
{
    _Alignas(64) char diagonal[MAX_ROWS * MAX_ITEMSIZE],
        last_rows[MAX_MR * MAX_ROWS * MAX_ITEMSIZE];
    int32_t dtype = plan->problem.dtype;
    int64_t itemsize = nk_itemsizes_of(dtype)->c, mr = plan->m.tile, nr = plan->n.tile;
    int64_t padded = (m + mr - 1) / mr * mr;
    if (a.triangle == NK_UPPER) {
        a.matrix = reversed(a.matrix, m, m, itemsize);
        b = reversed(b, m, 1, itemsize), b.cs = -b.cs;
    }
    fill_diagonal(dtype, &a, solves, m, padded, diagonal);
    if (padded > m) {
        int64_t first = padded - mr;
        nk_matrix rows = nk_block(a.matrix, first, 0, itemsize);
        memset(last_rows, 0, (size_t)(mr * padded * itemsize));
        /* not beyond the diagonal */
        plan->copy(m - first, first, rows.data, rows.rs, rows.cs, last_rows, padded, 1);
        for (int64_t i = 1; i < m - first; i++)
            plan->copy(1, i, nk_element(rows, i, first, itemsize), rows.rs, rows.cs,
                       last_rows + (i * padded + first) * itemsize, padded, 1);
    }
    block x = {
        .plan = plan,
        .kernel = solves ? plan->solve : plan->multiply,
        .is_bottom_up = !solves,
        .is_complex = nk_is_complex(dtype),
        .itemsize = itemsize,
        .m = m,
        .n = n,
        .a = a.matrix,
        .b = b,
        .diagonal = diagonal,
        .last_rows = padded > m ? last_rows : NULL,
        .alpha = alpha->alpha,
        .alpha_imag = alpha->alpha_imag,
        .imag_sign = a.imag_sign,
    };
    double side = (double)plan->problem.m; /* plan->nanoseconds is the time of a cube */
    double nanoseconds = plan->nanoseconds * (double)(m * m * n) / (side * side * side);
    int32_t threads = nk_threads_for(nanoseconds, nk_get_num_threads());
    x.chunks = nk_min(threads, (n + nr - 1) / nr);
    nk_parallel(threads, nanoseconds, x.chunks, run_chunk, &x);
}

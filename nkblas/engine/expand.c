/* A symmetric or Hermitian matrix of which one triangle is stored, as a full one. */
#include <complex.h>

#include "level3.h"

/* Copy the stored triangle of an m x m matrix with contiguous rows to `full`, and mirror it: first some
   rows at once, with their squares on the diagonal, of which the stored half is copied afterwards. */
static void copy_and_mirror(const nk_plan *plan, nk_matrix x, nk_triangle triangle, int64_t m,
                            nk_matrix full, int64_t itemsize)
{
    enum { ROWS = 16 };
    int is_lower = triangle == NK_LOWER;
    for (int64_t i0 = 0; i0 < m; i0 += ROWS) {
        int64_t i1 = nk_min(i0 + ROWS, m);
        int64_t column = is_lower ? 0 : i0, columns = is_lower ? i1 : m - i0;
        plan->mirror(i1 - i0, columns, nk_element(x, i0, column, itemsize), x.rs,
                     nk_element(full, column, i0, itemsize), full.rs);
        for (int64_t i = i0; i < i1; i++) {
            int64_t first = is_lower ? 0 : i, count = is_lower ? i + 1 : m - i;
            nk_copy_row(nk_element(full, i, first, itemsize), nk_element(x, i, first, itemsize),
                        count * itemsize);
        }
    }
}

#define DEFINE_CONJUGATE_COPY(name, type, conjugate, real_part)                                    \
    static void name(const nk_stored *x, int64_t m, type *full, int64_t ld)                        \
    {                                                                                              \
        int is_hermitian = x->kind == NK_HERMITIAN, is_lower = x->triangle == NK_LOWER;            \
        int is_conj = x->imag_sign < 0, is_mirrored_conj = is_conj != is_hermitian;                \
        for (int64_t i = 0; i < m; i++) {                                                          \
            const type *row = (const type *)x->matrix.data + i * x->matrix.rs;                     \
            for (int64_t j = is_lower ? 0 : i; j < (is_lower ? i + 1 : m); j++) {                  \
                type value = row[j * x->matrix.cs];                                                \
                full[i * ld + j] = is_conj ? conjugate(value) : value;                             \
                full[j * ld + i] = is_mirrored_conj ? conjugate(value) : value;                    \
            }                                                                                      \
            if (is_hermitian)                                                                      \
                full[i * ld + i] = real_part(full[i * ld + i]);                                    \
        }                                                                                          \
    }

DEFINE_CONJUGATE_COPY(conjugate_copy_c, float complex, conjf, crealf)
DEFINE_CONJUGATE_COPY(conjugate_copy_z, double complex, conj, creal)

nk_matrix nk_expand(const nk_plan *plan, nk_stored x, int64_t m, int is_row_major, char *target,
                    int64_t ld)
{
    int32_t dtype = plan->problem.dtype;
    int64_t itemsize = nk_itemsizes_of(dtype)->c;
    nk_matrix full = {target, ld, 1, 0};
    int is_transposed = x.matrix.cs != 1 && x.matrix.rs == 1;
    if (is_transposed) {
        x.matrix = nk_transposed(x.matrix);
        x.triangle = nk_transposed_triangle(x.triangle);
    }
    if (x.kind == NK_HERMITIAN && is_transposed == is_row_major)
        x.imag_sign = -x.imag_sign; /* the transpose of a Hermitian matrix is its conjugate */
    int is_plain = x.kind == NK_SYMMETRIC && x.imag_sign > 0;
    if (is_plain && x.matrix.cs != 1) { /* to rows behind the full copy */
        nk_matrix rows = {target + m * ld * itemsize, ld, 1, 0};
        plan->copy(m, m, x.matrix.data, x.matrix.rs, x.matrix.cs, rows.data, rows.rs, 1);
        x.matrix = rows;
    }
    if (is_plain)
        copy_and_mirror(plan, x.matrix, x.triangle, m, full, itemsize);
    else if (dtype == NK_COMPLEX64)
        conjugate_copy_c(&x, m, (float complex *)target, ld);
    else
        conjugate_copy_z(&x, m, (double complex *)target, ld);
    return is_row_major ? full : nk_transposed(full);
}

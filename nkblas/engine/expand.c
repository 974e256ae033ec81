/* A symmetric or Hermitian matrix of which one triangle is stored, as a full one. */
#include "level3.h"

typedef struct {
    float re, im;
} complex_float;

typedef struct {
    double re, im;
} complex_double;

#define UNCHANGED(x, sign) (x)
#define SCALE_IMAGINARY(x, sign) ((x).im *= (sign), (x))
#define KEEP(x) ((void)0)
#define CLEAR_IMAGINARY(x) ((x).im = 0)

/* Rows of the stored lower triangle, which are contiguous or nearly so, are read in order; the mirrored
   elements are written a square at a time, so that their lines stay in L1. */
enum { SQUARE = 16 };

#define DEFINE_EXPAND(name, type, conjugate, clear_imaginary)                                      \
    static void name(const nk_stored *x, int64_t m, char *target, int64_t ld)                      \
    {                                                                                              \
        type *out = (type *)target;                                                                \
        int64_t rs = x->matrix.rs, cs = x->matrix.cs;                                              \
        double sign = x->imag_sign, mirrored_sign = x->kind == NK_HERMITIAN ? -sign : sign;        \
        (void)sign, (void)mirrored_sign;                                                           \
        for (int64_t i0 = 0; i0 < m; i0 += SQUARE)                                                 \
            for (int64_t j0 = 0; j0 <= i0; j0 += SQUARE)                                           \
                for (int64_t i = i0; i < nk_min(i0 + SQUARE, m); i++) {                            \
                    const type *row = (const type *)x->matrix.data + i * rs;                       \
                    int64_t end = nk_min(j0 + SQUARE, i);                                          \
                    for (int64_t j = j0; j < end; j++) {                                           \
                        type value = row[j * cs];                                                  \
                        out[i * ld + j] = conjugate(value, sign);                                  \
                    }                                                                              \
                    for (int64_t j = j0; j < end; j++) {                                           \
                        type value = row[j * cs];                                                  \
                        out[j * ld + i] = conjugate(value, mirrored_sign);                         \
                    }                                                                              \
                }                                                                                  \
        for (int64_t i = 0; i < m; i++) {                                                          \
            type value = ((const type *)x->matrix.data)[i * (rs + cs)];                            \
            value = conjugate(value, sign);                                                        \
            if (x->kind == NK_HERMITIAN)                                                           \
                clear_imaginary(value);                                                            \
            out[i * ld + i] = value;                                                               \
        }                                                                                          \
    }

DEFINE_EXPAND(expand_s, float, UNCHANGED, KEEP)
DEFINE_EXPAND(expand_d, double, UNCHANGED, KEEP)
DEFINE_EXPAND(expand_c, complex_float, SCALE_IMAGINARY, CLEAR_IMAGINARY)
DEFINE_EXPAND(expand_z, complex_double, SCALE_IMAGINARY, CLEAR_IMAGINARY)

nk_matrix nk_expand(int32_t dtype, nk_stored x, int64_t m, char *target, int64_t ld)
{
    /* as a row-major lower triangle, or the transpose of one: then elements of a row are adjacent */
    int is_transposed = x.triangle == NK_UPPER;
    if (is_transposed)
        x.matrix = nk_transposed(x.matrix);
    switch (dtype) {
    case NK_FLOAT32: expand_s(&x, m, target, ld); break;
    case NK_FLOAT64: expand_d(&x, m, target, ld); break;
    case NK_COMPLEX64: expand_c(&x, m, target, ld); break;
    case NK_COMPLEX128: expand_z(&x, m, target, ld); break;
    }
    nk_matrix full = {target, ld, 1, 0};
    return is_transposed ? nk_transposed(full) : full;
}

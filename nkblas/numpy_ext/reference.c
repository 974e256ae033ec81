/* Products element by element: where the engine has no kernel (no compiler, say) and NumPy has no
   loop, or one that writes outside of C. */
#include <math.h>

#include "numpy_ext.h"

static double float16_value(uint16_t bits)
{
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                       : exponent     ? ldexp(1024 + mantissa, exponent - 25)
                                      : ldexp(mantissa, -24);
    return bits >> 15 ? -magnitude : magnitude;
}

static float bfloat16_value(uint16_t bits)
{
    uint32_t float_bits = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &float_bits, sizeof value);
    return value;
}

/* To the nearest, ties to even; a NaN stays one. */
static uint16_t round_to_bfloat16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = value == value ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000;
    return (uint16_t)(bits >> 16);
}

/* An element of an operand of a product that NumPy has no loop for. */
static double read_element(const char *x, nk_type type)
{
    uint16_t half;
    switch (type) {
    case NK_TYPE_INT8: return *(const int8_t *)x;
    case NK_TYPE_UINT8: return *(const uint8_t *)x;
    case NK_TYPE_FLOAT16: memcpy(&half, x, sizeof half); return float16_value(half);
    case NK_TYPE_BFLOAT16: memcpy(&half, x, sizeof half); return bfloat16_value(half);
    default: return float8_values[type][*(const uint8_t *)x];
    }
}

/* Store a sum as float32 or bfloat16. */
static void store_float(float sum, char *c, nk_type type)
{
    if (type == NK_TYPE_BFLOAT16)
        memcpy(c, &(uint16_t){round_to_bfloat16(sum)}, 2);
    else
        memcpy(c, &sum, sizeof sum);
}

void reference_product(int dtype, npy_intp m, npy_intp n, npy_intp k, nk_matrix a, nk_matrix b,
                       nk_matrix c)
{
    const nk_product *types = &nk_products[dtype];
    int is_integer = types->c == NK_TYPE_INT32;
    for (npy_intp i = 0; i < m; i++)
        for (npy_intp j = 0; j < n; j++) {
            double sum = 0;
            int64_t integer_sum = 0;
            for (npy_intp p = 0; p < k; p++) {
                double product = read_element(a.data + i * a.rs + p * a.cs, types->a) *
                                 read_element(b.data + p * b.rs + j * b.cs, types->b);
                sum += product;
                if (is_integer)
                    integer_sum += (int64_t)product;
            }
            char *element = c.data + i * c.rs + j * c.cs;
            if (is_integer) /* wraps */
                memcpy(element, &(int32_t){(int32_t)(uint32_t)integer_sum}, 4);
            else
                store_float((float)sum, element, types->c);
        }
}

static void read_complex(const char *x, nk_type type, double parts[2])
{
    if (type == NK_TYPE_COMPLEX128) {
        memcpy(parts, x, 16);
        return;
    }
    float narrow[2];
    memcpy(narrow, x, sizeof narrow);
    parts[0] = narrow[0], parts[1] = narrow[1];
}

static void store_complex(double re, double im, char *c, nk_type type)
{
    if (type == NK_TYPE_COMPLEX128)
        memcpy(c, (double[]){re, im}, 16);
    else
        memcpy(c, (float[]){(float)re, (float)im}, 8);
}

void reference_complex_product(int dtype, int conjugate_a, npy_intp m, npy_intp n, npy_intp k,
                               nk_matrix a, nk_matrix b, nk_matrix c)
{
    nk_type type = nk_products[dtype].c;
    double imag_sign = conjugate_a ? -1 : 1;
    for (npy_intp i = 0; i < m; i++)
        for (npy_intp j = 0; j < n; j++) {
            double re = 0, im = 0;
            for (npy_intp p = 0; p < k; p++) {
                double x[2], y[2];
                read_complex(a.data + i * a.rs + p * a.cs, type, x);
                read_complex(b.data + p * b.rs + j * b.cs, type, y);
                x[1] *= imag_sign;
                re += x[0] * y[0] - x[1] * y[1];
                im += x[0] * y[1] + x[1] * y[0];
            }
            store_complex(re, im, c.data + i * c.rs + j * c.cs, type);
        }
}

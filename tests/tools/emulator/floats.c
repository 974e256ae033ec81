/* bfloat16 and float16: conversions, and dot products accumulated in float32. */
#include <math.h>
#include <string.h>

#include "emulator.h"

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* A NaN becomes quiet and keeps its payload. */
static float quiet(float x) { return float_of(bits_of(x) | 1u << 22); }

/* ---- conversions */

float bf16_to_float(uint16_t x) { return float_of((uint32_t)x << 16); }

/* To nearest, ties to even; denormals count as zero. */
uint16_t float_to_bf16(uint32_t bits)
{
    if ((bits & 0x7FFFFFFF) > 0x7F800000) /* a NaN becomes quiet */
        return (uint16_t)(bits >> 16 | 1 << 6);
    if (!(bits & 0x7F800000))
        return (uint16_t)(bits >> 16 & 0x8000);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* Exact; denormals keep their values. */
double half_to_double(uint16_t x)
{
    int exponent = x >> 10 & 31, fraction = x & 1023;
    double magnitude;
    if (exponent == 31) {
        uint64_t bits = 2047ull << 52 | (uint64_t)fraction << 42 | (uint64_t)!!fraction << 51;
        memcpy(&magnitude, &bits, sizeof magnitude);
    } else if (exponent == 0) {
        magnitude = fraction * 0x1p-24;
    } else {
        uint64_t bits = (uint64_t)(exponent + 1008) << 52 | (uint64_t)fraction << 42;
        memcpy(&magnitude, &bits, sizeof magnitude);
    }
    return copysign(magnitude, x & 0x8000 ? -1.0 : 1.0);
}

float half_to_float(uint16_t x) { return (float)half_to_double(x); }

/* To nearest, ties to even. */
uint16_t double_to_half(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 48 & 0x8000);
    int exponent = (int)(bits >> 52 & 2047) - 1023;
    if (x != x)
        return (uint16_t)(sign | 0x7E00 | (bits >> 42 & 1023));
    if (exponent > 15)
        return sign | 0x7C00;
    if (exponent < -14) /* in units of the smallest denormal */
        return (uint16_t)(sign | (uint16_t)nearbyint(fabs(x) * 0x1p24));
    /* the fraction's first 10 bits; a carry goes to the exponent, up to infinity */
    bits &= ~(uint64_t)0 >> 1;
    bits += ((uint64_t)1 << 41) - 1 + (bits >> 42 & 1);
    return (uint16_t)(sign | (uint16_t)((bits >> 42) - ((uint64_t)1008 << 10)));
}

/* ---- dot products

   Denormal inputs and results count as zero, rounding is to nearest, ties to even, and no exception
   is raised, independent of MXCSR: the host's arithmetic runs with another value of MXCSR. */

uint32_t flush_denormals(void)
{
    uint32_t before = __builtin_ia32_stmxcsr();
    __builtin_ia32_ldmxcsr(0x1F80 | 1 << 15 | 1 << 6);
    return before;
}

void restore_denormals(uint32_t before) { __builtin_ia32_ldmxcsr(before); }

/* c = a b + c, rounded once. The result is the first NaN of a, b, c. The compiler does not know that
   arithmetic depends on MXCSR, so this is not inlined. */
__attribute__((noinline)) void multiply_add(const float *a, const float *b, float *c, int count)
{
    for (int n = 0; n < count; n++) {
        float result = fmaf(a[n], b[n], c[n]);
        result = c[n] != c[n] ? quiet(c[n]) : result;
        result = b[n] != b[n] ? quiet(b[n]) : result;
        c[n] = a[n] != a[n] ? quiet(a[n]) : result;
    }
}

/* c += a + b, each sum rounded. The result is the first NaN of c, a, b. */
__attribute__((noinline)) void add_sum(const float *a, const float *b, float *c, int count)
{
    for (int n = 0; n < count; n++) {
        float result = c[n] + (a[n] + b[n]);
        result = b[n] != b[n] ? quiet(b[n]) : result;
        result = a[n] != a[n] ? quiet(a[n]) : result;
        c[n] = c[n] != c[n] ? quiet(c[n]) : result;
    }
}

/* The even or the odd elements of 2 `count`. */
void widen(const uint16_t *x, int kind, int which, float *result, int count)
{
    for (int n = 0; n < count; n++)
        result[n] = (kind == BF16 ? bf16_to_float : half_to_float)(x[2 * n + which]);
}

/* vdpbf16ps, vdpphps: the product of the odd elements is added first. */
int dot_floats(machine *m, const instruction *i)
{
    int kind = i->entry->variant, count = i->vl / 4;
    vector a = m->zmm[i->vvvv], b = source(m, i), c = m->zmm[i->reg];
    for (int which = ODD; which >= EVEN; which--) {
        float wide_a[16], wide_b[16];
        widen(a.u16, kind, which, wide_a, count);
        widen(b.u16, kind, which, wide_b, count);
        uint32_t before = flush_denormals();
        multiply_add(wide_a, wide_b, c.f32, count);
        restore_denormals(before);
    }
    write_elements(m, i, &c, 4, count);
    return 1;
}

/* ---- AVX-NE-CONVERT, and the conversions of AVX512-BF16 */

/* vcvtne{e,o}{bf16,ph}2ps */
int convert_every_other(machine *m, const instruction *i)
{
    vector x = source(m, i), result = {0};
    widen(x.u16, i->entry->variant & 1, i->entry->variant >> 1, result.f32, i->vl / 4);
    write_elements(m, i, &result, 4, i->vl / 4);
    return 1;
}

/* vbcstne{bf16,sh}2ps */
int broadcast_one(machine *m, const instruction *i)
{
    vector x = source(m, i), result = {0};
    for (int n = 0; n < i->vl / 4; n++)
        widen(x.u16, i->entry->variant, EVEN, &result.f32[n], 1);
    write_elements(m, i, &result, 4, i->vl / 4);
    return 1;
}

/* vcvtneps2bf16 */
int round_to_bf16(machine *m, const instruction *i)
{
    vector x = source(m, i), result = {0};
    for (int n = 0; n < i->vl / 4; n++)
        result.u16[n] = float_to_bf16(x.u32[n]);
    write_elements(m, i, &result, 2, i->vl / 4);
    return 1;
}

/* vcvtne2ps2bf16: the last operand becomes the lower half. */
int round_two_to_bf16(machine *m, const instruction *i)
{
    int count = i->vl / 4;
    instruction whole = *i;
    whole.k = 0; /* the mask applies to elements of the result: all are read */
    vector low = source(m, &whole), high = m->zmm[i->vvvv], result = {0};
    for (int n = 0; n < count; n++) {
        result.u16[n] = float_to_bf16(low.u32[n]);
        result.u16[count + n] = float_to_bf16(high.u32[n]);
    }
    write_elements(m, i, &result, 2, 2 * count);
    return 1;
}

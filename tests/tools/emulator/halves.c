/* AVX512-FP16. Rounding is to nearest, as in a program that has not changed the mode. */
#include <math.h>

#include "emulator.h"

static int is_nan(uint16_t x) { return (x & 0x7FFF) > 0x7C00; }

static uint16_t quiet(uint16_t x) { return x | 0x0200; }

static int elements(const instruction *i) { return i->entry->amount == SCALAR ? 1 : i->vl / 2; }

static int write_halves(machine *m, const instruction *i, const vector *result)
{
    if (i->entry->amount == SCALAR)
        write_scalar(m, i, result->u16[0], 2);
    else
        write_elements(m, i, result, 2, i->vl / 2);
    return 1;
}

/* ---- arithmetic */

/* x y + z, rounded once in effect: the product is exact, and so is the sum unless one addend is too
   small beside the other to change the rounding. The result is the first NaN of x, y, z. */
static uint16_t fma_half(uint16_t x, uint16_t y, uint16_t z)
{
    if (is_nan(x) || is_nan(y) || is_nan(z))
        return quiet(is_nan(x) ? x : is_nan(y) ? y : z);
    return double_to_half(half_to_double(x) * half_to_double(y) + half_to_double(z));
}

/* vf[n]m{add,sub}{132,213,231}{ph,sh}: `variant` is the opcode of ph. */
int half_fma(machine *m, const instruction *i)
{
    int order = i->entry->variant & 0xF0, signs = i->entry->variant & 0x0F;
    uint16_t negate_product = signs >= 0xC ? 0x8000 : 0;
    uint16_t negate_addend = signs == 0xA || signs == 0xE ? 0x8000 : 0;
    vector one = m->zmm[i->reg], two = m->zmm[i->vvvv], three = source(m, i), result = {0};
    const vector *x = order == 0x90 ? &one : &two;
    const vector *y = order == 0xA0 ? &one : &three;
    const vector *z = order == 0x90 ? &two : order == 0xA0 ? &three : &one;
    for (int n = 0; n < elements(i); n++) {
        /* a NaN keeps its sign */
        uint16_t a = x->u16[n], c = z->u16[n];
        result.u16[n] = fma_half(is_nan(a) ? a : a ^ negate_product, y->u16[n],
                                 is_nan(c) ? c : c ^ negate_addend);
    }
    if (i->entry->amount != SCALAR)
        return write_halves(m, i, &result);
    instruction onto = *i; /* the other elements come from the destination */
    onto.vvvv = i->reg;
    return write_halves(m, &onto, &result);
}

static uint16_t arithmetic(int opcode, uint16_t a, uint16_t b)
{
    double x = half_to_double(a), y = half_to_double(b);
    if (opcode == 0x5D) /* b if neither is less: NaN, zeros */
        return x < y ? a : b;
    if (opcode == 0x5F)
        return x > y ? a : b;
    if (is_nan(a) || is_nan(b))
        return quiet(is_nan(a) ? a : b);
    /* exact, or with enough digits that double rounding is harmless */
    return double_to_half(opcode == 0x58   ? x + y
                          : opcode == 0x59 ? x * y
                          : opcode == 0x5C ? x - y
                                           : x / y);
}

/* v{add,mul,sub,min,div,max}{ph,sh}: `variant` is the opcode. */
int half_arithmetic(machine *m, const instruction *i)
{
    vector a = m->zmm[i->vvvv], b = source(m, i), result = {0};
    for (int n = 0; n < elements(i); n++)
        result.u16[n] = arithmetic(i->entry->variant, a.u16[n], b.u16[n]);
    return write_halves(m, i, &result);
}

/* vsqrt{ph,sh} */
int half_root(machine *m, const instruction *i)
{
    vector x = source(m, i), result = {0};
    for (int n = 0; n < elements(i); n++)
        result.u16[n] = is_nan(x.u16[n]) ? quiet(x.u16[n])
                                         : double_to_half(sqrt(half_to_double(x.u16[n])));
    return write_halves(m, i, &result);
}

/* ---- comparisons */

enum { LESS = 1, EQUAL = 2, GREATER = 4, UNORDERED = 8 };

static int relation(uint16_t a, uint16_t b)
{
    double x = half_to_double(a), y = half_to_double(b);
    return x < y ? LESS : x > y ? GREATER : x == y ? EQUAL : UNORDERED;
}

/* vcmp{ph,sh}: a bit for each element in a mask register. Predicates n and n + 16 differ only in the
   exceptions that they raise. */
int half_compare(machine *m, const instruction *i)
{
    static const uint8_t holds[16] = {
        EQUAL,                              /* eq */
        LESS,                               /* lt */
        LESS | EQUAL,                       /* le */
        UNORDERED,                          /* unord */
        LESS | GREATER | UNORDERED,         /* neq */
        EQUAL | GREATER | UNORDERED,        /* nlt */
        GREATER | UNORDERED,                /* nle */
        LESS | EQUAL | GREATER,             /* ord */
        EQUAL | UNORDERED,                  /* eq_uq */
        LESS | UNORDERED,                   /* nge */
        LESS | EQUAL | UNORDERED,           /* ngt */
        0,                                  /* false */
        LESS | GREATER,                     /* neq_oq */
        EQUAL | GREATER,                    /* ge */
        GREATER,                            /* gt */
        LESS | EQUAL | GREATER | UNORDERED, /* true */
    };
    if (i->reg > 7 || i->imm > 31)
        return 0;
    vector a = m->zmm[i->vvvv], b = source(m, i);
    uint64_t mask = mask_of(m, i), result = 0;
    for (int n = 0; n < elements(i); n++)
        if (mask >> n & 1 && relation(a.u16[n], b.u16[n]) & holds[i->imm & 15])
            result |= (uint64_t)1 << n;
    set_mask(m, i->reg, result);
    return 1;
}

/* vucomish, vcomish */
int half_compare_flags(machine *m, const instruction *i)
{
    enum { CF = 1, PF = 1 << 2, AF = 1 << 4, ZF = 1 << 6, SF = 1 << 7, OF = 1 << 11 };
    int is = relation(m->zmm[i->reg].u16[0], source(m, i).u16[0]);
    m->rflags &= ~(uint64_t)(CF | PF | AF | ZF | SF | OF);
    if (is == UNORDERED)
        m->rflags |= CF | PF | ZF;
    else if (is != GREATER)
        m->rflags |= is == LESS ? CF : ZF;
    return 1;
}

/* ---- conversions */

/* vcvtph2psx, vcvtph2pd, vcvtsh2ss, vcvtsh2sd: `variant` is the itemsize of the result. */
int half_widen(machine *m, const instruction *i)
{
    int element = i->entry->variant, scalar = i->entry->amount == SCALAR;
    int count = scalar ? 1 : i->vl / element;
    vector x = source(m, i), result = {0};
    for (int n = 0; n < count; n++)
        if (element == 4)
            result.f32[n] = half_to_float(x.u16[n]);
        else
            result.f64[n] = half_to_double(x.u16[n]);
    if (scalar)
        write_scalar(m, i, result.u64[0], element);
    else
        write_elements(m, i, &result, element, count);
    return 1;
}

/* vcvtps2phx, vcvtpd2ph, vcvtss2sh, vcvtsd2sh */
int half_narrow(machine *m, const instruction *i)
{
    int element = i->entry->element, scalar = i->entry->amount == SCALAR;
    int count = scalar ? 1 : i->vl / element;
    vector x = source(m, i), result = {0};
    for (int n = 0; n < count; n++)
        result.u16[n] = double_to_half(element == 4 ? (double)x.f32[n] : x.f64[n]);
    if (scalar)
        write_scalar(m, i, result.u16[0], 2);
    else
        write_elements(m, i, &result, 2, count);
    return 1;
}

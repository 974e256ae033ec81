/* Dot products of bytes and words, accumulated in doublewords. */
#include "emulator.h"

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

static int64_t element(const vector *x, int n, int words, int is_signed)
{
    if (words)
        return is_signed ? x->s16[n] : x->u16[n];
    return is_signed ? x->s8[n] : x->u8[n];
}

/* vpdp{b,w}{s,u}{s,u}d[s]: the exact sum wraps or saturates. It is signed unless both operands are
   unsigned. */
int dot_integers(machine *m, const instruction *i)
{
    int variant = i->entry->variant, words = !!(variant & WORDS), parts = words ? 2 : 4;
    int is_signed = !!(variant & (SIGNED_A | SIGNED_B));
    vector a = m->zmm[i->vvvv], b = source(m, i), c = m->zmm[i->reg];
    for (int n = 0; n < i->vl / 4; n++) {
        int64_t sum = is_signed ? (int64_t)c.s32[n] : c.u32[n];
        for (int j = n * parts; j < (n + 1) * parts; j++)
            sum += element(&a, j, words, variant & SIGNED_A) *
                   element(&b, j, words, variant & SIGNED_B);
        if (variant & SATURATE)
            sum = is_signed ? clamp(sum, INT32_MIN, INT32_MAX) : clamp(sum, 0, UINT32_MAX);
        c.u32[n] = (uint32_t)sum;
    }
    write_elements(m, i, &c, 4, i->vl / 4);
    return 1;
}

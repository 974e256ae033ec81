/* The table of all emulated instructions, and the decoder of the instruction at RIP. */
#include <string.h>

#include "emulator.h"

#define DOT(name, space, prefix, opcode, variant)                                                  \
    {name, space, 2, prefix, W0, opcode, EITHER, FULL, 4, dot_integers, variant}
#define DOTS(name, prefix, opcode, variant)                                                        \
    DOT(name, VEX, prefix, opcode, variant), DOT(name, EVEX, prefix, opcode, variant),             \
        DOT(name "s", VEX, prefix, opcode + 1, variant | SATURATE),                                \
        DOT(name "s", EVEX, prefix, opcode + 1, variant | SATURATE)
#define TILE(name, prefix, opcode, rm, run, variant)                                               \
    {name, VEX, 2, prefix, W0, opcode, rm, FULL, 4, run, variant}
#define NE_CONVERT(name, prefix, opcode, amount, run, variant)                                     \
    {name, VEX, 2, prefix, W0, opcode, MEMORY, amount, 2, run, variant}
#define HALF_ARITHMETIC(name, opcode, run)                                                         \
    {name "ph", EVEX, 5, NONE, W0, opcode, EITHER, FULL, 2, run, opcode},                          \
    {                                                                                              \
        name "sh", EVEX, 5, PF3, W0, opcode, EITHER, SCALAR, 2, run, opcode                        \
    }
/* vfmadd132ph is 98, vfmadd132sh 99; vfmadd213ph is A8 and vfmadd231ph B8 */
#define HALF_FMA(name, order, opcode)                                                              \
    {name order "ph", EVEX, 6, P66, W0, opcode, EITHER, FULL, 2, half_fma, opcode},                \
    {                                                                                              \
        name order "sh", EVEX, 6, P66, W0, opcode + 1, EITHER, SCALAR, 2, half_fma, opcode         \
    }
#define HALF_FMAS(name, opcode)                                                                    \
    HALF_FMA(name, "132", opcode), HALF_FMA(name, "213", opcode + 0x10),                           \
        HALF_FMA(name, "231", opcode + 0x20)

/* Entries of the same opcode differ in a field before `opcode`, or in `rm`. */
static const opcode_entry opcode_table[] = {
    /* AVX-VNNI, AVX512-VNNI; AVX-VNNI-INT8, AVX-VNNI-INT16; AVX10.2 */
    DOTS("vpdpbusd", P66, 0x50, SIGNED_B),
    DOTS("vpdpwssd", P66, 0x52, SIGNED_A | SIGNED_B | WORDS),
    DOTS("vpdpbssd", PF2, 0x50, SIGNED_A | SIGNED_B),
    DOTS("vpdpbsud", PF3, 0x50, SIGNED_A),
    DOTS("vpdpbuud", NONE, 0x50, 0),
    DOTS("vpdpwusd", P66, 0xD2, SIGNED_B | WORDS),
    DOTS("vpdpwsud", PF3, 0xD2, SIGNED_A | WORDS),
    DOTS("vpdpwuud", NONE, 0xD2, WORDS),

    /* AVX-NE-CONVERT */
    NE_CONVERT("vbcstnebf162ps", PF3, 0xB1, SCALAR, broadcast_one, BF16),
    NE_CONVERT("vbcstnesh2ps", P66, 0xB1, SCALAR, broadcast_one, FP16),
    NE_CONVERT("vcvtneebf162ps", PF3, 0xB0, FULL, convert_every_other, BF16 | EVEN << 1),
    NE_CONVERT("vcvtneobf162ps", PF2, 0xB0, FULL, convert_every_other, BF16 | ODD << 1),
    NE_CONVERT("vcvtneeph2ps", P66, 0xB0, FULL, convert_every_other, FP16 | EVEN << 1),
    NE_CONVERT("vcvtneoph2ps", NONE, 0xB0, FULL, convert_every_other, FP16 | ODD << 1),
    {"vcvtneps2bf16", VEX, 2, PF3, W0, 0x72, EITHER, FULL, 4, round_to_bf16, 0},

    /* AVX512-BF16; AVX10.2 */
    {"vcvtneps2bf16", EVEX, 2, PF3, W0, 0x72, EITHER, FULL, 4, round_to_bf16, 0},
    {"vcvtne2ps2bf16", EVEX, 2, PF2, W0, 0x72, EITHER, FULL, 4, round_two_to_bf16, 0},
    {"vdpbf16ps", EVEX, 2, PF3, W0, 0x52, EITHER, FULL, 4, dot_floats, BF16},
    {"vdpphps", EVEX, 2, NONE, W0, 0x52, EITHER, FULL, 4, dot_floats, FP16},

    /* AMX */
    TILE("ldtilecfg", NONE, 0x49, MEMORY, configure_tiles, 0),
    TILE("tilerelease", NONE, 0x49, REGISTER, release_tiles, 0),
    TILE("sttilecfg", P66, 0x49, MEMORY, store_configuration, 0),
    TILE("tilezero", PF2, 0x49, REGISTER, zero_tile, 0),
    TILE("tileloadd", PF2, 0x4B, MEMORY, load_tile, 0),
    TILE("tileloaddt1", P66, 0x4B, MEMORY, load_tile, 0),
    TILE("tilestored", PF3, 0x4B, MEMORY, store_tile, 0),
    TILE("tdpbf16ps", PF3, 0x5C, REGISTER, multiply_tiles_of_floats, BF16),
    TILE("tdpfp16ps", PF2, 0x5C, REGISTER, multiply_tiles_of_floats, FP16),
    TILE("tdpbssd", PF2, 0x5E, REGISTER, multiply_tiles_of_bytes, SIGNED_A | SIGNED_B),
    TILE("tdpbsud", PF3, 0x5E, REGISTER, multiply_tiles_of_bytes, SIGNED_A),
    TILE("tdpbusd", P66, 0x5E, REGISTER, multiply_tiles_of_bytes, SIGNED_B),
    TILE("tdpbuud", NONE, 0x5E, REGISTER, multiply_tiles_of_bytes, 0),

    /* AVX512-FP16 */
    HALF_FMAS("vfmadd", 0x98),
    HALF_FMAS("vfmsub", 0x9A),
    HALF_FMAS("vfnmadd", 0x9C),
    HALF_FMAS("vfnmsub", 0x9E),
    HALF_ARITHMETIC("vadd", 0x58, half_arithmetic),
    HALF_ARITHMETIC("vmul", 0x59, half_arithmetic),
    HALF_ARITHMETIC("vsub", 0x5C, half_arithmetic),
    HALF_ARITHMETIC("vmin", 0x5D, half_arithmetic),
    HALF_ARITHMETIC("vdiv", 0x5E, half_arithmetic),
    HALF_ARITHMETIC("vmax", 0x5F, half_arithmetic),
    HALF_ARITHMETIC("vsqrt", 0x51, half_root),
    {"vcmpph", EVEX, 3, NONE, W0, 0xC2, EITHER, FULL, 2, half_compare, 0},
    {"vcmpsh", EVEX, 3, PF3, W0, 0xC2, EITHER, SCALAR, 2, half_compare, 0},
    {"vucomish", EVEX, 5, NONE, W0, 0x2E, EITHER, SCALAR, 2, half_compare_flags, 0},
    {"vcomish", EVEX, 5, NONE, W0, 0x2F, EITHER, SCALAR, 2, half_compare_flags, 0},
    {"vcvtph2psx", EVEX, 6, P66, W0, 0x13, EITHER, HALF, 2, half_widen, 4},
    {"vcvtph2pd", EVEX, 5, NONE, W0, 0x5A, EITHER, QUARTER, 2, half_widen, 8},
    {"vcvtsh2ss", EVEX, 6, NONE, W0, 0x13, EITHER, SCALAR, 2, half_widen, 4},
    {"vcvtsh2sd", EVEX, 5, PF3, W0, 0x5A, EITHER, SCALAR, 2, half_widen, 8},
    {"vcvtps2phx", EVEX, 5, P66, W0, 0x1D, EITHER, FULL, 4, half_narrow, 0},
    {"vcvtpd2ph", EVEX, 5, P66, W1, 0x5A, EITHER, FULL, 8, half_narrow, 0},
    {"vcvtss2sh", EVEX, 5, NONE, W0, 0x1D, EITHER, SCALAR, 4, half_narrow, 0},
    {"vcvtsd2sh", EVEX, 5, PF2, W1, 0x5A, EITHER, SCALAR, 8, half_narrow, 0},
    {"vmovsh", EVEX, 5, PF3, W0, 0x10, EITHER, SCALAR, 2, move_half, 0},
    {"vmovsh", EVEX, 5, PF3, W0, 0x11, EITHER, SCALAR, 2, move_half, 1},
    {"vmovw", EVEX, 5, P66, WIG, 0x6E, EITHER, SCALAR, 2, move_word, 0},
    {"vmovw", EVEX, 5, P66, WIG, 0x7E, EITHER, SCALAR, 2, move_word, 1},

    /* AVX10.2: the same between vector registers */
    {"vmovw", EVEX, 5, PF3, W0, 0x6E, EITHER, SCALAR, 2, move_xmm, 0},
    {"vmovw", EVEX, 5, PF3, W0, 0x7E, EITHER, SCALAR, 2, move_xmm, 1},
    {"vmovd", EVEX, 1, PF3, W0, 0x7E, EITHER, SCALAR, 4, move_xmm, 0},
    {"vmovd", EVEX, 1, P66, W0, 0xD6, EITHER, SCALAR, 4, move_xmm, 1},
};

enum { ENTRIES = sizeof opcode_table / sizeof *opcode_table };

/* Linked lists of the entries of each opcode: indices from 1; 0 is the end. */
static uint8_t first[256], after[ENTRIES + 1];

__attribute__((constructor)) static void build_lists(void)
{
    for (int i = ENTRIES; i > 0; i--) {
        after[i] = first[opcode_table[i - 1].opcode];
        first[opcode_table[i - 1].opcode] = (uint8_t)i;
    }
}

/* The fields of a VEX or EVEX prefix; inverted bits are inverted back. (The two-byte form of VEX
   implies a map that is not in the table.) */
typedef struct {
    int space, map, prefix, w, length, r, x, b, r_high, v_high;
} payload;

static const uint8_t *read_prefix(const uint8_t *code, payload *p, instruction *i)
{
    memset(p, 0, sizeof *p);
    if (code[0] != 0xC4 && code[0] != 0x62)
        return NULL;
    p->r = ~code[1] >> 7 & 1, p->x = ~code[1] >> 6 & 1, p->b = ~code[1] >> 5 & 1;
    p->w = code[2] >> 7, i->vvvv = ~code[2] >> 3 & 15, p->prefix = code[2] & 3;
    if (code[0] == 0xC4) {
        p->map = code[1] & 31, p->length = code[2] >> 2 & 1;
        return code + 3;
    }
    if ((code[1] & 8) || !(code[2] & 4)) /* registers of APX */
        return NULL;
    p->space = EVEX, p->map = code[1] & 7, p->r_high = ~code[1] >> 4 & 1;
    p->length = code[3] >> 5 & 3, p->v_high = ~code[3] >> 3 & 1;
    i->zeroing = code[3] >> 7, i->broadcast = code[3] >> 4 & 1, i->k = code[3] & 7;
    return code + 4;
}

static const opcode_entry *find(const payload *p, uint8_t opcode, int rm)
{
    for (int n = first[opcode]; n; n = after[n]) {
        const opcode_entry *e = &opcode_table[n - 1];
        if (e->space == p->space && e->map == p->map && e->prefix == p->prefix && e->rm & rm &&
            (e->w == WIG || e->w == p->w))
            return e;
    }
    return NULL;
}

/* Bytes of memory that an instruction accesses: the unit of short displacements in EVEX. */
static int bytes_of_memory(const instruction *i)
{
    if (i->broadcast || i->entry->amount == SCALAR)
        return i->entry->element;
    return i->vl >> i->entry->amount;
}

static const uint8_t *read_address(const machine *m, const uint8_t *code, const payload *p,
                                   instruction *i)
{
    int mod = code[0] >> 6, low = code[0] & 7, base = low | p->b << 3;
    int64_t displacement = 0;
    int in_rip = 0, no_base = 0;
    code++;
    if (low == 4) {
        int sib = *code++, index = (sib >> 3 & 7) | p->x << 3;
        base = (sib & 7) | p->b << 3;
        i->has_index_byte = 1;
        if (index != 4)
            i->index = m->gpr[index] << (sib >> 6);
        no_base = mod == 0 && (sib & 7) == 5;
    } else if (mod == 0 && low == 5) {
        in_rip = no_base = 1;
    }
    if (mod == 1) {
        displacement = (int8_t)*code++ * (int64_t)(p->space == EVEX ? bytes_of_memory(i) : 1);
    } else if (mod == 2 || no_base) {
        int32_t wide;
        memcpy(&wide, code, sizeof wide);
        displacement = wide, code += 4;
    }
    if (in_rip)
        i->address = (uint64_t)(uintptr_t)code + (i->entry->map == 3);
    else if (!no_base)
        i->address = m->gpr[base];
    i->address += (uint64_t)displacement;
    return code;
}

/* Decode the instruction at RIP; 0 if it is not in the table. */
static int decode(const machine *m, instruction *i)
{
    payload p;
    *i = (instruction){0};
    const uint8_t *code = read_prefix((const uint8_t *)(uintptr_t)m->rip, &p, i);
    if (!code)
        return 0;
    uint8_t opcode = code[0], modrm = code[1];
    i->memory = modrm >> 6 != 3;
    i->entry = find(&p, opcode, i->memory ? MEMORY : REGISTER);
    if (!i->entry)
        return 0;
    if (i->broadcast && !i->memory) { /* no broadcast, but a rounding mode: nearest only */
        if (p.length != 0)
            return 0;
        p.length = 2, i->broadcast = 0;
    }
    if (p.space == EVEX && i->entry->amount == SCALAR)
        p.length = 0;
    if (p.length == 3)
        return 0;
    i->vl = 16 << p.length;
    i->reg = (modrm >> 3 & 7) | p.r << 3 | p.r_high << 4;
    i->vvvv |= p.v_high << 4;
    code++;
    if (i->memory) {
        code = read_address(m, code, &p, i);
    } else {
        i->rm = (modrm & 7) | p.b << 3 | (p.space == EVEX ? p.x << 4 : 0);
        code++;
    }
    if (i->entry->map == 3)
        i->imm = *code++;
    i->next = (uint64_t)(uintptr_t)code;
    return 1;
}

int emulate(machine *m)
{
    instruction i;
    if (!decode(m, &i) || !i.entry->run(m, &i))
        return 0;
    m->rip = i.next;
    return 1;
}

/* AMX: eight tiles of up to 16 rows of 64 bytes, for each thread. */
#include <string.h>

#include "emulator.h"

__thread tile_registers tiles;

static int bytes(int tile) { return tiles.is.bytes_per_row[tile]; }

static int rows(int tile) { return tiles.is.rows[tile]; }

/* A row of these to start at is what an interrupt left undone; whatever has ended resets it. */
static int start(void) { return tiles.is.start_row; }

static int done(void)
{
    tiles.is.start_row = 0;
    return 1;
}

static int release(void)
{
    memset(&tiles, 0, sizeof tiles);
    return 1;
}

static int configured(int tile) { return tile < TILES && rows(tile) > 0; }

/* What the CPU answers by a general protection fault is an illegal instruction here. */
int configure_tiles(machine *m, const instruction *i)
{
    (void)m;
    static const configuration none;
    configuration wanted;
    memcpy(&wanted, (const void *)(uintptr_t)(i->address + i->index), sizeof wanted);
    if (wanted.palette == 0)
        return release();
    if (wanted.palette != 1 || memcmp(wanted.reserved, none.reserved, sizeof none.reserved))
        return 0;
    for (int t = 0; t < 16; t++) {
        int columns = wanted.bytes_per_row[t], height = wanted.rows[t];
        if (columns > TILE_BYTES || height > TILE_ROWS || !columns != !height ||
            (t >= TILES && columns))
            return 0;
    }
    release();
    tiles.is = wanted;
    return 1;
}

int store_configuration(machine *m, const instruction *i)
{
    (void)m;
    memcpy((void *)(uintptr_t)(i->address + i->index), &tiles.is, sizeof tiles.is);
    return 1;
}

int release_tiles(machine *m, const instruction *i)
{
    (void)m;
    return i->reg == 0 && i->rm == 0 && release();
}

int zero_tile(machine *m, const instruction *i)
{
    (void)m;
    if (!configured(i->reg) || i->rm != 0)
        return 0;
    memset(tiles.data[i->reg], 0, sizeof *tiles.data);
    return done();
}

/* Whether rows can be loaded or stored, from the one to start at. */
static int can_move(const instruction *i)
{
    return configured(i->reg) && i->has_index_byte && bytes(i->reg) % 4 == 0 &&
           start() < rows(i->reg);
}

/* The index register is the distance of rows. */
static void *row_in_memory(const instruction *i, int r)
{
    return (void *)(uintptr_t)(i->address + (uint64_t)r * i->index);
}

int load_tile(machine *m, const instruction *i)
{
    if (!can_move(i) || m->no_tile_data)
        return 0;
    uint8_t (*to)[TILE_BYTES] = tiles.data[i->reg];
    memset(to[start()], 0, sizeof *to * (size_t)(TILE_ROWS - start()));
    for (int r = start(); r < rows(i->reg); r++)
        memcpy(to[r], row_in_memory(i, r), (size_t)bytes(i->reg));
    return done();
}

int store_tile(machine *m, const instruction *i)
{
    (void)m;
    if (!can_move(i))
        return 0;
    for (int r = start(); r < rows(i->reg); r++)
        memcpy(row_in_memory(i, r), tiles.data[i->reg][r], (size_t)bytes(i->reg));
    return done();
}

/* C (m by n) += A (m by k) B (k by n), where an element of A and B is 4 bytes: ModRM.reg is C,
   ModRM.rm is A, VEX.vvvv is B. */
static int can_multiply(const instruction *i)
{
    int c = i->reg, a = i->rm, b = i->vvvv;
    return configured(a) && configured(b) && configured(c) && a != b && a != c && b != c &&
           bytes(a) % 4 == 0 && bytes(b) % 4 == 0 && bytes(c) % 4 == 0 && bytes(c) == bytes(b) &&
           rows(c) == rows(a) && bytes(a) == 4 * rows(b);
}

/* tdpb{s,u}{s,u}d: sums wrap. */
int multiply_tiles_of_bytes(machine *m, const instruction *i)
{
    (void)m;
    if (!can_multiply(i))
        return 0;
    int columns = bytes(i->reg) / 4, depth = bytes(i->rm);
    int signed_a = i->row->variant & SIGNED_A, signed_b = i->row->variant & SIGNED_B;
    uint32_t wide_b[4 * TILE_ROWS][TILE_BYTES / 4]; /* a row for each byte of the depth */
    for (int p = 0; p < depth; p++)
        for (int n = 0; n < columns; n++) {
            uint8_t b = tiles.data[i->vvvv][p / 4][4 * n + p % 4];
            wide_b[p][n] = (uint32_t)(signed_b ? (int8_t)b : b);
        }
    for (int r = 0; r < rows(i->reg); r++) {
        uint32_t *c = (uint32_t *)(void *)tiles.data[i->reg][r];
        for (int p = 0; p < depth; p++) {
            uint8_t a = tiles.data[i->rm][r][p];
            uint32_t factor = (uint32_t)(signed_a ? (int8_t)a : a);
            for (int n = 0; n < columns; n++)
                c[n] += factor * wide_b[p][n];
        }
    }
    return done();
}

/* tdpbf16ps, tdpfp16ps: sums over the even and over the odd elements, which are then added, and
   that to C. Denormal numbers of float16 count as what they are, those of float32 as zero. */
int multiply_tiles_of_floats(machine *m, const instruction *i)
{
    (void)m;
    if (!can_multiply(i))
        return 0;
    int kind = i->row->variant, columns = bytes(i->reg) / 4, depth = rows(i->vvvv);
    float wide_b[2][TILE_ROWS][TILE_BYTES / 4];
    for (int which = EVEN; which <= ODD; which++)
        for (int p = 0; p < depth; p++)
            widen((const uint16_t *)(const void *)tiles.data[i->vvvv][p], kind, which,
                  wide_b[which][p], columns);
    uint32_t before = flush_denormals();
    for (int r = 0; r < rows(i->reg); r++) {
        float sums[2][TILE_BYTES / 4] = {0}, wide_a[TILE_BYTES / 4], factor[TILE_BYTES / 4];
        for (int which = EVEN; which <= ODD; which++) {
            widen((const uint16_t *)(const void *)tiles.data[i->rm][r], kind, which, wide_a, depth);
            for (int p = 0; p < depth; p++) {
                for (int n = 0; n < columns; n++)
                    factor[n] = wide_a[p];
                multiply_add(factor, wide_b[which][p], sums[which], columns);
            }
        }
        add_sum(sums[EVEN], sums[ODD], (float *)(void *)tiles.data[i->reg][r], columns);
    }
    restore_denormals(before);
    return done();
}

/* AMX: eight tiles of up to 16 rows of 64 bytes, for each thread. */
#include <string.h>

#include "emulator.h"

__thread tile_registers tiles;

static int bytes(int tile) { return tiles.config.bytes_per_row[tile]; }

static int rows(int tile) { return tiles.config.rows[tile]; }

/* Rows before start_row were done before an interrupt. An instruction that completes resets it. */
static int start_row(void) { return tiles.config.start_row; }

static int completed(void)
{
    tiles.config.start_row = 0;
    return 1;
}

static int release(void)
{
    memset(&tiles, 0, sizeof tiles);
    return 1;
}

static int configured(int tile) { return tile < TILES && rows(tile) > 0; }

/* An illegal instruction here is a general protection fault on the CPU. */
int configure_tiles(machine *m, const instruction *i)
{
    (void)m;
    static const tile_config none;
    tile_config wanted;
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
    tiles.config = wanted;
    return 1;
}

int store_configuration(machine *m, const instruction *i)
{
    (void)m;
    memcpy((void *)(uintptr_t)(i->address + i->index), &tiles.config, sizeof tiles.config);
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
    return completed();
}

/* Whether the rows from start_row on can be loaded or stored. */
static int can_move(const instruction *i)
{
    return configured(i->reg) && i->has_index_byte && bytes(i->reg) % 4 == 0 &&
           start_row() < rows(i->reg);
}

/* The index register is the row stride. */
static void *row_in_memory(const instruction *i, int r)
{
    return (void *)(uintptr_t)(i->address + (uint64_t)r * i->index);
}

int load_tile(machine *m, const instruction *i)
{
    if (!can_move(i) || m->no_tile_data)
        return 0;
    uint8_t (*to)[TILE_BYTES] = tiles.data[i->reg];
    memset(to[start_row()], 0, sizeof *to * (size_t)(TILE_ROWS - start_row()));
    for (int r = start_row(); r < rows(i->reg); r++)
        memcpy(to[r], row_in_memory(i, r), (size_t)bytes(i->reg));
    return completed();
}

int store_tile(machine *m, const instruction *i)
{
    (void)m;
    if (!can_move(i))
        return 0;
    for (int r = start_row(); r < rows(i->reg); r++)
        memcpy(row_in_memory(i, r), tiles.data[i->reg][r], (size_t)bytes(i->reg));
    return completed();
}

/* Whether C (m by n) += A (m by k) B (k by n) is possible, with elements of A and B of 4 bytes:
   ModRM.reg is C, ModRM.rm is A, VEX.vvvv is B. */
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
    int signed_a = i->entry->variant & SIGNED_A, signed_b = i->entry->variant & SIGNED_B;
    uint32_t wide_b[4 * TILE_ROWS][TILE_BYTES / 4]; /* a row for each byte of k */
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
    return completed();
}

/* tdpbf16ps, tdpfp16ps: the sums over the even and over the odd elements are added, and then added
   to C. Denormal numbers of float16 keep their values, those of float32 count as zero. */
int multiply_tiles_of_floats(machine *m, const instruction *i)
{
    (void)m;
    if (!can_multiply(i))
        return 0;
    int kind = i->entry->variant, columns = bytes(i->reg) / 4, depth = rows(i->vvvv);
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
    return completed();
}

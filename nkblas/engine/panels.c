/* Packed panels of A and B: their buffers, where each panel is, and packing them. */
#include "cache_block.h"

static int64_t a_panel_size(const nk_plan *plan, int64_t kc)
{
    return plan->m.tile * nk_k_steps(plan, kc) * plan->k_step * plan->a_panel_itemsize;
}

int64_t nk_b_panel_size(const nk_plan *plan, int64_t kc)
{
    int64_t column = nk_k_steps(plan, kc) * plan->k_step * plan->b_panel_itemsize;
    return plan->n.tile * (column + plan->b_panel_header);
}

/* ---- groups: panels that are packed at once, where they share cache lines and pages ---- */

enum { PANELS_PER_GROUP = 8, K_AT_ONCE = 16 };

static int packs_a_groups(const nk_plan *plan)
{
    return plan->problem.a == NK_COL && plan->k_step == 1;
}

/* With ir outside, panels of B wait for the next rows of tiles anyway. */
static int packs_b_groups(const nk_plan *plan)
{
    return plan->ir_outside && !plan->packing_microkernel && plan->problem.b == NK_ROW &&
           plan->k_step == 1;
}

/* ---- buffers ---- */

/* Whether each panel of A is read by one row of tiles and no other, unless it is kept. */
static int reads_a_panels_once(const nk_plan *plan)
{
    return plan->ir_outside || plan->spans_columns;
}

/* How many panels of A there is room for in a block of k: of all rows, if further blocks of columns
   come back to them; of a block of rows; or of a group. */
static int64_t buffered_a_panels(const nk_plan *plan, int64_t row_tiles)
{
    if (plan->keeps_a_panels)
        return row_tiles;
    if (!reads_a_panels_once(plan))
        return nk_min(plan->m.block_tiles, row_tiles);
    return packs_a_groups(plan) ? PANELS_PER_GROUP : 1;
}

int64_t nk_a_buffer_size(const nk_plan *plan, int64_t row_tiles)
{
    if (!plan->pack_a)
        return 0;
    int64_t k = plan->problem.k, k_blocks = plan->keeps_a_panels ? (k - 1) / plan->kc + 1 : 1;
    return k_blocks * buffered_a_panels(plan, row_tiles) * a_panel_size(plan, plan->kc);
}

/* Whether each panel of B is read by one block of rows only. Then all panels share one buffer, which
   stays in the cache. */
static int b_panels_share_buffer(const nk_plan *plan, int64_t row_tiles)
{
    return !plan->ir_outside && !plan->spans_columns && row_tiles <= plan->m.block_tiles;
}

int64_t nk_b_buffer_size(const nk_plan *plan, int64_t row_tiles, int64_t column_tiles)
{
    if (!plan->pack_b || nk_b_is_prepacked(plan))
        return 0;
    int is_shared = b_panels_share_buffer(plan, row_tiles);
    int64_t panels = is_shared ? 1 : nk_min(plan->n.block_tiles, column_tiles);
    return panels * nk_b_panel_size(plan, plan->kc);
}

/* ---- panels ---- */

char *nk_a_panel(const nk_cache_block *x, int64_t i)
{
    const nk_plan *plan = x->plan;
    int64_t index = i - x->i0, size = a_panel_size(plan, x->kc);
    if (plan->keeps_a_panels) {
        int64_t panels_before = x->p0 / plan->kc * (x->last_i - x->first_i);
        return x->a_panels + panels_before * a_panel_size(plan, plan->kc) + (i - x->first_i) * size;
    }
    if (reads_a_panels_once(plan))
        index = packs_a_groups(plan) ? index % PANELS_PER_GROUP : 0;
    return x->a_panels + index * size;
}

/* In a prepacked B, the panels of all columns of one block of k come before those of the next block
   of k. */
char *nk_b_panel(const nk_cache_block *x, int64_t j)
{
    const nk_plan *plan = x->plan;
    int64_t size = nk_b_panel_size(plan, x->kc);
    if (nk_b_is_prepacked(plan)) {
        int64_t panels_before = x->p0 / plan->kc * plan->n.tiles;
        return x->b.data + panels_before * nk_b_panel_size(plan, plan->kc) + j * size;
    }
    int64_t index = b_panels_share_buffer(plan, x->last_i - x->first_i) ? 0 : j - x->j0;
    return x->b_panels + index * size;
}

/* ---- packing ---- */

/* Tiles to pack: `source` is the first element of the first one, with strides across tiles and along
   k; `panel` is its panel. Sizes are in bytes, panel_row is that of a k. */
typedef struct {
    nk_pack pack;
    const nk_tiling *tiling;
    const char *source;
    int64_t across, along, itemsize;
    char *panel;
    int64_t panel_size, panel_row;
} packed_tiles;

/* Pack the tiles [first, last), `at_once` values of k of each in turn: then a cache line that two panels
   share is loaded once. Where values of k are pages apart, it would be evicted before its other part
   is read. */
static void pack_tiles(const packed_tiles *x, int64_t first, int64_t last, int64_t kc,
                       int64_t at_once)
{
    int64_t p = 0;
    do {
        const char *source = x->source + p * x->along * x->itemsize;
        char *panel = x->panel + p * x->panel_row;
        for (int64_t tile = first; tile < last; tile++) {
            int64_t length = nk_tile_length(x->tiling, tile);
            x->pack(length, nk_min(at_once, kc - p), source, x->across, x->along, panel);
            source += length * x->across * x->itemsize;
            panel += x->panel_size;
        }
        p += at_once;
    } while (p < kc);
}

void nk_pack_a(const nk_cache_block *x, int64_t i)
{
    const nk_plan *plan = x->plan;
    packed_tiles tiles = {
        .pack = plan->pack_a_panel,
        .tiling = &plan->m,
        .source = nk_element(x->a, nk_tile_start(&plan->m, i), x->p0, x->itemsize->a),
        .across = x->a.rs,
        .along = x->a.cs,
        .itemsize = x->itemsize->a,
        .panel = nk_a_panel(x, i),
        .panel_size = a_panel_size(plan, x->kc),
        .panel_row = plan->m.tile * plan->a_panel_itemsize,
    };
    /* Where the panels of a block of rows stay, they are one group: it goes through each row of memory,
       which may be pages from the next one, once. */
    int64_t group = reads_a_panels_once(plan) ? PANELS_PER_GROUP : plan->m.block_tiles;
    if (!packs_a_groups(plan))
        pack_tiles(&tiles, i, i + 1, x->kc, x->kc);
    else if ((i - x->i0) % group == 0)
        pack_tiles(&tiles, i, nk_min(i + group, x->i1), x->kc, K_AT_ONCE);
}

void nk_pack_b(const nk_cache_block *x, int64_t j, int64_t j1)
{
    const nk_plan *plan = x->plan;
    packed_tiles tiles = {
        .pack = plan->pack_b_panel,
        .tiling = &plan->n,
        .source = nk_element(x->b, x->p0, nk_tile_start(&plan->n, j), x->itemsize->b),
        .across = x->b.cs,
        .along = x->b.rs,
        .itemsize = x->itemsize->b,
        .panel = nk_b_panel(x, j),
        .panel_size = nk_b_panel_size(plan, x->kc),
        .panel_row = plan->n.tile * plan->b_panel_itemsize,
    };
    if (!packs_b_groups(plan))
        pack_tiles(&tiles, j, j1, x->kc, x->kc);
    else if ((j - x->j0) % PANELS_PER_GROUP == 0)
        pack_tiles(&tiles, j, nk_min(j + PANELS_PER_GROUP, x->j1), x->kc, K_AT_ONCE);
}

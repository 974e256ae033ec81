/* Moves of a word or a doubleword. */
#include <string.h>

#include "emulator.h"

static void store(const machine *m, const instruction *i, int element)
{
    memcpy((void *)(uintptr_t)(i->address + i->index), &m->zmm[i->reg], (size_t)element);
}

static void set(machine *m, int number, uint64_t value)
{
    set_vector(m, number, (vector){.u64 = {value}});
}

/* vmovw to a vector register from a general register or memory; `variant` 1: in the other
   direction. */
int move_word(machine *m, const instruction *i)
{
    if (i->entry->variant == 0)
        set(m, i->reg, i->memory ? source(m, i).u16[0] : (uint16_t)m->gpr[i->rm & 15]);
    else if (i->memory)
        store(m, i, 2);
    else
        m->gpr[i->rm & 15] = m->zmm[i->reg].u16[0];
    return 1;
}

/* vmovw, vmovd to a vector register from another one or memory; `variant` 1: in the other
   direction. */
int move_xmm(machine *m, const instruction *i)
{
    int element = i->entry->element;
    vector from = i->entry->variant ? m->zmm[i->reg] : source(m, i);
    if (i->entry->variant && i->memory)
        store(m, i, element);
    else
        set(m, i->entry->variant ? i->rm : i->reg, element == 2 ? from.u16[0] : from.u32[0]);
    return 1;
}

/* vmovsh: a load, a store (`variant` 1), or an element of one register with the other elements of
   a second one. */
int move_half(machine *m, const instruction *i)
{
    int chosen = (int)(mask_of(m, i) & 1);
    if (!i->memory) {
        instruction forward = *i;
        if (i->entry->variant == 1)
            forward.reg = i->rm, forward.rm = i->reg;
        write_scalar(m, &forward, m->zmm[forward.rm].u16[0], 2);
    } else if (i->entry->variant == 0) {
        vector old = m->zmm[i->reg];
        set(m, i->reg, chosen ? source(m, i).u16[0] : i->zeroing ? 0 : old.u16[0]);
    } else if (chosen) {
        store(m, i, 2);
    }
    return 1;
}

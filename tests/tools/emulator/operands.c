/* Reading the last operand and writing the result, with EVEX's broadcast and masks. */
#include <string.h>

#include "emulator.h"

/* One bit for each element that an instruction computes. */
uint64_t mask_of(const machine *m, const instruction *i)
{
    return i->k ? m->k[i->k] : ~(uint64_t)0;
}

/* The last operand: a register, or memory, of which masked elements are not read. */
vector source(const machine *m, const instruction *i)
{
    if (!i->memory)
        return m->zmm[i->rm];
    vector result = {0};
    const uint8_t *from = (const uint8_t *)(uintptr_t)(i->address + i->index);
    int element = i->entry->element;
    int count = i->entry->amount == SCALAR ? 1 : (i->vl >> i->entry->amount) / element;
    if (!i->k && !i->broadcast) {
        memcpy(&result, from, (size_t)(count * element));
        return result;
    }
    uint64_t mask = mask_of(m, i);
    for (int n = 0; n < count; n++)
        if (mask >> n & 1)
            memcpy(&result.u8[n * element], from + (i->broadcast ? 0 : n * element),
                   (size_t)element);
    return result;
}

void set_vector(machine *m, int number, vector value)
{
    m->zmm[number] = value;
    m->changed |= 1u << number;
}

void set_mask(machine *m, int number, uint64_t value)
{
    m->k[number] = value;
    m->masks_changed |= 1u << number;
}

/* Write `count` elements to the destination under the mask; the rest of it becomes zero. */
void write_elements(machine *m, const instruction *i, const vector *result, int element, int count)
{
    const vector *old = &m->zmm[i->reg];
    uint64_t mask = mask_of(m, i);
    vector value = {0};
    for (int n = 0; n < count; n++) {
        const vector *from = mask >> n & 1 ? result : i->zeroing ? NULL : old;
        if (from)
            memcpy(&value.u8[n * element], &from->u8[n * element], (size_t)element);
    }
    set_vector(m, i->reg, value);
}

/* Write one element. The rest of the first 16 bytes comes from the second operand; the other bytes
   become zero. */
void write_scalar(machine *m, const instruction *i, uint64_t element, int size)
{
    vector value = m->zmm[i->vvvv];
    memset(&value.u8[16], 0, sizeof value - 16);
    if (mask_of(m, i) & 1)
        memcpy(&value, &element, (size_t)size);
    else if (i->zeroing)
        memset(&value, 0, (size_t)size);
    else
        memcpy(&value, &m->zmm[i->reg], (size_t)size);
    set_vector(m, i->reg, value);
}

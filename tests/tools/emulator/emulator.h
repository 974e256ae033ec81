/* An emulator of the instructions that generated kernels use and a CPU may lack.

   signal.c    the handler of illegal instructions: registers from and to the signal's frame
   decode.c    the table of all emulated instructions, and the decoder of machine code
   integers.c, floats.c, halves.c, moves.c, tiles.c    their semantics, a function for each kind
   operands.c  reading the last operand, writing the result: memory, broadcast, masks

   Names and definitions are those of Intel's Software Developer's Manual, volume 2. */
#ifndef EMULATOR_H
#define EMULATOR_H

#include <stdint.h>

typedef union {
    uint8_t u8[64];
    int8_t s8[64];
    uint16_t u16[32];
    int16_t s16[32];
    uint32_t u32[16];
    int32_t s32[16];
    float f32[16];
    uint64_t u64[8];
    double f64[8];
} vector;

/* The registers of a thread, without its tiles. */
typedef struct {
    vector zmm[32];
    uint64_t k[8];
    uint64_t gpr[16]; /* in the order of their numbers: rax rcx rdx rbx rsp rbp rsi rdi r8 ... */
    uint64_t rip;
    uint64_t rflags;
    uint32_t changed, masks_changed; /* one bit for each zmm, and each k, that was written */
    uint32_t
        no_tile_data; /* the frame has no tile data: it is zero until the CPU itself loads some */
} machine;

/* The tiles of a thread. On a CPU with AMX they are loaded from the signal's frame and stored to it;
   on a CPU without it they exist only here. */
enum { TILES = 8, TILE_ROWS = 16, TILE_BYTES = 64 };
typedef struct { /* the layout of ldtilecfg and XSAVE */
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
} tile_config;
typedef struct {
    tile_config config;
    uint8_t data[TILES][TILE_ROWS][TILE_BYTES];
} tile_registers;
extern __thread tile_registers tiles;

typedef struct opcode_entry opcode_entry;

typedef struct {
    const opcode_entry *entry;
    int vl;             /* bytes of a vector */
    int reg, vvvv, rm;  /* ModRM.reg, (E)VEX.vvvv, ModRM.rm if it is a register */
    int memory;         /* whether ModRM.rm is memory, at address + index */
    uint64_t address;   /* base + displacement */
    uint64_t index;     /* index << scale; the row stride of a tile */
    int has_index_byte; /* whether the address has a SIB byte */
    int k, zeroing;     /* the mask register (0: none); whether other elements become zero */
    int broadcast;      /* whether one element of memory is broadcast */
    int imm;
    uint64_t next; /* address of the next instruction */
} instruction;

/* Emulate an instruction; 0 if the CPU would raise an exception. */
typedef int operation(machine *, const instruction *);

enum { VEX, EVEX };
enum { NONE, P66, PF3, PF2 };                  /* the mandatory prefix, as encoded in pp */
enum { W0, W1, WIG };                          /* WIG: W is ignored */
enum { REGISTER = 1, MEMORY = 2, EITHER = 3 }; /* what ModRM.rm may be */
enum { FULL, HALF, QUARTER, SCALAR };          /* the share of a vector that is in memory */

/* One entry of the table of instructions. */
struct opcode_entry {
    const char *name;
    uint8_t space, map, prefix, w, opcode;
    uint8_t rm;      /* REGISTER, MEMORY, EITHER */
    uint8_t amount;  /* FULL, HALF, QUARTER, SCALAR: of memory */
    uint8_t element; /* bytes of one element there */
    operation *run;
    int variant; /* a parameter of `run` */
};

/* All other symbols are hidden: the library is loaded before all others of a program. */
#define EXPORTED __attribute__((visibility("default")))

/* decode.c */

/* Emulate the instruction at RIP and step over it; 0, and no change, if it can't be emulated. */
int emulate(machine *);

/* operands.c */
vector source(const machine *, const instruction *);
void write_elements(machine *, const instruction *, const vector *, int element, int count);
void write_scalar(machine *, const instruction *, uint64_t value, int element);
uint64_t mask_of(const machine *, const instruction *);
void set_vector(machine *, int number, vector);
void set_mask(machine *, int number, uint64_t);

/* integers.c */
enum { SIGNED_A = 1, SIGNED_B = 2, SATURATE = 4, WORDS = 8 };
operation dot_integers;

/* floats.c */
enum { BF16, FP16 };
enum { EVEN, ODD };
float bf16_to_float(uint16_t);
uint16_t float_to_bf16(uint32_t bits);
float half_to_float(uint16_t);
double half_to_double(uint16_t);
uint16_t double_to_half(double);
uint32_t flush_denormals(void); /* returns MXCSR for restore_denormals */
void restore_denormals(uint32_t);
void multiply_add(const float *a, const float *b, float *c, int count);
void add_sum(const float *a, const float *b, float *c, int count);
void widen(const uint16_t *, int kind, int which, float *result, int count);
operation dot_floats, convert_every_other, broadcast_one, round_to_bf16, round_two_to_bf16;

/* halves.c */
operation half_fma, half_arithmetic, half_root, half_compare, half_compare_flags;
operation half_widen, half_narrow;

/* moves.c */
operation move_word, move_xmm, move_half;

/* tiles.c */
operation configure_tiles, store_configuration, release_tiles, zero_tile, load_tile, store_tile;
operation multiply_tiles_of_bytes, multiply_tiles_of_floats;

#endif

/* An interpreter for the instructions that generated kernels use and a CPU may lack.

   signal.c    what a thread's illegal instruction comes to: its registers, from the signal's frame
   decode.c    bytes to an `instruction`, by the table of all that are known
   integers.c, floats.c, halves.c, moves.c, tiles.c    what they do, one function for each kind
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

/* The registers of a thread, but for its tiles. */
typedef struct {
    vector zmm[32];
    uint64_t k[8];
    uint64_t gpr[16]; /* in the order of their numbers: rax rcx rdx rbx rsp rbp rsi rdi r8 ... */
    uint64_t rip;
    uint64_t rflags;
    uint32_t changed, masks_changed; /* one bit for each of zmm, k that was written */
    uint32_t
        no_tile_data; /* the frame has no place for it: zeros until the CPU itself loads some */
} machine;

/* The tiles of a thread. On a CPU that has them they come from the signal's frame and go back there;
   no frame has them on one that lacks them, so that this is where they are. */
enum { TILES = 8, TILE_ROWS = 16, TILE_BYTES = 64 };
typedef struct { /* as ldtilecfg and XSAVE have it */
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes_per_row[16];
    uint8_t rows[16];
} configuration;
typedef struct {
    configuration is;
    uint8_t data[TILES][TILE_ROWS][TILE_BYTES];
} tile_registers;
extern __thread tile_registers tiles;

typedef struct row row;

typedef struct {
    const row *row;
    int vl;             /* bytes of a vector */
    int reg, vvvv, rm;  /* ModRM.reg, (E)VEX.vvvv, ModRM.rm if that is a register */
    int memory;         /* whether ModRM.rm is memory, at: */
    uint64_t address;   /* base + displacement */
    uint64_t index;     /* index << scale; the stride, where rows of a tile lie */
    int has_index_byte; /* whether the address has a SIB byte */
    int k, zeroing;     /* the mask's register (0: none), and what becomes of other elements */
    int broadcast;      /* one element of memory stands for all */
    int imm;
    uint64_t next; /* address of the instruction after it */
} instruction;

/* Carry out an instruction; 0 if the CPU would refuse it. */
typedef int operation(machine *, const instruction *);

enum { VEX, EVEX };
enum { NONE, P66, PF3, PF2 };                  /* the mandatory prefix, as encoded in pp */
enum { W0, W1, WIG };                          /* WIG: W is ignored */
enum { REGISTER = 1, MEMORY = 2, EITHER = 3 }; /* what ModRM.rm may be */
enum { FULL, HALF, QUARTER, SCALAR };          /* how much of a vector's length memory has */

/* One row of the table of instructions. */
struct row {
    const char *name;
    uint8_t space, map, prefix, w, opcode;
    uint8_t rm;      /* REGISTER, MEMORY, EITHER */
    uint8_t amount;  /* FULL, HALF, QUARTER, SCALAR: of memory */
    uint8_t element; /* bytes of one element there */
    operation *run;
    int variant; /* what `run` makes of it */
};

/* All else is hidden: the library comes before all others of a program. */
#define EXPORTED __attribute__((visibility("default")))

/* decode.c */

/* Carry out the instruction at RIP and step over it; 0, with nothing changed, if it can't be. */
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
uint32_t flush_denormals(void); /* returns what to restore */
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

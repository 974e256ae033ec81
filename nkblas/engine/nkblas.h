/* The engine: runs plans. Everything hot is generated code, reached through the function pointers
   of a plan; the C around it only walks tiles. Sizes and strides are in elements. */
#ifndef NKBLAS_H
#define NKBLAS_H

#include <stddef.h>
#include <stdint.h>

/* Shared with Python (build.py hands this part to cffi as it stands). */
/* cffi: begin */

/* The types of A, B and C; those of C alone where all are the same. (dtypes.py has the same list.)
   Unsigned integers are signed ones, where a result wraps. */
typedef enum {
    NK_FLOAT32, NK_FLOAT64, NK_COMPLEX64, NK_COMPLEX128, NK_FLOAT16, NK_BFLOAT16,
    NK_BOOL, NK_INT8, NK_INT16, NK_INT32, NK_INT64,
    NK_FLOAT16_FLOAT32, NK_BFLOAT16_FLOAT32,
    NK_INT8_INT32, NK_UINT8_INT32, NK_UINT8_INT8_INT32, NK_INT8_UINT8_INT32,
    NK_FLOAT8_FLOAT32, /* the first of several, one for each format */
    NK_FORMATS = 7,
    /* Sums of bytes, scaled: of the signs as above, to float32, and to bytes that saturate. */
    NK_QUANTIZED = NK_FLOAT8_FLOAT32 + NK_FORMATS,
    NK_DTYPES = NK_QUANTIZED + 12
} nk_dtype;

/* Bytes of an element of A, B and C. */
typedef struct {
    int64_t a, b, c;
} nk_sizes;
const nk_sizes *nk_sizes_of(int32_t dtype);

/* Which dimension of an operand has unit stride: the second, the first, neither; or it is a B that
   was packed before. */
typedef enum { NK_ROW, NK_COL, NK_STRIDED, NK_PACKED } nk_layout;

/* What becomes of a product on its way into C: nothing, C += A @ B, C = alpha * A @ B + beta * C
   (the kernels for the first two are the same); and in the bits above that the rest of what
   epilogues.py has: a bias for each column or row, a residual, an activation (relu is the first). */
typedef enum {
    NK_PLAIN, NK_ADD, NK_SCALE, NK_KIND = 3,
    NK_BIAS_OF_COLUMNS = 4, NK_BIAS_OF_ROWS = 8, NK_BIAS = 12, NK_RESIDUAL = 16,
    NK_RELU = 32, NK_ACTIVATION = 7 * NK_RELU, NK_SCALES = 256
} nk_epilogue;

/* Elements of a bias, or scales, that may be read behind it: whole vectors, up to a tile. */
enum { NK_ROOM = 256 };

/* C = activation(alpha * A @ B + beta * C + bias) + residual, or, of sums of bytes, C =
   activation(scales * A @ B + bias) + residual, or that rounded, and a zero point. If beta is 0, C is
   only written. */
typedef struct {
    double alpha, beta;
    double alpha_i, beta_i; /* imaginary parts */
    double turn, sign;      /* 1 or -1: codegen/epilogue.py has what they do for conjugates */
    char *partial;          /* where a C that is too narrow for sums has them between blocks of k */
    int64_t first, last;    /* whether this block is the first, the last one */
    const char *bias;       /* of the type of sums; there is room to read behind it */
    const char *residual;   /* of C's type, in rows */
    int64_t ldr;
    double low, high;       /* bounds of an activation */
    int64_t fused;          /* what nk_problem.epilogue has beside the kind */
    /* A sum of so many products: where each of their operands is; 0: it is one product. */
    const char *const *a_blocks, *const *b_blocks;
    int64_t blocks;
    const char *scales;     /* float32, one for each column; there is room to read behind them */
    double zero;
} nk_scale;

/* What was asked, as far as a plan depends on it: the key of the plan table. */
typedef struct {
    int64_t m, n, k;
    int16_t dtype, epilogue;
    int8_t a, b, c; /* layouts */
    int8_t reduces; /* whether it is a sum of products, of blocks that are anywhere */
} nk_problem;

/* One dimension of C cut into tiles: the first `full` have `size` rows (columns), those after
   them `rest`. A cache block (mc, nc) is `block` tiles. */
typedef struct {
    int64_t size, full, rest, tiles, block;
} nk_cut;

/* Generated functions; codegen/spec.py has their contracts. */
typedef void (*nk_microkernel)(int64_t k, const void *a, int64_t lda, const void *b, int64_t ldb,
                               void *c, int64_t ldc, int64_t n, int64_t accumulate,
                               void *panel, const void *line, int64_t line_step, int64_t lines,
                               const nk_scale *scale);
typedef void (*nk_pack)(int64_t n, int64_t k, const void *source, int64_t ls, int64_t ps,
                        void *panel);
typedef void (*nk_copy)(int64_t m, int64_t n, const void *source, int64_t srs, int64_t scs,
                        void *target, int64_t trs, int64_t tcs);
typedef void (*nk_small)(int64_t count, const void *a, int64_t as, const void *b, int64_t bs,
                         void *c, int64_t cs);
typedef void (*nk_peak)(int64_t steps, void *out);

typedef struct {
    nk_problem problem;
    double nanoseconds; /* about what it takes on one thread */
    int64_t patience;   /* products until the engine asks for a better plan; 0: it never does */
    nk_small small;     /* does all of it if the operands are dense, or NULL */
    nk_cut m, n;
    int64_t kc;         /* 0: the problem is left to NumPy */
    int64_t step;       /* values of k in a step of the microkernel; panels hold whole steps */
    int64_t panel_a, panel_b; /* bytes of an element in a panel */
    int64_t top_b;      /* bytes before the first step of a panel of B, for each column */
    int64_t held;       /* bytes of a sum */
    int64_t sum;        /* the same if C can't hold it; 0: it can */
    int64_t together;   /* products of a sum that are added up in registers: their operands fit L2 */
    int32_t pack_a, pack_b;
    int32_t b_along_k;  /* panels of B hold columns, each along k; `copy` packs them */
    int32_t redo_columns; /* the last tile of columns is as wide as the others: some are done twice */
    int32_t whole_rows; /* a microkernel does all columns of a block at once */
    int32_t reads_once; /* no operand is used again often: memory is what it waits for */
    int32_t ir_outside; /* order of the two inner loops: ir around jr, or jr around ir */
    /* [is it a rest row][is it a rest column]; what is NULL, [0][0] does by way of a tile */
    nk_microkernel microkernel[2][2];
    nk_microkernel packing; /* [0][0], which also packs B; NULL: packs[1] does it */
    nk_pack packs[2]; /* of A's panels, of B's */
    nk_copy copy;     /* of C's tiles, where a microkernel can't store there */
} nk_plan;

typedef struct {
    char *data;
    int64_t rs, cs;
    int32_t packed; /* B's panels, all of them (`PackedLayout` of plan.py): strides mean nothing */
} nk_matrix;

typedef struct {
    uint64_t calls, fallbacks;
} nk_counters;

/* Distances from one matrix of a stack to the next. */
typedef struct {
    int64_t a, b, c;
} nk_steps;

/* table.c: one thread inserts at a time (the caller sees to it), any number look up. */
nk_plan *nk_table_find(const nk_problem *problem);
int nk_table_insert(const nk_plan *plan); /* copies it; -1: no memory */
void nk_table_clear(void); /* as nk_table_insert */

/* gemm.c */

/* The problem that three matrices make. They are changed to what its plan works on: a C with
   columns becomes one with rows, by transposing all three (and swapping the steps of a and b); but
   not where B is packed. */
nk_problem nk_describe(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix *a, nk_matrix *b,
                       nk_matrix *c, nk_steps *steps);

/* C = alpha * A @ B + beta * C for each of `count` matrices of a stack; how many of them were done.
   Neither m, n nor k is 0, unless it is C = A @ B of some conjugates; and alpha is not. */
int64_t nk_gemm(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix a, nk_matrix b,
                nk_matrix c, int64_t count, nk_steps steps, nk_scale scale);
/* The same for a stack, by a given plan and at most so many threads; all of them or none (0). */
int64_t nk_run(const nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c, int64_t count,
               nk_steps steps, nk_scale scale, int32_t threads);
/* How many threads, of `most`, a product that takes one of them so long is done by. */
int32_t nk_worth_threads(double nanoseconds, int32_t most);
nk_counters *nk_counts(void);
extern const nk_scale nk_once; /* C = A @ B */

/* threads.c: how many threads a product may use. */
void nk_set_num_threads(int32_t threads);
int32_t nk_get_num_threads(void);

/* record.c: products by problem, counted while there are recordings. */
typedef struct {
    nk_problem problem;
    int64_t products, nanoseconds;
} nk_record;
void nk_start_recording(void);
void nk_stop_recording(void);
/* Copies as many records as there is room for; how many there are. */
int64_t nk_recorded(nk_record *out, int64_t room);

/* load.c: the address of `symbol` in a shared library given as bytes; NULL and a message. */
void *nk_load(const void *library, size_t size, const char *name, const char *symbol,
              char *message, size_t message_size);

/* cpuid.c */
typedef struct {
    char vendor[13], brand[49];
    int32_t family, model, stepping;
    uint32_t words[12]; /* feature words, in the order of detect.py's table */
    uint64_t xcr0;
    int64_t l1d, l2, l3; /* bytes of one cache; 0: the CPU does not say */
    int32_t l1d_ways, l2_ways, l3_ways;
    int32_t amx_permitted;
} nk_cpu;
void nk_detect(nk_cpu *cpu);

/* cffi: end */

/* Asks Python for a plan of a problem that the table lacks; 0: there will be none for this call. */
extern int (*nk_ask)(const nk_problem *problem);
int nk_ask_python(const nk_problem *problem); /* ask.c */

/* record.c: how many recordings there are; counts products of a problem for them, and how long these
   took on the clock. */
extern int32_t nk_recordings;
void nk_note(const nk_problem *problem, int64_t products, int64_t nanoseconds);

/* table.c: what a thread finds in the table between these two is not freed. NULL: no memory. */
typedef struct nk_reader nk_reader;
nk_reader *nk_enter(void);
void nk_leave(nk_reader *reader);
size_t nk_hash(const nk_problem *problem);

/* threads.c: call work(job, i) for each i < chunks, on at most so many threads, the caller's among
   them; alone it would take it so many nanoseconds. Floating-point flags and modes are as if it
   had done it alone. */
void nk_parallel(int32_t threads, double nanoseconds, int64_t chunks,
                 void (*work)(void *job, int64_t chunk), void *job);
int64_t nk_clock(void); /* nanoseconds since some moment */

/* memory.c: this thread's packing buffers, one of each size; 0: no memory. */
int nk_buffers(const int64_t *sizes, char **parts, int count);

#endif

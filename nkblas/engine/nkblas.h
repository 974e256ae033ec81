/* The engine: runs plans.

   All hot code is generated and is reached through the function pointers of a plan; the C around it
   only walks tiles. Sizes and strides count elements, unless bytes are said. */
#ifndef NKBLAS_H
#define NKBLAS_H

#include <stddef.h>
#include <stdint.h>

#include "nk_tables.h"

/* build.py hands the declarations between these two lines to cffi. */
/* cffi: begin */

/* ---- what is multiplied ---- */

/* Layout of an operand: unit stride along its second dimension, its first, neither; or B's panels,
   which were packed by the caller. The order is that of LAYOUTS in base/problem.py. */
typedef enum { NK_ROW, NK_COL, NK_STRIDED, NK_PACKED } nk_layout;

/* Whether C equals its own transpose (conjugate transpose), because B is A's transpose, in the same
   memory; or only one triangle of C, the diagonal included, is computed and stored; or a product
   with a triangular A, or a system, in place. The order is that of STRUCTURES in base/problem.py. */
typedef enum {
    NK_GENERAL,
    NK_SYMMETRIC,
    NK_HERMITIAN,
    NK_LOWER,
    NK_UPPER,
    NK_TRIANGULAR
} nk_structure;
typedef nk_structure nk_triangle; /* NK_LOWER or NK_UPPER */

/* A problem, as far as the selection of a plan depends on it: the key of the plan table. */
typedef struct {
    int64_t m, n, k;
    int16_t epilogue;    /* bits of nk_epilogue */
    int8_t dtype;        /* nk_dtype */
    int8_t a, b, c;      /* layouts */
    int8_t batch_reduce; /* whether C is a sum of products of any number of blocks */
    int8_t structure;    /* nk_structure */
} nk_problem;

typedef struct {
    char *data;
    int64_t rs, cs;    /* row stride, column stride */
    int32_t is_packed; /* a prepacked B (PackedLayout): its strides mean nothing */
} nk_matrix;

/* Distances from one matrix of a stack to the next. */
typedef struct {
    int64_t a, b, c;
} nk_batch_strides;

/* The arguments of a call besides its matrices. Kernels read this struct; the code generator takes
   the offsets of its fields from here (ffi.offsetof).

   C = activation(alpha * A @ B + beta * C + bias) + residual; or, of sums of bytes,
   C = activation(scales * (A @ B) + bias) + residual, rounded and offset by zero_point if C holds
   bytes. C is not read where beta is 0. */
typedef struct {
    double alpha, beta;
    double alpha_imag, beta_imag;
    double a_imag_sign, c_imag_sign; /* 1 or -1, for conjugate operands (kernels/call_args.py) */
    char *partial_sums;              /* sums between blocks of k, where C's type can't hold them */
    int64_t is_first_k_block, is_last_k_block;
    const char *bias;     /* accumulators' type; NK_READ_PADDING elements follow */
    const char *residual; /* C's type, row-major */
    int64_t ldr;          /* leading dimension of the residual */
    double clip_low, clip_high;
    int64_t fused;                                 /* nk_problem.epilogue without its kind */
    const char *const *a_blocks, *const *b_blocks; /* batch-reduce: addresses of the operands */
    int64_t block_count;                           /* 0: a single product */
    const char *scales; /* float32, one for each column; NK_READ_PADDING elements follow */
    double zero_point;
    int64_t triangle; /* nk_triangle of C; 0: all of C is computed */
} nk_call_args;

/* ---- plans ---- */

/* Generated functions; codegen/spec.py has their contracts. */
typedef void (*nk_microkernel)(int64_t k, const void *a, int64_t lda, const void *b, int64_t ldb,
                               void *c, int64_t ldc, int64_t n, int64_t accumulate, void *panel,
                               const void *line, int64_t line_step, int64_t lines,
                               const nk_call_args *args);
typedef void (*nk_pack)(int64_t n, int64_t k, const void *source, int64_t line_stride,
                        int64_t k_stride, void *panel);
typedef void (*nk_copy)(int64_t m, int64_t n, const void *source, int64_t source_rs,
                        int64_t source_cs, void *target, int64_t target_rs, int64_t target_cs);
typedef void (*nk_mirror)(int64_t m, int64_t n, const void *source, int64_t source_rs, void *target,
                          int64_t target_rs);
typedef void (*nk_triangular)(int64_t k, const void *a, int64_t a_rs, int64_t a_cs,
                              const void *diagonal, void *x, int64_t ldx);
typedef void (*nk_small)(int64_t count, const void *a, int64_t a_stride, const void *b,
                         int64_t b_stride, void *c, int64_t c_stride);
typedef void (*nk_peak)(int64_t steps, void *out);

/* One dimension of C divided into register tiles: the first `main_tiles` have `tile` rows (columns),
   the others `edge_tile`. A cache block (mc, nc) has `block_tiles` tiles. */
typedef struct {
    int64_t tile, main_tiles, edge_tile, tiles, block_tiles;
} nk_tiling;

typedef struct nk_trial nk_trial;

typedef struct {
    nk_problem problem;
    double nanoseconds;    /* estimated time on one thread */
    int64_t tier_up_after; /* products until the engine asks for a better plan; 0: never */
    nk_small small;        /* the whole product, for dense operands; or NULL */
    /* Rows of C with few columns and a short sum (of a single row, its columns: C.T = B.T @ A.T),
       each of them a product of its own: row_block does block_rows dense ones, single_row one with
       any leading dimensions. Or NULL. */
    nk_small row_block, single_row;
    int64_t block_rows;
    nk_tiling m, n;
    int64_t kc;     /* 0: the problem is left to NumPy */
    int64_t k_step; /* values of k in a step of the microkernel; panels hold whole steps */
    int64_t a_panel_itemsize, b_panel_itemsize; /* bytes */
    int64_t b_panel_header;       /* bytes before the first step of a panel of B, for each column */
    int64_t accumulator_itemsize; /* bytes */
    int64_t partial_sum_itemsize; /* the same if C can't hold sums between blocks of k; else 0 */
    int64_t blocks_per_pass; /* batch-reduce: products added up in registers (operands fit L2) */
    int32_t pack_a, pack_b;
    int32_t keeps_a_panels;   /* all of A is packed once, for all blocks of columns */
    int32_t b_panels_along_k; /* panels of B hold columns along k, which `copy` packs */
    int32_t spans_columns;    /* a microkernel does all columns of a cache block in one call */
    int32_t is_memory_bound;  /* no operand is used often: bandwidth limits it */
    int32_t ir_outside;       /* order of the two inner loops: ir around jr; else jr around ir */
    /* [is an edge row][is an edge column]; where NULL, [0][0] works on a tile in a buffer */
    nk_microkernel microkernel[2][2];
    nk_microkernel packing_microkernel; /* [0][0], which packs B too; NULL: pack_b_panel does */
    nk_pack pack_a_panel, pack_b_panel;
    nk_copy copy;     /* tiles of a C that a microkernel can't store to */
    int32_t triangle; /* nk_triangle: only the tiles that touch it are computed; 0: all tiles are */
    /* Not NULL: copies the elements of the lower triangle to the upper one. Else elements outside the
       triangle are not stored. Of a triangular A, copies a
       column-major B to panels and back. */
    nk_mirror mirror;
    nk_triangular multiply, solve; /* of a triangular A: a tile of A @ X, and of inv(A) @ X */
    nk_trial *trial;               /* NULL: there is none */
} nk_plan;

/* trial.c: a plan with the same bits, the challenger, does some of the products of a problem, and is
   compared with the present plan in pairs of products. */
enum { NK_TRIAL_PAIRS = 32 };
typedef enum { NK_UNDECIDED, NK_LOST, NK_WON } nk_verdict;
struct nk_trial {
    nk_plan challenger;
    int64_t calls;    /* of this trial and those before it */
    double spent_ns;  /* what challengers took longer, in all of them */
    double plan_ns;   /* time of a product with the present plan, in the last pair; 0: unknown */
    int32_t is_taken; /* whether a thread times a product */
    int32_t is_warm;  /* whether the challenger has done a product */
    int32_t pairs, wins;
    int32_t verdict;               /* nk_verdict */
    double ratios[NK_TRIAL_PAIRS]; /* by pair: the challenger's time over the present plan's */
    double first_ns;               /* of half a pair; 0: no pair has begun */
    int64_t first_count;           /* products of that half */
    int32_t first_is_challenger;
    uint64_t random; /* state of the generator that decides who is first; not 0 */
};
/* Add the result of a pair, and decide if that is possible. */
void nk_trial_add(nk_trial *trial, double ratio);

/* plan_table.c: any number of threads look up, one at a time inserts (planning_lock). */
nk_plan *nk_table_find(const nk_problem *problem);
int nk_table_insert(const nk_plan *plan); /* copies it and its trial; -1: out of memory */
void nk_table_clear(void);                /* callers as for nk_table_insert */

/* similar_plan.c: the largest size that has the same plans, apart from its tiles; and the problems
   under which the table holds the plan of all sizes of a class of n, or of k. */
int64_t nk_size_class(int64_t size);
nk_problem nk_class_in_n(const nk_problem *problem);
nk_problem nk_class_in_k(const nk_problem *problem);
/* Make the plan of a problem from that of a class; returns the table's entry, or NULL. */
nk_plan *nk_find_similar(const nk_problem *problem, nk_plan *similar);

/* ---- execution ---- */

/* dispatch.c */

/* The problem of a stack of products. The matrices, the stack and the arguments are changed to those
   that its plan works on: a stack that is one product with more rows or columns is folded into it,
   and a column-major C becomes row-major by transposing all three matrices, which exchanges A and B;
   but not where B is packed. */
nk_problem nk_describe(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix *a, nk_matrix *b,
                       nk_matrix *c, int64_t *count, nk_batch_strides *strides, nk_call_args *args);

/* Multiply `count` matrices of a stack; returns how many were multiplied: all of them, or 0 if NumPy
   has to do them. If m, n or k is 0, args has to be nk_plain_args, except for its signs; alpha is
   never 0. */
int64_t nk_gemm(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix a, nk_matrix b,
                nk_matrix c, int64_t count, nk_batch_strides strides, nk_call_args args);
extern const nk_call_args nk_plain_args; /* C = A @ B */

/* A copy of the plan for a problem; 0: there is none, or no kernels. */
int nk_find_plan(const nk_problem *problem, nk_plan *plan);

/* counters.c */

/* Products that nkblas was called for, and those of them that NumPy did; each matrix of a stack
   counts. Kernels that were compiled for this process, and loaded from the store or the package. */
typedef struct {
    uint64_t calls, fallbacks, kernels_compiled, kernels_loaded;
} nk_counters;
nk_counters *nk_get_counters(void);

/* The first page of a process's file of counters: as they are now, and as they were when the file was
   made. Two tables follow, of records now and then, of NK_FILE_RECORDS entries each; free entries have
   no products. */
typedef struct {
    nk_counters now, before;
    uint64_t record_size; /* sizeof(nk_record) */
} nk_counter_file;
enum { NK_FILE_RECORDS = 4096 };

/* Have this process (if is_counted) and those that it forks count in files in a folder; 0: that is not
   possible. */
int nk_count_in_files(const char *folder, int is_counted);

/* level3.c: products and systems of which a triangle is computed or read. args has alpha, beta and
   the signs of conjugates. All sizes are 1 or more, and alpha is not 0. They return 1; or 0, where the
   engine has no kernels, and C is unchanged. */

/* One triangle of C = alpha * A @ B + beta * C: C is n x n, A is n x k. */
int32_t nk_gemmt(int32_t dtype, nk_triangle triangle, int64_t n, int64_t k, nk_matrix a,
                 nk_matrix b, nk_matrix c, nk_call_args args);
/* C = alpha * A @ B + beta * C: A is m x m, symmetric or Hermitian, and its triangle `stored` is
   read. */
int32_t nk_symm(int32_t dtype, nk_triangle stored, int32_t is_hermitian, int64_t m, int64_t n,
                nk_matrix a, nk_matrix b, nk_matrix c, nk_call_args args);
/* B = alpha * A @ B, and B = alpha * inv(A) @ B, in place: A is m x m and triangular; its diagonal is
   not read if it is that of a unit matrix. */
int32_t nk_trmm(int32_t dtype, nk_triangle stored, int32_t is_unit, int64_t m, int64_t n,
                nk_matrix a, nk_matrix b, nk_call_args args);
int32_t nk_trsm(int32_t dtype, nk_triangle stored, int32_t is_unit, int64_t m, int64_t n,
                nk_matrix a, nk_matrix b, nk_call_args args);

/* partition.c */

/* Run a plan on a stack, on at most `threads` threads; returns `count`, or 0 if out of
   memory. */
int64_t nk_run_plan(const nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c, int64_t count,
                    nk_batch_strides strides, nk_call_args args, int32_t threads);
/* How many threads, at most `max_threads`, are worth waking for a job that takes `nanoseconds` on
   one. */
int32_t nk_threads_for(double nanoseconds, int32_t max_threads);

/* thread_pool.c: threads that a product may use, the caller's included. */
void nk_set_num_threads(int32_t threads);
int32_t nk_get_num_threads(void);

/* record.c: products by problem, counted while recordings are active. */
typedef struct {
    nk_problem problem;
    int64_t products, nanoseconds;
} nk_record;
void nk_start_recording(void);
void nk_stop_recording(void);
/* Copies at most `max_records` records; returns how many there are. */
int64_t nk_recorded(nk_record *out, int64_t max_records);

/* loader.c: opens a shared library given as bytes, for the rest of the process's life; or NULL and a
   message. */
void *nk_open_library(const void *bytes, size_t size, const char *name, char *message,
                      size_t message_size);
/* The address of a function of an open library; NULL if it has none of this name. */
void *nk_find_function(void *library, const char *name);

/* cpuid.c. Feature words are named by leaf, sub-leaf and register. */
typedef enum {
    NK_LEAF_1_ECX,
    NK_LEAF_7_0_EBX,
    NK_LEAF_7_0_ECX,
    NK_LEAF_7_0_EDX,
    NK_LEAF_7_1_EAX,
    NK_LEAF_7_1_EDX,
    NK_LEAF_24_0_EBX,       /* leaf 0x24, AVX10: version and vector lengths */
    NK_LEAF_EXTENDED_1_ECX, /* leaf 0x80000001 */
    NK_FEATURE_WORDS,
} nk_feature_word;

typedef struct {
    char vendor[13], brand[49];
    int32_t family, model, stepping;
    uint32_t words[NK_FEATURE_WORDS]; /* indexed by nk_feature_word */
    uint64_t xcr0;
    int64_t l1d, l2, l3; /* bytes of one cache; 0: unknown */
    int32_t l1d_ways, l2_ways, l3_ways;
    int32_t amx_permitted;
} nk_cpu;
void nk_detect(nk_cpu *cpu);

/* cffi: end */

/* Called for a problem that the table lacks, or whose plan's tier_up_after is reached. Returns 1 if
   the table has a plan for it now, 0 if this call is left to NumPy. NULL: there is no handler. */
extern int (*nk_miss_handler)(const nk_problem *problem);
int nk_call_python_miss_handler(const nk_problem *problem); /* miss_handler.c */
/* miss_handler.c: whether this thread is one that Python does not know. While `never_waits` is set, a
   miss of such a thread does not wait for the GIL: this call is left to another BLAS, and Python's
   main thread plans the problem when it can. */
int nk_is_foreign_thread(void);
void nk_set_never_waits(int32_t never_waits);

/* dispatch.c: as nk_gemm, for sizes of 1 or more, without counting. */
int64_t nk_run_gemm(int32_t dtype, int64_t m, int64_t n, int64_t k, nk_matrix a, nk_matrix b,
                    nk_matrix c, int64_t count, nk_batch_strides strides, nk_call_args args);

/* trial.c: as nk_run_plan, with one of the two plans of a trial. */
int64_t nk_run_trial(nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c, int64_t count,
                     nk_batch_strides strides, nk_call_args args, int32_t threads);

/* macrokernel.c: the tiles [i0, i1) x [j0, j1) of C, for all of k; 0: out of memory. With
   args.block_count, the sum over the blocks. */
int nk_run_tiles(const nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c, nk_call_args args,
                 int64_t i0, int64_t i1, int64_t j0, int64_t j1);
int64_t nk_k_steps(const nk_plan *plan, int64_t k); /* steps of the microkernel for k */

/* counters.c: count products that nkblas was called for, and is done with, or leaves to NumPy; returns
   `done`. */
int64_t nk_count_products(int64_t count, int64_t done);

/* record.c */
/* Count in a table of NK_FILE_RECORDS entries, which has the present records now, as `before`. */
void nk_move_records(nk_record *table, nk_record *before);
extern int32_t nk_active_recordings;
void nk_record_products(const nk_problem *problem, int64_t products, int64_t nanoseconds);

/* plan_table.c: what a thread finds in the table between these two calls is not freed meanwhile.
   nk_reader_enter returns NULL if out of memory. */
typedef struct nk_reader nk_reader;
nk_reader *nk_reader_enter(void);
void nk_reader_exit(nk_reader *reader);
size_t nk_hash(const nk_problem *problem);

/* thread_pool.c: call work(job, i) for each i < chunks, on at most `threads` threads, the caller's
   included. `nanoseconds` is the estimated time on one thread. Floating-point flags and modes are
   as if the caller had done it alone. */
void nk_parallel(int32_t threads, double nanoseconds, int64_t chunks,
                 void (*work)(void *job, int64_t chunk), void *job);
int64_t nk_monotonic_ns(void);

/* memory.c: this thread's packing buffers, one of each size in bytes; 0: out of memory. */
int nk_packing_buffers(const int64_t *sizes, char **buffers, int count);
/* This thread's buffers for blocks of operands, which products inside the same call do not use. */
int nk_block_buffers(const int64_t *sizes, char **buffers, int count);

static inline int64_t nk_min(int64_t x, int64_t y) { return x < y ? x : y; }
static inline int64_t nk_max(int64_t x, int64_t y) { return x > y ? x : y; }

/* The first row (column) of a tile. */
static inline int64_t nk_tile_start(const nk_tiling *tiling, int64_t tile)
{
    int64_t main_tiles = nk_min(tile, tiling->main_tiles);
    return main_tiles * tiling->tile + (tile - main_tiles) * tiling->edge_tile;
}

static inline nk_matrix nk_transposed(nk_matrix x)
{
    return (nk_matrix){x.data, x.cs, x.rs, x.is_packed};
}

static inline char *nk_element(nk_matrix x, int64_t i, int64_t j, int64_t itemsize)
{
    return x.data + (i * x.rs + j * x.cs) * itemsize;
}

static inline nk_matrix nk_offset(nk_matrix x, int64_t elements, int64_t itemsize)
{
    x.data += elements * itemsize;
    return x;
}

static inline const nk_itemsizes *nk_itemsizes_of(int32_t dtype)
{
    return &nk_products[dtype].itemsizes;
}

static inline int nk_is_complex(int32_t dtype)
{
    return dtype == NK_COMPLEX64 || dtype == NK_COMPLEX128;
}

/* The triangle that a triangle becomes by transposing its matrix. */
static inline nk_triangle nk_transposed_triangle(nk_triangle triangle)
{
    return triangle == NK_LOWER ? NK_UPPER : NK_LOWER;
}

static inline int64_t nk_leading_dimension(nk_matrix x, int8_t layout)
{
    return layout == NK_ROW ? x.rs : x.cs;
}

#endif

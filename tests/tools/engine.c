/* A test of the engine: several callers at once, with products of many shapes, while plans are
   inserted, replaced and removed. Each product must be right, without a data race or an access to
   freed memory; test_memory.py compiles this with ThreadSanitizer, and with AddressSanitizer. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "nkblas.h"

enum { CALLERS = 3, MAX_LENGTH = 12, MAX_PLANS = 100 };
static int products;
static int clears;

/* Computes one row of C. */
static void microkernel(int64_t k, const void *a, int64_t lda, const void *b, int64_t ldb, void *c,
                        int64_t ldc, int64_t n, int64_t accumulate, void *panel, const void *line,
                        int64_t line_step, int64_t lines, const nk_call_args *args)
{
    (void)lda, (void)ldc, (void)panel, (void)line, (void)line_step, (void)lines, (void)args;
    for (int64_t j = 0; j < n; j++) {
        float sum = accumulate ? ((float *)c)[j] : 0;
        for (int64_t p = 0; p < k; p++)
            sum += ((const float *)a)[p] * ((const float *)b)[p * ldb + j];
        ((float *)c)[j] = sum;
    }
}

/* The miss handler. It inserts a plan; the first one of a problem serves only some products. */
static int insert_plan(const nk_problem *problem)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static int inserted;
    pthread_mutex_lock(&lock);
    int has_plan = nk_table_find(problem) != NULL;
    if (++inserted % MAX_PLANS == 0) {
        nk_table_clear();
        clears++;
    }
    nk_plan plan = {.problem = *problem,
                    .nanoseconds = 100000,
                    .tier_up_after = has_plan ? 0 : 7,
                    .m = {1, problem->m, 0, problem->m, 2},
                    .n = {4, problem->n / 4},
                    .kc = problem->k,
                    .k_step = 1,
                    .accumulator_itemsize = 4};
    plan.n.edge_tile = problem->n % 4;
    plan.n.tiles = plan.n.main_tiles + (plan.n.edge_tile > 0);
    plan.n.block_tiles = plan.n.tiles;
    plan.microkernel[0][0] = plan.microkernel[0][1] = microkernel;
    int is_inserted = nk_table_insert(&plan) == 0;
    pthread_mutex_unlock(&lock);
    return is_inserted;
}

static void *multiply(void *caller_seed)
{
    unsigned seed = (unsigned)(uintptr_t)caller_seed;
    float ones[MAX_LENGTH * MAX_LENGTH], c[MAX_LENGTH * MAX_LENGTH];
    for (int i = 0; i < MAX_LENGTH * MAX_LENGTH; i++)
        ones[i] = 1;
    for (int i = 0; i < products; i++) {
        int64_t m = 1 + rand_r(&seed) % MAX_LENGTH, n = 2 + rand_r(&seed) % (MAX_LENGTH - 1);
        int64_t k = 1 + rand_r(&seed) % MAX_LENGTH;
        nk_matrix a = {(char *)ones, k, 1, 0}, b = {(char *)ones, n, 1, 0},
                  z = {(char *)c, n, 1, 0};
        int recorded = rand_r(&seed) % 64 == 0;
        if (recorded)
            nk_start_recording();
        /* 0 if the plan has just been removed: the caller would leave the product to NumPy */
        int64_t done =
            nk_gemm(NK_FLOAT32, m, n, k, a, b, z, 1, (nk_batch_strides){0, 0, 0}, nk_plain_args);
        if (recorded)
            nk_stop_recording();
        for (int64_t j = 0; done && j < m * n; j++)
            if (c[j] != (float)k) {
                printf("%dx%dx%d: %g\n", (int)m, (int)n, (int)k, c[j]);
                exit(1);
            }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t callers[CALLERS];
    products = argc > 1 ? atoi(argv[1]) : 1;
    nk_miss_handler = insert_plan;
    nk_set_num_threads(2);
    for (int round = 0; round < 2; round++) { /* new threads, after the first ones have ended */
        for (uintptr_t i = 0; i < CALLERS; i++)
            pthread_create(&callers[i], NULL, multiply, (void *)(i + CALLERS * round));
        for (int i = 0; i < CALLERS; i++)
            pthread_join(callers[i], NULL);
    }
    puts(clears ? "done" : "the table was never cleared");
    return 0;
}

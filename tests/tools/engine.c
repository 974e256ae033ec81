/* Callers of the engine at once, with products of many shapes, while plans come, are replaced and
   taken out: is each product right, without a race or a look at what was freed? test_memory.py has
   ThreadSanitizer look on, and AddressSanitizer. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "nkblas.h"

enum { CALLERS = 3, SIDE = 12, MOST = 100 };
static int products;
static int cleared;

/* A row of C. */
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

/* What the engine asks for plans: the first one of a problem lasts for some products. */
static int ask(const nk_problem *problem)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static int inserted;
    pthread_mutex_lock(&lock);
    int known = nk_table_find(problem) != NULL;
    if (++inserted % MOST == 0) {
        nk_table_clear();
        cleared++;
    }
    nk_plan plan = {.problem = *problem,
                    .nanoseconds = 100000,
                    .tier_up_after = known ? 0 : 7,
                    .m = {1, problem->m, 0, problem->m, 2},
                    .n = {4, problem->n / 4},
                    .kc = problem->k,
                    .k_step = 1,
                    .accumulator_itemsize = 4};
    plan.n.edge_tile = problem->n % 4;
    plan.n.tiles = plan.n.main_tiles + (plan.n.edge_tile > 0);
    plan.n.block_tiles = plan.n.tiles;
    plan.microkernel[0][0] = plan.microkernel[0][1] = microkernel;
    int done = nk_table_insert(&plan) == 0;
    pthread_mutex_unlock(&lock);
    return done;
}

static void *call(void *seed_of_caller)
{
    unsigned seed = (unsigned)(uintptr_t)seed_of_caller;
    float ones[SIDE * SIDE], c[SIDE * SIDE];
    for (int i = 0; i < SIDE * SIDE; i++)
        ones[i] = 1;
    for (int i = 0; i < products; i++) {
        int64_t m = 1 + rand_r(&seed) % SIDE, n = 2 + rand_r(&seed) % (SIDE - 1);
        int64_t k = 1 + rand_r(&seed) % SIDE;
        nk_matrix a = {(char *)ones, k, 1, 0}, b = {(char *)ones, n, 1, 0},
                  z = {(char *)c, n, 1, 0};
        int recorded = rand_r(&seed) % 64 == 0;
        if (recorded)
            nk_start_recording();
        /* who finds that the plan has just been taken out leaves the product to others */
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
    nk_miss_handler = ask;
    nk_set_num_threads(2);
    for (int times = 0; times < 2; times++) { /* other threads, after the first ones */
        for (uintptr_t i = 0; i < CALLERS; i++)
            pthread_create(&callers[i], NULL, call, (void *)(i + CALLERS * times));
        for (int i = 0; i < CALLERS; i++)
            pthread_join(callers[i], NULL);
    }
    puts(cleared ? "done" : "the table was never full");
    return 0;
}

/* The routines of BLAS that nkblas offers to C, Fortran and Cython code. */
#ifndef NK_ROUTINES_H
#define NK_ROUTINES_H

#include <stdint.h>

/* One routine with one size of integers. */
typedef struct {
    const char *name; /* as its callers link it: "cblas_dgemm", "dgemm_"; with 64-bit integers
                         "cblas_dgemm64_", "dgemm_64_" */
    void *function;
    void *original; /* another BLAS's function of the same interface, which does what nkblas can't;
                       NULL: there is none */
    uint64_t calls;
} nk_routine;

extern nk_routine nk_routines[];
extern const int nk_routine_count;

#endif

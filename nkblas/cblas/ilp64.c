/* The entries with 64-bit integers: cblas_dgemm64_, dgemm_64_. */
#include <stdint.h>

#define INT int64_t
#define CBLAS(name) CBLAS_NAME(name)
#define CBLAS_NAME(name) cblas_##name##64_
#define FORTRAN(name) FORTRAN_NAME(name)
#define FORTRAN_NAME(name) name##_64_
#define CBLAS_ENTRY NK_CBLAS_ILP64
#define FORTRAN_ENTRY NK_FORTRAN_ILP64
#include "entries_template.h"

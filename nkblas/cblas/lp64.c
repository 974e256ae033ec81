/* The entries with 32-bit integers: cblas_dgemm, dgemm_. */
#include <stdint.h>

#define INT int32_t
#define CBLAS(name) CBLAS_NAME(name)
#define CBLAS_NAME(name) cblas_##name
#define FORTRAN(name) FORTRAN_NAME(name)
#define FORTRAN_NAME(name) name##_
#define CBLAS_ENTRY NK_CBLAS_LP64
#define FORTRAN_ENTRY NK_FORTRAN_LP64
#include "entries_template.h"

/* Doors: the memory through which the compiled modules of NumPy and SciPy call the functions of
   another BLAS. Such a word (a jump slot, or a pointer in a table) is filled by the loader, by a
   relocation that names the function; it is opened by writing the address of nkblas's routine of
   that name there. No code is changed. */
#ifndef NK_DOORS_H
#define NK_DOORS_H

#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

/* The order is that of DoorState in api/doors.py. */
typedef enum {
    NK_DOOR_CLOSED,      /* it leads to the other BLAS */
    NK_DOOR_OPEN,        /* it leads to nkblas */
    NK_DOOR_READ_ONLY,   /* left as it is: its memory is write-protected (full RELRO) */
    NK_DOOR_FOREIGN,     /* left as it is: it holds another address than the loader's */
    NK_DOOR_UNSUPPORTED, /* left as it is: the BLAS has 64-bit integers under a name of 32-bit ones */
} nk_door_state;

typedef struct {
    const char *path;   /* of the module */
    const char *symbol; /* as the module imports it: "scipy_cblas_dgemm64_", "dgemm_" */
    void **slot;
    int32_t state;  /* nk_door_state */
    uint64_t calls; /* of the routine, through all doors that lead to it */
} nk_door;

/* doors.c: any number of threads at the same time. `folders`: strings, the last one empty; doors are
   searched in the shared libraries in them, each of which stays in memory from then on. */

/* Open the doors of all libraries that are loaded. -1: out of memory, some doors may be closed. */
int nk_open_doors(const char *folders);
/* While doors are open: open those of libraries that were loaded since, and those that a thread which
   called through them meanwhile has closed (by binding the symbol). */
int nk_keep_doors_open(const char *folders);
void nk_close_doors(void);
/* Copies at most `max_doors` descriptions; returns how many doors there are. */
int64_t nk_list_doors(nk_door *out, int64_t max_doors);

/* While it is on, this thread's calls of routines go on to the functions that were there, uncounted:
   NumPy is doing a product that nkblas has left to it. */
void nk_pass_through(int32_t on);

/* cffi: end */

int nk_passes_through(void);

#endif

/* The table of the routines. */
#include "routines.h"

#include "entries.h"

/* In the order of nk_entry. */
#define ENTRIES(name)                                                                              \
    {"cblas_" #name, (void *)cblas_##name, 0, 0}, {#name "_", (void *)name##_, 0, 0},              \
        {"cblas_" #name "64_", (void *)cblas_##name##64_, 0, 0},                                   \
        {#name "_64_", (void *)name##_64_, 0, 0},

nk_routine nk_routines[] = {NK_FOR_EACH_ROUTINE(ENTRIES)};

const int nk_routine_count = sizeof nk_routines / sizeof *nk_routines;

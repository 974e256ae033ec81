/* Doors of NumPy's and SciPy's compiled modules (doors.h), on Linux on x86-64.

   The state of a door is what its memory holds, so that nothing can contradict it. Threads may be
   calling through a door that is moved: they get the old function or the new one, and neither ever
   goes away. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doors.h"
#include "routines.h"

/* What the loader writes to a door: the function that it finds by the order of its search, program
   and global libraries first; and until the first call the address of a stub in the module, which
   finds the function. */
enum { GLOBAL, OWN, STUB, BINDINGS };

typedef struct {
    void **slot;
    void *bindings[BINDINGS]; /* NULL: there is none */
    void *previous;           /* what it held before nkblas wrote to it; NULL: nkblas never has */
    nk_routine *routine;
    const char *path, *symbol;
    int is_writable, is_supported;
} door;

/* A library whose doors are known. It is never unloaded: there is a handle of dlopen. */
typedef struct {
    char *path;
    ElfW(Addr) base;
} module;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int is_open; /* whether doors should be open */
static door *doors;
static size_t door_count, door_capacity;
static module *modules;
static size_t module_count, module_capacity;
static nk_routine **sorted_routines;
static _Thread_local int passes_through;

void nk_pass_through(int32_t on) { passes_through = on; }

int nk_passes_through(void) { return passes_through; }

/* ---- routines ---- */

static int compare_routines(const void *x, const void *y)
{
    return strcmp((*(nk_routine *const *)x)->name, (*(nk_routine *const *)y)->name);
}

static int sort_routines(void)
{
    if (sorted_routines)
        return 1;
    sorted_routines = malloc((size_t)nk_routine_count * sizeof *sorted_routines);
    if (!sorted_routines)
        return 0;
    for (int i = 0; i < nk_routine_count; i++)
        sorted_routines[i] = &nk_routines[i];
    qsort(sorted_routines, (size_t)nk_routine_count, sizeof *sorted_routines, compare_routines);
    return 1;
}

/* The routine that a symbol names; the OpenBLAS of NumPy's and SciPy's wheels adds a prefix. */
static nk_routine *find_routine(const char *symbol)
{
    static const char prefix[] = "scipy_";
    if (!strncmp(symbol, prefix, sizeof prefix - 1))
        symbol += sizeof prefix - 1;
    const nk_routine key = {.name = symbol}, *address = &key;
    nk_routine **found = bsearch(&address, sorted_routines, (size_t)nk_routine_count,
                                 sizeof *sorted_routines, compare_routines);
    return found ? *found : NULL;
}

/* ---- finding doors ---- */

/* Make room for one more element; 0: out of memory. */
static int grow(void **array, size_t count, size_t *capacity, size_t itemsize)
{
    if (count < *capacity)
        return 1;
    size_t larger = *capacity ? 2 * *capacity : 64;
    void *moved = realloc(*array, larger * itemsize);
    if (!moved)
        return 0;
    *array = moved;
    *capacity = larger;
    return 1;
}

/* The address of the object in memory which contains an address; NULL: none does. */
static void *object_of(const void *address)
{
    Dl_info info;
    return dladdr(address, &info) ? info.dli_fbase : NULL;
}

/* Whether a function is of a BLAS with 64-bit integers, whatever its name: MKL, and distributions'
   packages of OpenBLAS, have libraries with the plain names. */
static int has_long_integers(const void *function)
{
    Dl_info info;
    if (!dladdr(function, &info) || !info.dli_fname)
        return 0;
    const char *slash = strrchr(info.dli_fname, '/'), *name = slash ? slash : info.dli_fname;
    return strstr(name, "ilp64") || strstr(name, "blas64");
}

static void find_bindings(door *x, void *library)
{
    static void *program;
    if (!program)
        program = dlopen(NULL, RTLD_LAZY);
    x->bindings[GLOBAL] = program ? dlsym(program, x->symbol) : NULL;
    x->bindings[OWN] = dlsym(library, x->symbol);
    for (int i = GLOBAL; i <= OWN; i++)
        if (x->bindings[i] == x->routine->function)
            x->bindings[i] = NULL; /* the engine itself is loaded globally */
    void *value = __atomic_load_n(x->slot, __ATOMIC_ACQUIRE);
    if (value != x->bindings[GLOBAL] && value != x->bindings[OWN] && object_of(value) &&
        object_of(value) == object_of(x->slot))
        x->bindings[STUB] = value;
}

/* Add the door that a relocation describes, if it is one; 0: out of memory. */
static int add_door(void *library, const char *path, ElfW(Addr) base, const ElfW(Rela) * relocation,
                    const ElfW(Sym) * symbols, const char *names)
{
    unsigned type = ELF64_R_TYPE(relocation->r_info), index = ELF64_R_SYM(relocation->r_info);
    int is_address = type == R_X86_64_JUMP_SLOT || type == R_X86_64_GLOB_DAT ||
                     (type == R_X86_64_64 && relocation->r_addend == 0);
    uintptr_t address = base + relocation->r_offset;
    if (!is_address || !index || address % sizeof(void *))
        return 1;
    door x = {.slot = (void **)address, .path = path, .symbol = names + symbols[index].st_name};
    x.routine = find_routine(x.symbol);
    if (!x.routine)
        return 1;
    find_bindings(&x, library);
    void *original = x.bindings[GLOBAL] ? x.bindings[GLOBAL] : x.bindings[OWN];
    if (!original)
        return 1;
    x.is_supported = strstr(x.routine->name, "64_") || !has_long_integers(original);
    if (x.is_supported && !x.routine->original)
        __atomic_store_n(&x.routine->original, original, __ATOMIC_RELEASE);
    if (!grow((void **)&doors, door_count, &door_capacity, sizeof *doors))
        return 0;
    doors[door_count++] = x;
    return 1;
}

/* An address in a dynamic section; not every loader relocates those. */
static uintptr_t relocated(ElfW(Addr) base, ElfW(Addr) value)
{
    return value < base ? base + value : value;
}

/* Add the doors of a library; 0: out of memory. */
static int add_doors(void *library, const char *path)
{
    struct link_map *map;
    if (dlinfo(library, RTLD_DI_LINKMAP, &map))
        return 1;
    struct {
        uintptr_t start;
        size_t size;
    } tables[2] = {{0, 0}, {0, 0}};
    const ElfW(Sym) *symbols = NULL;
    const char *names = NULL;
    for (const ElfW(Dyn) *x = map->l_ld; x->d_tag != DT_NULL; x++)
        switch (x->d_tag) {
        case DT_RELA: tables[0].start = relocated(map->l_addr, x->d_un.d_ptr); break;
        case DT_RELASZ: tables[0].size = x->d_un.d_val; break;
        case DT_JMPREL: tables[1].start = relocated(map->l_addr, x->d_un.d_ptr); break;
        case DT_PLTRELSZ: tables[1].size = x->d_un.d_val; break;
        case DT_SYMTAB: symbols = (void *)relocated(map->l_addr, x->d_un.d_ptr); break;
        case DT_STRTAB: names = (void *)relocated(map->l_addr, x->d_un.d_ptr); break;
        default: break;
        }
    if (!symbols || !names)
        return 1;
    for (int i = 0; i < 2; i++) {
        const ElfW(Rela) *relocations = (void *)tables[i].start;
        size_t count = relocations ? tables[i].size / sizeof *relocations : 0;
        for (size_t j = 0; j < count; j++)
            if (!add_door(library, path, map->l_addr, &relocations[j], symbols, names))
                return 0;
    }
    return 1;
}

/* Find which doors, from `first` on, are in memory that can be written to. Without /proc, none is. */
static void find_protection(size_t first)
{
    FILE *maps = first < door_count ? fopen("/proc/self/maps", "re") : NULL;
    if (!maps)
        return;
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, maps) > 0) {
        uintptr_t start, end;
        char access[5];
        if (sscanf(line, "%lx-%lx %4s", &start, &end, access) != 3 || access[1] != 'w')
            continue;
        for (size_t i = first; i < door_count; i++)
            if ((uintptr_t)doors[i].slot >= start && (uintptr_t)doors[i].slot < end)
                doors[i].is_writable = 1;
    }
    free(line);
    fclose(maps);
}

static int is_inside(const char *path, const char *folders)
{
    for (size_t length; (length = strlen(folders)); folders += length + 1)
        if (!strncmp(path, folders, length) && path[length] == '/')
            return 1;
    return 0;
}

static int is_known(ElfW(Addr) base)
{
    for (size_t i = 0; i < module_count; i++)
        if (modules[i].base == base)
            return 1;
    return 0;
}

/* A library that is loaded, while all of them are listed: if its doors are not known, add it to the
   modules. (Nothing can be loaded or found by name meanwhile.) */
static int note_module(struct dl_phdr_info *info, size_t size, void *folders)
{
    (void)size;
    if (!is_inside(info->dlpi_name, folders) || is_known(info->dlpi_addr))
        return 0;
    module x = {strdup(info->dlpi_name), info->dlpi_addr};
    if (!x.path || !grow((void **)&modules, module_count, &module_capacity, sizeof *modules)) {
        free(x.path);
        return -1;
    }
    modules[module_count++] = x;
    return 0;
}

/* Add the doors of the libraries in `folders` that are not known yet; -1: out of memory. */
static int find_doors(const char *folders)
{
    size_t first_module = module_count, first_door = door_count, kept = module_count;
    int status = sort_routines() ? dl_iterate_phdr(note_module, (void *)folders) : -1;
    for (size_t i = first_module; i < module_count; i++) {
        /* waits until a thread that is loading it has relocated it */
        void *library = dlopen(modules[i].path, RTLD_LAZY | RTLD_NOLOAD);
        if (!library) {
            free(modules[i].path); /* it could not be loaded, or is unloaded */
            continue;
        }
        if (!add_doors(library, modules[i].path))
            status = -1;
        modules[kept++] = modules[i];
    }
    module_count = kept;
    find_protection(first_door);
    return status;
}

/* ---- moving doors ---- */

static int is_loaders(const door *x, const void *value)
{
    for (int i = 0; i < BINDINGS; i++)
        if (value && value == x->bindings[i])
            return 1;
    return 0;
}

static void open_door(door *x)
{
    void *value = __atomic_load_n(x->slot, __ATOMIC_ACQUIRE);
    if (!x->is_writable || !x->is_supported)
        return;
    while (is_loaders(x, value)) /* a loop: another thread may bind the symbol */
        if (__atomic_compare_exchange_n(x->slot, &value, x->routine->function, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE)) {
            x->previous = value;
            return;
        }
}

static void close_door(door *x)
{
    void *value = x->routine->function;
    if (x->previous)
        __atomic_compare_exchange_n(x->slot, &value, x->previous, 0, __ATOMIC_ACQ_REL,
                                    __ATOMIC_RELAXED);
}

static nk_door_state state_of(const door *x)
{
    void *value = __atomic_load_n(x->slot, __ATOMIC_RELAXED);
    if (value == x->routine->function)
        return NK_DOOR_OPEN;
    if (!is_loaders(x, value))
        return NK_DOOR_FOREIGN;
    if (!x->is_supported)
        return NK_DOOR_UNSUPPORTED;
    return x->is_writable ? NK_DOOR_CLOSED : NK_DOOR_READ_ONLY;
}

/* No fork comes between: its child would find the lock held by a thread that it lacks. */
static void acquire(void) { pthread_mutex_lock(&lock); }

static void release(void) { pthread_mutex_unlock(&lock); }

__attribute__((constructor)) static void register_fork_handlers(void)
{
    pthread_atfork(acquire, release, release);
}

static int open_all(const char *folders)
{
    int status = find_doors(folders);
    for (size_t i = 0; i < door_count; i++)
        open_door(&doors[i]);
    return status;
}

int nk_open_doors(const char *folders)
{
    acquire();
    is_open = 1;
    int status = open_all(folders);
    release();
    return status;
}

int nk_keep_doors_open(const char *folders)
{
    acquire();
    int status = is_open ? open_all(folders) : 0;
    release();
    return status;
}

void nk_close_doors(void)
{
    acquire();
    is_open = 0;
    for (size_t i = 0; i < door_count; i++)
        close_door(&doors[i]);
    release();
}

int64_t nk_list_doors(nk_door *out, int64_t max_doors)
{
    acquire();
    int64_t count = (int64_t)door_count;
    for (int64_t i = 0; i < count && i < max_doors; i++) {
        const door *x = &doors[i];
        uint64_t calls = __atomic_load_n(&x->routine->calls, __ATOMIC_RELAXED);
        out[i] = (nk_door){x->path, x->symbol, x->slot, state_of(x), calls};
    }
    release();
    return count;
}

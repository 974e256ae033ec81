/* The handler of illegal instructions: it loads the registers from the signal's frame and stores
   them there.

   Loaded before a program (LD_PRELOAD) it precedes any handler that is installed later. Instructions
   that it does not know are left to that handler, or end the process as usual. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/ucontext.h>
#include <ucontext.h>
#include <unistd.h>

#include "emulator.h"

/* ---- the frame: general registers, then the XSAVE area in its standard format */

enum { X87, SSE, AVX, OPMASK = 5, ZMM_HIGH, ZMM_16_TO_31 };
enum { TILE_CONFIGURATION = 17, TILE_DATA, COMPONENTS };
enum { XMM = 160, XSAVE_HEADER = 512, MAGIC = 0x46505853 };
static uint32_t offset[COMPONENTS], size[COMPONENTS];

static const int gregs_index[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                    REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                    REG_R12, REG_R13, REG_R14, REG_R15};

enum { EVEX_COMPONENTS = 1 << OPMASK | 1 << ZMM_HIGH | 1 << ZMM_16_TO_31 };

typedef struct {
    uint8_t *base;
    uint64_t present; /* components that the frame has */
    uint64_t *in_use; /* those that are not in their initial state, which is all zeros */
} frame;

static void find_components(void)
{
    uint32_t c, d;
    offset[SSE] = XMM, size[SSE] = 256;
    for (uint32_t n = AVX; n < COMPONENTS; n++)
        if (!__get_cpuid_count(0xD, n, &size[n], &offset[n], &c, &d))
            size[n] = 0;
}

static frame frame_of(const ucontext_t *context)
{
    uint8_t *base = (uint8_t *)context->uc_mcontext.fpregs;
    const struct _fpx_sw_bytes *software = (const void *)(base + 464);
    uint64_t present = software->magic1 == MAGIC ? software->xstate_bv : 0;
    return (frame){base, present, (uint64_t *)(void *)(base + XSAVE_HEADER)};
}

static int has(const frame *f, int n) { return f->present >> n & 1; }

/* The bytes of a component; NULL if the frame lacks it, or if it is in its initial state. */
static uint8_t *component(const frame *f, int n)
{
    return has(f, n) && *f->in_use >> n & 1 ? f->base + offset[n] : NULL;
}

/* The bytes of a component to write to; NULL if the frame lacks it. */
static uint8_t *writable(const frame *f, int n)
{
    if (!has(f, n))
        return NULL;
    if (!(*f->in_use >> n & 1)) {
        memset(f->base + offset[n], 0, size[n]);
        *f->in_use |= (uint64_t)1 << n;
    }
    return f->base + offset[n];
}

/* The components that hold the bytes of vector registers. */
static const struct part {
    int component, first, last, from, bytes;
} parts[] = {
    {SSE, 0, 15, 0, 16},
    {AVX, 0, 15, 16, 16},
    {ZMM_HIGH, 0, 15, 32, 32},
    {ZMM_16_TO_31, 16, 31, 0, 64},
};

static void load_tiles(machine *m, const frame *f)
{
    if (!has(f, TILE_CONFIGURATION))
        return;
    const uint8_t *config = component(f, TILE_CONFIGURATION);
    const uint8_t *data = component(f, TILE_DATA);
    memset(&tiles, 0, sizeof tiles);
    if (config)
        memcpy(&tiles.config, config, sizeof tiles.config);
    if (data)
        memcpy(tiles.data, data, sizeof tiles.data);
    m->no_tile_data = !has(f, TILE_DATA);
}

static void store_tiles(const frame *f)
{
    int is_configured = component(f, TILE_CONFIGURATION) || tiles.config.palette;
    uint8_t *config = is_configured ? writable(f, TILE_CONFIGURATION) : NULL;
    uint8_t *data = config ? writable(f, TILE_DATA) : NULL;
    if (config)
        memcpy(config, &tiles.config, sizeof tiles.config);
    if (data)
        memcpy(data, tiles.data, sizeof tiles.data);
}

static void load(machine *m, const ucontext_t *context, const frame *f)
{
    memset(m, 0, sizeof *m);
    for (const struct part *p = parts; p < parts + 4; p++) {
        const uint8_t *from = component(f, p->component);
        for (int r = p->first; from && r <= p->last; r++, from += p->bytes)
            memcpy(&m->zmm[r].u8[p->from], from, (size_t)p->bytes);
    }
    const uint8_t *masks = component(f, OPMASK);
    if (masks)
        memcpy(m->k, masks, sizeof m->k);
    const greg_t *registers = context->uc_mcontext.gregs;
    for (int n = 0; n < 16; n++)
        m->gpr[n] = (uint64_t)registers[gregs_index[n]];
    m->rip = (uint64_t)registers[REG_RIP];
    m->rflags = (uint64_t)registers[REG_EFL];
    load_tiles(m, f);
}

static void store(const machine *m, ucontext_t *context, const frame *f)
{
    for (const struct part *p = parts; p < parts + 4; p++)
        for (int r = p->first; r <= p->last; r++) {
            uint8_t *to = m->changed >> r & 1 ? writable(f, p->component) : NULL;
            if (to)
                memcpy(to + (r - p->first) * p->bytes, &m->zmm[r].u8[p->from], (size_t)p->bytes);
        }
    uint8_t *masks = m->masks_changed ? writable(f, OPMASK) : NULL;
    if (masks)
        memcpy(masks, m->k, sizeof m->k);
    greg_t *registers = context->uc_mcontext.gregs;
    for (int n = 0; n < 16; n++)
        registers[gregs_index[n]] = (greg_t)m->gpr[n];
    registers[REG_RIP] = (greg_t)m->rip;
    registers[REG_EFL] = (greg_t)m->rflags;
    store_tiles(f);
}

/* ---- the handler */

/* The handler that was installed before this one, or by the program since. */
static struct sigaction next;

static int system_sigaction(int number, const struct sigaction *wanted, struct sigaction *old)
{
    static int (*function)(int, const struct sigaction *, struct sigaction *);
    if (!function)
        *(void **)&function = dlsym(RTLD_NEXT, "sigaction");
    return function(number, wanted, old);
}

/* Print the first bytes of an instruction that can't be emulated. */
static void report(const uint8_t *code)
{
    static const char digits[] = "0123456789abcdef";
    char text[] = "emulator: can't carry out 00 00 00 00 00\n", *at = text + 26;
    if (*code != 0xC4 && *code != 0x62)
        return;
    for (int n = 0; n < 5; n++, at += 3)
        at[0] = digits[code[n] >> 4], at[1] = digits[code[n] & 15];
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
        return;
}

/* Leave a signal to the next handler. Without one the process ends, at this instruction. */
static void leave_to_next_handler(int number, siginfo_t *info, void *context)
{
    if (next.sa_handler == SIG_DFL || next.sa_handler == SIG_IGN) {
        struct sigaction none = {.sa_handler = SIG_DFL};
        if (next.sa_handler == SIG_IGN && info->si_code <= 0) /* sent, and ignored */
            return;
        system_sigaction(number, &none, NULL);
        if (info->si_code > 0)
            report(info->si_addr);
        else /* sent by a process: no instruction raises it again */
            raise(number);
    } else if (next.sa_flags & SA_SIGINFO) {
        next.sa_sigaction(number, info, context);
    } else {
        next.sa_handler(number);
    }
}

/* Emulate the instruction at RIP, if it is known and the frame has its registers. */
static int try_to_emulate(machine *m, const frame *f)
{
    int evex = *(const uint8_t *)(uintptr_t)m->rip == 0x62;
    return f->present && (!evex || (f->present & EVEX_COMPONENTS) == EVEX_COMPONENTS) && emulate(m);
}

static void handle(int number, siginfo_t *info, void *argument)
{
    ucontext_t *context = argument;
    frame f = frame_of(context);
    machine m;
    load(&m, context, &f);
    if (info->si_code > 0 && try_to_emulate(&m, &f)) {
        /* A signal takes much longer than an instruction: emulate the following ones too. */
        while (try_to_emulate(&m, &f))
            ;
        store(&m, context, &f);
    } else {
        leave_to_next_handler(number, info, argument);
    }
}

/* A CPU with AMX executes its instructions, but Linux requires a request for tile data. */
static void request_tiles(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023 };
    syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA);
}

__attribute__((constructor)) static void install(void)
{
    struct sigaction ours = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER};
    find_components();
    request_tiles();
    system_sigaction(SIGILL, &ours, &next);
}

/* For tests: on registers that were not saved by a signal. */
EXPORTED int emulator_emulate(machine *m) { return emulate(m); }

/* Instead of the system's: a handler that a program installs comes after this one. */
EXPORTED int sigaction(int number, const struct sigaction *wanted, struct sigaction *old)
{
    if (number != SIGILL)
        return system_sigaction(number, wanted, old);
    struct sigaction before = next;
    if (wanted)
        next = *wanted;
    if (old)
        *old = before;
    return 0;
}

EXPORTED void (*signal(int number, void (*handler)(int)))(int)
{
    struct sigaction wanted = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;
    return sigaction(number, &wanted, &old) ? SIG_ERR : old.sa_handler;
}

/* CPU detection by cpuid and xgetbv: the only assembly in the project. */
#include <cpuid.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "nkblas.h"

static uint64_t xgetbv(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Leaf 4 (Intel) and 0x8000001d (AMD) describe one cache for each subleaf, in the same form. */
static void detect_caches(nk_cpu *cpu, uint32_t leaf)
{
    uint32_t a, b, c, d;
    for (uint32_t i = 0; i < 16 && __get_cpuid_count(leaf, i, &a, &b, &c, &d); i++) {
        uint32_t type = a & 31, level = a >> 5 & 7;
        if (type == 0)
            return;
        if (type == 2) /* instructions */
            continue;
        int32_t ways = (int32_t)(b >> 22) + 1;
        int64_t size = (int64_t)ways * ((b >> 12 & 1023) + 1) * ((b & 4095) + 1) * ((int64_t)c + 1);
        if (level == 1)
            cpu->l1d = size, cpu->l1d_ways = ways;
        if (level == 2)
            cpu->l2 = size, cpu->l2_ways = ways;
        if (level == 3)
            cpu->l3 = size, cpu->l3_ways = ways;
    }
}

static int permit_amx(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}

void nk_detect(nk_cpu *cpu)
{
    uint32_t a, b, c, d;
    memset(cpu, 0, sizeof *cpu);
    if (!__get_cpuid(0, &a, &b, &c, &d))
        return;
    memcpy(cpu->vendor, &b, 4);
    memcpy(cpu->vendor + 4, &d, 4);
    memcpy(cpu->vendor + 8, &c, 4);

    __get_cpuid(1, &a, &b, &c, &d);
    cpu->stepping = (int32_t)(a & 15);
    cpu->model = (int32_t)(a >> 4 & 15);
    cpu->family = (int32_t)(a >> 8 & 15);
    if (cpu->family == 6 || cpu->family == 15)
        cpu->model |= (int32_t)(a >> 16 & 15) << 4;
    if (cpu->family == 15)
        cpu->family += (int32_t)(a >> 20 & 255);
    cpu->words[NK_LEAF_1_ECX] = c;
    if (c >> 27 & 1) /* OSXSAVE: XCR0 has the register states that the system saves */
        cpu->xcr0 = xgetbv();

    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        cpu->words[NK_LEAF_7_0_EBX] = b;
        cpu->words[NK_LEAF_7_0_ECX] = c;
        cpu->words[NK_LEAF_7_0_EDX] = d;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) {
            cpu->words[NK_LEAF_7_1_EAX] = a;
            cpu->words[NK_LEAF_7_1_EDX] = d;
        }
    }
    if (__get_cpuid_count(0x24, 0, &a, &b, &c, &d))
        cpu->words[NK_LEAF_24_0_EBX] = b;
    if (__get_cpuid(0x80000001, &a, &b, &c, &d))
        cpu->words[NK_LEAF_EXTENDED_1_ECX] = c;

    for (uint32_t i = 0; i < 3; i++) {
        uint32_t text[4];
        if (!__get_cpuid(0x80000002 + i, &text[0], &text[1], &text[2], &text[3]))
            break;
        memcpy(cpu->brand + 16 * i, text, sizeof text);
    }

    detect_caches(cpu, 4);
    if (!cpu->l1d)
        detect_caches(cpu, 0x8000001d);
    /* AMX-TILE, and the system saves the tile registers and their configuration */
    if ((cpu->words[NK_LEAF_7_0_EDX] >> 24 & 1) && (cpu->xcr0 >> 17 & 3) == 3)
        cpu->amx_permitted = permit_amx();
}

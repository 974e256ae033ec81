/* Counters of this process; and files of them, so that a process can add up what its children did.

   Such a file is mapped in the place of the counters' page and of the records: what is counted is in the
   file at once, however the process ends. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nkblas.h"

enum { PAGE = 4096 };

static union {
    nk_counters counters;
    nk_counter_file file;
    char page[PAGE];
} own __attribute__((aligned(PAGE)));

_Static_assert(sizeof own == PAGE, "counters are a page, which a file can replace");

static char folder[PATH_MAX - 32]; /* of the files; empty: there are none */

nk_counters *nk_get_counters(void) { return &own.counters; }

int64_t nk_count_products(int64_t count, int64_t done)
{
    __atomic_add_fetch(&own.counters.calls, (uint64_t)count, __ATOMIC_RELAXED);
    if (!done)
        __atomic_add_fetch(&own.counters.fallbacks, (uint64_t)count, __ATOMIC_RELAXED);
    return done;
}

/* A new file for this process; -1: none can be made. */
static int create_file(void)
{
    enum { MAX_PROCESSES_OF_AN_ID = 1000 };
    char path[PATH_MAX];
    for (int i = 0; i < MAX_PROCESSES_OF_AN_ID; i++) {
        snprintf(path, sizeof path, "%s/%ld.%d", folder, (long)getpid(), i);
        int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        /* with space on the disk: where a mapped file has none, writing is a signal */
        if (file >= 0 && !posix_fallocate(file, 0, PAGE + 2 * NK_FILE_RECORDS * sizeof(nk_record)))
            return file;
        if (file >= 0)
            close(file);
    }
    return -1;
}

/* Count in a new file from now on. What was counted before stays, and is noted as such. Where that is not
   possible, counters are the process's own, as before. */
static int use_file(void)
{
    int file = create_file();
    if (file < 0)
        return 0;
    size_t records_size = 2 * NK_FILE_RECORDS * sizeof(nk_record);
    typeof(own) first = own; /* the counters' own page may be that of the parent's file */
    first.file.before = first.file.now;
    first.file.record_size = sizeof(nk_record);
    void *records = mmap(NULL, records_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, PAGE);
    int is_written = pwrite(file, &first, PAGE, 0) == PAGE;
    if (records != MAP_FAILED && is_written &&
        mmap(&own, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) != MAP_FAILED) {
        nk_move_records(records, (nk_record *)records + NK_FILE_RECORDS);
        close(file);
        return 1;
    }
    close(file);
    return 0;
}

/* In the child of a fork: the mapped file is the parent's. */
static void use_own_file(void)
{
    if (folder[0])
        use_file();
}

int nk_count_in_files(const char *path, int is_counted)
{
    static int is_registered;
    if (strlen(path) >= sizeof folder)
        return 0;
    strcpy(folder, path);
    nk_start_recording(); /* for good; registers the handlers that have to run before ours */
    if (!is_registered && pthread_atfork(NULL, NULL, use_own_file))
        return 0;
    is_registered = 1;
    return !is_counted || use_file();
}

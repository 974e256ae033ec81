/* Loads generated code from bytes that were verified, by way of an anonymous file: whatever happens
   to the file in the cache, this process runs what was verified. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nkblas.h"

static int write_all(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t written = write(fd, data, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return -1;
        data += written;
        size -= (size_t)written;
    }
    return 0;
}

void *nk_open_library(const void *bytes, size_t size, const char *name, char *message,
                      size_t message_size)
{
    /* dlopen takes equal paths for the same library, and descriptors are reused: a serial number,
       whose bits are written as "./" and "/", makes each path unique. */
    static unsigned serial;
    char path[160];
    void *library = NULL;
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0 || write_all(fd, bytes, size)) {
        snprintf(message, message_size, "no anonymous file: %s", strerror(errno));
        goto done;
    }
    int length = snprintf(path, sizeof path, "/proc/self/fd/");
    for (unsigned bits = __atomic_add_fetch(&serial, 1, __ATOMIC_RELAXED); bits; bits >>= 1)
        length += snprintf(path + length, sizeof path - (size_t)length, bits & 1 ? "./" : "/");
    snprintf(path + length, sizeof path - (size_t)length, "%d", fd);

    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        snprintf(message, message_size, "%s", dlerror());
done:
    if (fd >= 0)
        close(fd);
    return library;
}

void *nk_find_function(void *library, const char *name) { return dlsym(library, name); }

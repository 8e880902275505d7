/* Lets a disk fail for a test: while the file named by FAIL_SYNC is there, the next fsync or fdatasync removes it and fails with
   EIO; while the one named by FAIL_CREATE is there, no file is made: ENOSPC, as on a disk without inodes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int armed(const char *name) {
    const char *path = getenv(name);
    return path && access(path, F_OK) == 0;
}

static int fails(void) {
    if (!armed("FAIL_SYNC")) return 0;
    unlink(getenv("FAIL_SYNC"));
    errno = EIO;
    return 1;
}

int fsync(int fd) { return fails() ? -1 : ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd); }

int fdatasync(int fd) { return fails() ? -1 : ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd); }

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;
    va_end(more);
    const char *end = strrchr(path, '.');
    if (flags & O_CREAT && armed("FAIL_CREATE") && end && strcmp(end, ".log") == 0 && access(path, F_OK) != 0) {
        errno = ENOSPC;
        return -1;
    }
    return ((int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open64"))(path, flags, mode);
}

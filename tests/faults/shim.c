/* Makes calls of the C library fail at chosen paths; compiled and preloaded by test_disk.py.

   SHIM_CALL    write, sync, open (to write), read, rename, mkdir or symlink
   SHIM_PLACE   extended regular expression over the path; a rename is known by its source
   SHIM_ERRNO   the error, a number
   SHIM_TIMES   how often each process fails; 0: always */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <regex.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int failed;

static int fails(const char *call, const char *path) {
    const char *wanted = getenv("SHIM_CALL"), *place = getenv("SHIM_PLACE");
    if (!wanted || !place || !path || strcmp(wanted, call)) return 0;
    regex_t expression;
    if (regcomp(&expression, place, REG_EXTENDED | REG_NOSUB)) abort();
    int other = regexec(&expression, path, 0, NULL, 0);
    regfree(&expression);
    if (other) return 0;
    int times = atoi(getenv("SHIM_TIMES"));
    if (times && __sync_fetch_and_add(&failed, 1) >= times) return 0;
    errno = atoi(getenv("SHIM_ERRNO"));
    return 1;
}

static int fails_at(const char *call, int descriptor) {
    const char *wanted = getenv("SHIM_CALL");
    if (!wanted || strcmp(wanted, call)) return 0;
    char link[64], path[PATH_MAX];
    int kept = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = kept;
    if (length < 0) return 0;
    path[length] = 0;
    return fails(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int f, const void *data, size_t n) {
    return fails_at("write", f) ? -1 : REAL(write)(f, data, n);
}
ssize_t writev(int f, const struct iovec *parts, int n) {
    return fails_at("write", f) ? -1 : REAL(writev)(f, parts, n);
}
ssize_t pwrite(int f, const void *data, size_t n, off_t at) {
    return fails_at("write", f) ? -1 : REAL(pwrite)(f, data, n, at);
}
ssize_t pwrite64(int f, const void *data, size_t n, off64_t at) {
    return fails_at("write", f) ? -1 : REAL(pwrite64)(f, data, n, at);
}
ssize_t read(int f, void *data, size_t n) {
    return fails_at("read", f) ? -1 : REAL(read)(f, data, n);
}
int fsync(int f) { return fails_at("sync", f) ? -1 : REAL(fsync)(f); }
int rename(const char *from, const char *to) {
    return fails("rename", from) ? -1 : REAL(rename)(from, to);
}
int mkdir(const char *path, mode_t mode) {
    return fails("mkdir", path) ? -1 : REAL(mkdir)(path, mode);
}
int symlink(const char *target, const char *path) {
    return fails("symlink", path) ? -1 : REAL(symlink)(target, path);
}

#define OPEN(name)                                                              \
    int name(const char *path, int flags, ...) {                                \
        va_list more;                                                           \
        va_start(more, flags);                                                  \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                           \
        if (flags & (O_WRONLY | O_RDWR) && fails("open", path)) return -1;      \
        return REAL(name)(path, flags, mode);                                   \
    }
OPEN(open)
OPEN(open64)

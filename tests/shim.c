/* A library to preload before libc that injects a fault at the k-th call that changes a directory.

   It counts the calls that create, write, flush, rename or remove something under the directory, whoever makes
   them, and writes each that succeeds to a journal, from which tests/disk.py works out what a power cut leaves.
   Linux only. A record of the journal is a line "OPERATION LENGTH LENGTH OFFSET LENGTH", two paths and bytes. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char under[PATH_MAX];
static int journal = -1, number, for_good;
static long calls, fault_at;
static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

/* Begin to count. At call `at`, fail with the error `error`, or if that is 0, kill the process; 0 is never.
   If `always`, the calls after it fail, too. */
void shim_start(const char *directory, const char *log, long at, int error, int always) {
    snprintf(under, sizeof under, "%s", directory);
    journal = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    calls = 0, fault_at = at, number = error, for_good = always;
}

long shim_calls(void) { return calls; }

static int counts(const char *path) {
    size_t n = strlen(under);
    return journal >= 0 && !strncmp(path, under, n) && (path[n] == 0 || path[n] == '/');
}

static int named(int at, const char *path, char *whole) {
    char base[PATH_MAX] = "", link[40];
    if (path[0] != '/') {
        snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
        ssize_t n = readlink(link, base, sizeof base - 2);
        if (n < 0) return 0;
        base[n] = '/', base[n + 1] = 0;
    }
    return snprintf(whole, PATH_MAX, "%s%s", base, path) < PATH_MAX && counts(whole);
}

static int opened(int fd, char *whole) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = journal < 0 ? -1 : readlink(link, whole, PATH_MAX - 1);
    if (n < 0) return 0;
    whole[n] = 0;
    return counts(whole);
}

/* Enter a call: 0 to go on, -1 to fail. The lock keeps the journal in the order of the calls. */
static int enter(void) {
    pthread_mutex_lock(&one_at_a_time);
    calls++;
    if (!fault_at || !(calls == fault_at || (for_good && calls > fault_at))) return 0;
    if (!number) {
        kill(getpid(), SIGKILL);
        pause();
    }
    errno = number;
    return -1;
}

static long leave(long result) {
    pthread_mutex_unlock(&one_at_a_time);
    return result;
}

static void note(char what, const char *path, const char *other, long long offset, const struct iovec *parts,
                 int n, size_t bytes) {
    char head[100];
    int length = snprintf(head, sizeof head, "%c %zu %zu %lld %zu\n", what, strlen(path), strlen(other), offset, bytes);
    struct iovec lines[] = {{head, length}, {(void *)path, strlen(path)}, {(void *)other, strlen(other)}};
    int saved = errno;
    syscall(SYS_writev, journal, lines, 3);
    for (int i = 0; i < n && bytes; i++) {
        size_t some = parts[i].iov_len < bytes ? parts[i].iov_len : bytes;
        for (size_t done = 0; done < some;) {
            long wrote = syscall(SYS_write, journal, (char *)parts[i].iov_base + done, some - done);
            if (wrote <= 0) break;
            done += wrote;
        }
        bytes -= some;
    }
    errno = saved;
}

/* Create and open */

static int open_at(int at, const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    int writes = (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC);
    if (!writes || !named(at, path, whole)) return syscall(SYS_openat, at, path, flags, mode);
    if (enter()) return leave(-1);
    int is_there = !syscall(SYS_faccessat, at, path, F_OK);
    int fd = syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && (flags & O_TMPFILE) != O_TMPFILE) {
        if (!is_there) note('c', whole, "", 0, 0, 0, 0);
        else if (flags & O_TRUNC) note('t', whole, "", 0, 0, 0, 0);
    }
    return leave(fd);
}

#define MODE(flags) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

int open(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_at(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return open_at(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return open_at(at, path, flags, mode); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* Write and flush */

static ssize_t put(int fd, const struct iovec *parts, int n, off_t offset) {
    char path[PATH_MAX];
    int ours = opened(fd, path);
    struct stat now;
    if (ours && enter()) return leave(-1);
    off_t start = offset;
    if (ours && offset < 0) {
        if (syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND) start = fstat(fd, &now) ? 0 : now.st_size;
        else start = lseek(fd, 0, SEEK_CUR);
    }
    ssize_t done = offset < 0 ? syscall(SYS_writev, fd, parts, n) : syscall(SYS_pwritev, fd, parts, n, offset, 0);
    if (ours && done > 0) note('w', path, "", start, parts, n, done);
    return ours ? leave(done) : done;
}

ssize_t write(int fd, const void *from, size_t n) { struct iovec part = {(void *)from, n}; return put(fd, &part, 1, -1); }
ssize_t pwrite(int fd, const void *from, size_t n, off_t at) { struct iovec part = {(void *)from, n}; return put(fd, &part, 1, at); }
ssize_t pwrite64(int fd, const void *from, size_t n, off_t at) { return pwrite(fd, from, n, at); }
ssize_t writev(int fd, const struct iovec *parts, int n) { return put(fd, parts, n, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t at) { return put(fd, parts, n, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int n, off_t at) { return put(fd, parts, n, at); }

static int flush(int fd, long call) {
    char path[PATH_MAX];
    if (!opened(fd, path)) return syscall(call, fd);
    if (enter()) return leave(-1);
    int failed = syscall(call, fd);
    if (!failed) note('s', path, "", 0, 0, 0, 0);
    return leave(failed);
}

int fsync(int fd) { return flush(fd, SYS_fsync); }
int fdatasync(int fd) { return flush(fd, SYS_fdatasync); }

int ftruncate(int fd, off_t size) {
    char path[PATH_MAX];
    if (!opened(fd, path)) return syscall(SYS_ftruncate, fd, size);
    if (enter()) return leave(-1);
    int failed = syscall(SYS_ftruncate, fd, size);
    if (!failed) note('t', path, "", size, 0, 0, 0);
    return leave(failed);
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

/* Names */

int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    char old[PATH_MAX], new[PATH_MAX];
    if (!(named(from_at, from, old) & named(to_at, to, new))) return syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (enter()) return leave(-1);
    int failed = syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    if (!failed) note(flags & RENAME_EXCHANGE ? 'x' : 'r', old, new, 0, 0, 0, 0);
    return leave(failed);
}
int renameat(int from_at, const char *from, int to_at, const char *to) { return renameat2(from_at, from, to_at, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int at, const char *path, int flags) {
    char whole[PATH_MAX];
    if (!named(at, path, whole)) return syscall(SYS_unlinkat, at, path, flags);
    if (enter()) return leave(-1);
    int failed = syscall(SYS_unlinkat, at, path, flags);
    if (!failed) note('u', whole, "", 0, 0, 0, 0);
    return leave(failed);
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int at, const char *path, mode_t mode) {
    char whole[PATH_MAX];
    if (!named(at, path, whole)) return syscall(SYS_mkdirat, at, path, mode);
    if (enter()) return leave(-1);
    int failed = syscall(SYS_mkdirat, at, path, mode);
    if (!failed) note('m', whole, "", 0, 0, 0, 0);
    return leave(failed);
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

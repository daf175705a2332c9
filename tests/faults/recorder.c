/* Preloaded into the service: writes down what it asks of the files in one folder, in order, and makes a write short.
 *
 * RECORDER_FOLDER  whose files count
 * RECORDER_LOG     where to: records of a head (below), then the path, then the bytes written
 * RECORDER_SHORT   every so many-th write is half done only, as the kernel may
 *
 * The lock is held over each call, so that the order in the log is the order on the disk. What is mapped into memory
 * (SQLite's index of its log) is not seen; it does not outlive a crash. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 4096, PATH = 256 };
enum kind { CREATE = 'c', WRITE = 'w', TRUNCATE = 't', SYNC = 's', REMOVE = 'r' };

struct __attribute__((packed)) head {
    uint64_t time; /* monotonic, in nanoseconds */
    uint64_t offset; /* of a write; the new length of a truncation */
    uint32_t bytes;
    uint8_t kind;
    uint8_t path;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char paths[FILES][PATH];
static const char *folder;
static int log_file = -1;
static long short_every, writes;

static __attribute__((constructor)) void start(void) {
    const char *log = getenv("RECORDER_LOG"), *every = getenv("RECORDER_SHORT");
    folder = getenv("RECORDER_FOLDER");
    short_every = every ? atol(every) : 0;
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
    if (log)
        log_file = real(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void all(const void *bytes, size_t length) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real)
        real = dlsym(RTLD_NEXT, "write");
    while (length > 0) {
        ssize_t done = real(log_file, bytes, length);
        if (done <= 0)
            _exit(99);
        bytes = (const char *)bytes + done;
        length -= (size_t)done;
    }
}

static void note(enum kind kind, const char *path, uint64_t offset, const void *bytes, size_t length) {
    if (log_file < 0)
        return;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct head head = {(uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec, offset, (uint32_t)length, (uint8_t)kind,
                        (uint8_t)strlen(path)};
    all(&head, sizeof head);
    all(path, head.path);
    all(bytes, length);
}

static const char *path_of(int file) {
    return file >= 0 && file < FILES && paths[file][0] ? paths[file] : NULL;
}

static int opened(int file, const char *path, int existed) {
    if (file < 0 || file >= FILES || !folder)
        return file;
    paths[file][0] = 0;
    size_t length = strlen(folder);
    if (strncmp(path, folder, length) == 0 && (path[length] == '/' || !path[length]) && strlen(path) < PATH) {
        strcpy(paths[file], path);
        if (!existed)
            note(CREATE, path, 0, "", 0);
    }
    return file;
}

#define MODE(flags)                                                                                                      \
    mode_t mode = 0;                                                                                                     \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                               \
        va_list more;                                                                                                    \
        va_start(more, flags);                                                                                           \
        mode = va_arg(more, mode_t);                                                                                     \
        va_end(more);                                                                                                    \
    }

#define OPEN(name)                                                                                                       \
    int name(const char *path, int flags, ...) {                                                                         \
        static int (*real)(const char *, int, ...);                                                                      \
        if (!real)                                                                                                       \
            real = dlsym(RTLD_NEXT, #name);                                                                              \
        MODE(flags)                                                                                                      \
        pthread_mutex_lock(&lock);                                                                                       \
        int existed = access(path, F_OK) == 0;                                                                           \
        int file = opened(real(path, flags, mode), path, existed);                                                       \
        pthread_mutex_unlock(&lock);                                                                                     \
        return file;                                                                                                     \
    }
OPEN(open)
OPEN(open64)

static ssize_t written(int file, const void *bytes, size_t length, off64_t offset,
                       ssize_t (*real)(int, const void *, size_t, off64_t)) {
    const char *path = path_of(file);
    if (!path)
        return real(file, bytes, length, offset);
    pthread_mutex_lock(&lock);
    if (short_every && ++writes % short_every == 0 && length > 1)
        length /= 2;
    ssize_t done = real(file, bytes, length, offset);
    if (done > 0)
        note(WRITE, path, (uint64_t)offset, bytes, (size_t)done);
    pthread_mutex_unlock(&lock);
    return done;
}

#define PWRITE(name)                                                                                                     \
    ssize_t name(int file, const void *bytes, size_t length, off64_t offset) {                                           \
        static ssize_t (*real)(int, const void *, size_t, off64_t);                                                      \
        if (!real)                                                                                                       \
            real = dlsym(RTLD_NEXT, #name);                                                                              \
        return written(file, bytes, length, offset, real);                                                               \
    }
PWRITE(pwrite64)
PWRITE(pwrite)

#define TRUNCATE(name)                                                                                                   \
    int name(int file, off64_t length) {                                                                                 \
        static int (*real)(int, off64_t);                                                                                \
        if (!real)                                                                                                       \
            real = dlsym(RTLD_NEXT, #name);                                                                              \
        const char *path = path_of(file);                                                                                \
        pthread_mutex_lock(&lock);                                                                                       \
        int done = real(file, length);                                                                                   \
        if (path && done == 0)                                                                                           \
            note(TRUNCATE, path, (uint64_t)length, "", 0);                                                               \
        pthread_mutex_unlock(&lock);                                                                                     \
        return done;                                                                                                     \
    }
TRUNCATE(ftruncate64)
TRUNCATE(ftruncate)

#define SYNC_BY(name)                                                                                                    \
    int name(int file) {                                                                                                 \
        static int (*real)(int);                                                                                         \
        if (!real)                                                                                                       \
            real = dlsym(RTLD_NEXT, #name);                                                                              \
        const char *path = path_of(file);                                                                                \
        if (!path)                                                                                                       \
            return real(file);                                                                                           \
        pthread_mutex_lock(&lock);                                                                                       \
        int done = real(file);                                                                                           \
        if (done == 0)                                                                                                   \
            note(SYNC, path, 0, "", 0);                                                                                  \
        pthread_mutex_unlock(&lock);                                                                                     \
        return done;                                                                                                     \
    }
SYNC_BY(fsync)
SYNC_BY(fdatasync)

int unlink(const char *path) {
    static int (*real)(const char *);
    if (!real)
        real = dlsym(RTLD_NEXT, "unlink");
    pthread_mutex_lock(&lock);
    int done = real(path);
    if (done == 0 && folder && strncmp(path, folder, strlen(folder)) == 0 && strlen(path) < PATH)
        note(REMOVE, path, 0, "", 0);
    pthread_mutex_unlock(&lock);
    return done;
}

/* A disk that misbehaves: calls on paths below a prefix fail, tear, or kill their process.
 *
 * A table of rules lies in a shared file and may be changed while processes run. A rule names kinds
 * of calls, a prefix and a part of the path, how many calls to let through, and what happens to the
 * next ones. With a journal directory every change that was not synced yet is written down with
 * what was there before, so that a power cut can be played after a kill.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, SYNC = 4, RENAME = 8, TRUNCATE = 16, UNLINK = 32, MKDIR = 64, READ = 128 };
enum { PASS, FAIL, SHORT, TEAR, KILL_BEFORE, KILL_AFTER, LIE };
#define RULES 8

struct rule {
    int32_t kinds, action, error, pad;
    int64_t skip, times, hits;
    char prefix[192], part[40];
};
struct table {
    struct rule rules[RULES];
};

#define REAL(result, name, ...) static result (*real_##name)(__VA_ARGS__)
REAL(int, open, const char *, int, ...);
REAL(int, openat, int, const char *, int, ...);
REAL(ssize_t, write, int, const void *, size_t);
REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
REAL(ssize_t, pread, int, void *, size_t, off_t);
REAL(ssize_t, writev, int, const struct iovec *, int);
REAL(int, fsync, int);
REAL(int, fdatasync, int);
REAL(int, rename, const char *, const char *);
REAL(int, ftruncate, int, off_t);
REAL(int, unlinkat, int, const char *, int);
REAL(int, mkdir, const char *, mode_t);
REAL(int, link, const char *, const char *);

static struct table *table;
static char journal_prefix[PATH_MAX], journal_place[PATH_MAX];
static int journal_fd = -1;
static int64_t kept_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Other libraries may call before our constructor has run. */
static void find(void) {
#define FIND(name) real_##name = (__typeof__(real_##name))dlsym(RTLD_NEXT, #name)
    FIND(openat); FIND(write); FIND(pwrite); FIND(pread); FIND(writev); FIND(fsync);
    FIND(fdatasync); FIND(rename); FIND(ftruncate); FIND(unlinkat); FIND(mkdir); FIND(link);
    FIND(open);
}
#define READY() if (real_open == NULL) find()

static int is_ours(const char *only) {
    char line[4096];
    int fd = real_open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, line, sizeof line - 1);
    if (fd >= 0) close(fd);
    for (ssize_t i = 0; i < size; i++)
        if (line[i] == 0) line[i] = ' ';
    line[size > 0 ? size : 0] = 0;
    return strstr(line, only) != NULL;
}

__attribute__((constructor)) static void start(void) {
    READY();
    const char *path = getenv("CERTMESH_SHIM_DISK"), *only = getenv("CERTMESH_SHIM_ONLY");
    if (path == NULL || (only != NULL && !is_ours(only))) return;
    int fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof(struct table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    const char *place = getenv("CERTMESH_SHIM_JOURNAL"), *prefix = getenv("CERTMESH_SHIM_BELOW");
    if (place != NULL && prefix != NULL) {
        snprintf(journal_place, sizeof journal_place, "%s", place);
        snprintf(journal_prefix, sizeof journal_prefix, "%s", prefix);
        char name[PATH_MAX + 16];
        snprintf(name, sizeof name, "%s/journal", place);
        journal_fd = real_open(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    }
    if (page != MAP_FAILED) table = page;
}

static const char *path_of(int fd, char *buffer) {
    char name[40];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(name, buffer, PATH_MAX - 1);
    buffer[size > 0 ? size : 0] = 0;
    return buffer;
}

static const char *whole(int dir, const char *path, char *buffer) {
    if (path[0] == '/') return path;
    char base[PATH_MAX];
    if (dir == AT_FDCWD) {
        if (getcwd(base, sizeof base) == NULL) return path;
    } else {
        path_of(dir, base);
    }
    if (snprintf(buffer, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return path;
    return buffer;
}

/* Return what happens to this call; a killed process does not return. */
static int verdict(int kind, const char *path) {
    if (table == NULL) return PASS;
    for (int i = 0; i < RULES; i++) {
        struct rule *rule = &table->rules[i];
        if (!(rule->kinds & kind) || rule->action == PASS) continue;
        if (strncmp(path, rule->prefix, strlen(rule->prefix)) != 0) continue;
        if (rule->part[0] != 0 && strstr(path, rule->part) == NULL) continue;
        int64_t number = __atomic_fetch_add(&rule->hits, 1, __ATOMIC_SEQ_CST);
        if (number < rule->skip) continue;
        if (rule->times >= 0 && number >= rule->skip + rule->times) continue;
        errno = rule->error;
        if (rule->action == KILL_BEFORE) kill(getpid(), SIGKILL);
        return rule->action;
    }
    return PASS;
}

static int is_kept(const char *path) {
    return journal_fd >= 0 && strncmp(path, journal_prefix, strlen(journal_prefix)) == 0;
}

/* One record: "KIND inode offset old size new path\0other\0", then `old` octets of what was there
 * and `new` octets of what came. For names the inode is that of the directory. */
struct change {
    char kind;
    uint64_t inode;
    int64_t offset, old, size, new;
    const void *before, *after;
};

static void keep(const struct change *it, const char *path, const char *other) {
    char head[3 * PATH_MAX];
    int used = snprintf(head, sizeof head, "%c %llu %lld %lld %lld %lld %s%c%s%c", it->kind,
                        (unsigned long long)it->inode, (long long)it->offset, (long long)it->old,
                        (long long)it->size, (long long)it->new, path, 0, other, 0);
    struct iovec parts[3] = {{head, (size_t)used},
                             {(void *)it->before, (size_t)it->old},
                             {(void *)it->after, (size_t)it->new}};
    if (real_writev(journal_fd, parts, 3) < 0) abort();
}

static void keep_name(char kind, const char *path, const char *other) {
    char parent[PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    char *slash = strrchr(parent, '/');
    if (slash != NULL) *slash = 0;
    struct stat found = {0};
    if (stat(parent, &found) != 0) return;
    struct change it = {kind, found.st_ino, 0, 0, 0, 0, "", ""};
    keep(&it, path, other);
}

static void keep_octets(char kind, int fd, const char *path, int64_t offset, const void *octets,
                        int64_t length) {
    struct stat found;
    if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode)) return;
    int64_t there = found.st_size - offset;
    if (there < 0) there = 0;
    if (kind == 'w' && there > length) there = length;
    char *before = malloc((size_t)there + 1);
    int reading = fd;
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY)
        reading = real_open(path, O_RDONLY | O_CLOEXEC);
    if (there > 0 && real_pread(reading, before, (size_t)there, offset) != there) there = 0;
    if (reading != fd && reading >= 0) close(reading);
    struct change it = {kind,           found.st_ino, offset, there,
                        found.st_size, kind == 'w' ? length : 0, before, octets};
    keep(&it, path, "");
    free(before);
}

/* Keep the file that a name stops pointing to: a hard link beside the journal. */
static const char *keep_file(const char *path, char *buffer) {
    struct stat found;
    if (lstat(path, &found) != 0) return "";
    snprintf(buffer, PATH_MAX, "%.4000s/kept-%lld", journal_place, (long long)kept_count++);
    return real_link(path, buffer) == 0 ? buffer : "";
}

static int64_t position(int fd) {
    if (fcntl(fd, F_GETFL) & O_APPEND) {
        struct stat found;
        return fstat(fd, &found) == 0 ? found.st_size : 0;
    }
    off_t at = lseek(fd, 0, SEEK_CUR);
    return at < 0 ? 0 : at;
}

static ssize_t do_write(int fd, const void *octets, size_t size, int64_t offset, int at) {
    READY();
    char buffer[PATH_MAX];
    const char *path = table != NULL ? path_of(fd, buffer) : "";
    int action = verdict(WRITE, path);
    if (action == FAIL) return -1;
    size_t part = action == SHORT || action == TEAR ? size / 2 : size;
    int kept = is_kept(path);
    if (kept) {
        pthread_mutex_lock(&lock);
        keep_octets('w', fd, path, offset < 0 ? position(fd) : offset, octets, (int64_t)part);
    }
    ssize_t done = at ? real_pwrite(fd, octets, part, offset) : real_write(fd, octets, part);
    if (kept) pthread_mutex_unlock(&lock);
    if (action == TEAR || action == KILL_AFTER) kill(getpid(), SIGKILL);
    return done;
}

ssize_t write(int fd, const void *octets, size_t size) { return do_write(fd, octets, size, -1, 0); }
ssize_t pwrite(int fd, const void *octets, size_t size, off_t offset) {
    return do_write(fd, octets, size, offset, 1);
}
ssize_t pwrite64(int fd, const void *octets, size_t size, off_t offset) {
    return do_write(fd, octets, size, offset, 1);
}

/* Only reads at a place: what the ledger uses. */
ssize_t pread(int fd, void *octets, size_t size, off_t offset) {
    READY();
    char buffer[PATH_MAX];
    if (table != NULL && verdict(READ, path_of(fd, buffer)) == FAIL) return -1;
    return real_pread(fd, octets, size, offset);
}
ssize_t pread64(int fd, void *octets, size_t size, off_t offset) {
    return pread(fd, octets, size, offset);
}

static int do_sync(int fd, int (*real)(int)) {
    char buffer[PATH_MAX];
    const char *path = table != NULL ? path_of(fd, buffer) : "";
    int action = verdict(SYNC, path);
    if (action == FAIL) return -1;
    if (action == LIE) return 0;
    int done = real(fd);
    if (done == 0 && is_kept(path)) {
        struct stat found = {0};
        fstat(fd, &found);
        struct change it = {'s', found.st_ino, 0, 0, 0, 0, "", ""};
        pthread_mutex_lock(&lock);
        keep(&it, path, "");
        pthread_mutex_unlock(&lock);
    }
    if (action == KILL_AFTER) kill(getpid(), SIGKILL);
    return done;
}
int fsync(int fd) {
    READY();
    return do_sync(fd, real_fsync);
}
int fdatasync(int fd) {
    READY();
    return do_sync(fd, real_fdatasync);
}

static int do_open(int dir, const char *given, int flags, mode_t mode) {
    READY();
    char buffer[PATH_MAX];
    const char *path = table != NULL ? whole(dir, given, buffer) : given;
    int changes = flags & (O_CREAT | O_TRUNC) || (flags & O_ACCMODE) != O_RDONLY;
    int action = table != NULL && changes ? verdict(OPEN, path) : PASS;
    if (action == FAIL) return -1;
    struct stat found;
    int created = 0;
    if (table != NULL && (flags & O_CREAT) && is_kept(path))
        created = lstat(path, &found) != 0;
    int fd = real_openat(dir, given, flags, mode);
    if (created && fd >= 0) {
        pthread_mutex_lock(&lock);
        keep_name('c', path, "");
        pthread_mutex_unlock(&lock);
    }
    if (action == KILL_AFTER) kill(getpid(), SIGKILL);
    return fd;
}
#define MODE                                                     \
    mode_t mode = 0;                                             \
    if (flags & (O_CREAT | O_TMPFILE)) {                         \
        va_list rest;                                            \
        va_start(rest, flags);                                   \
        mode = va_arg(rest, mode_t);                             \
        va_end(rest);                                            \
    }
int open(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE return do_open(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE return do_open(dir, path, flags, mode); }

int rename(const char *from, const char *to) {
    READY();
    char one[PATH_MAX], two[PATH_MAX], kept[PATH_MAX];
    if (table == NULL) return real_rename(from, to);
    const char *old = whole(AT_FDCWD, from, one), *new = whole(AT_FDCWD, to, two);
    int action = verdict(RENAME, new);
    if (action == FAIL) return -1;
    pthread_mutex_lock(&lock);
    const char *lost = is_kept(new) ? keep_file(new, kept) : "";
    int done = real_rename(from, to);
    if (done == 0 && is_kept(new)) {
        if (lost[0] != 0) keep_name('u', new, lost);
        keep_name('r', new, old);
    }
    pthread_mutex_unlock(&lock);
    if (action == KILL_AFTER) kill(getpid(), SIGKILL);
    return done;
}

static int do_unlink(int dir, const char *given, int flags) {
    READY();
    char buffer[PATH_MAX], kept[PATH_MAX];
    if (table == NULL || flags != 0) return real_unlinkat(dir, given, flags);
    const char *path = whole(dir, given, buffer);
    int action = verdict(UNLINK, path);
    if (action == FAIL) return -1;
    pthread_mutex_lock(&lock);
    const char *lost = is_kept(path) ? keep_file(path, kept) : "";
    int done = real_unlinkat(dir, given, flags);
    if (done == 0 && lost[0] != 0) keep_name('u', path, lost);
    pthread_mutex_unlock(&lock);
    if (action == KILL_AFTER) kill(getpid(), SIGKILL);
    return done;
}
int unlink(const char *path) { return do_unlink(AT_FDCWD, path, 0); }
int unlinkat(int dir, const char *path, int flags) { return do_unlink(dir, path, flags); }

static int do_truncate(int fd, off_t size) {
    READY();
    char buffer[PATH_MAX];
    const char *path = table != NULL ? path_of(fd, buffer) : "";
    int action = verdict(TRUNCATE, path);
    if (action == FAIL) return -1;
    struct stat found;
    int kept = is_kept(path) && fstat(fd, &found) == 0;
    if (kept) {
        pthread_mutex_lock(&lock);
        keep_octets('t', fd, path, size, "", 0);
    }
    int done = real_ftruncate(fd, size);
    if (kept) pthread_mutex_unlock(&lock);
    if (action == KILL_AFTER) kill(getpid(), SIGKILL);
    return done;
}
int ftruncate(int fd, off_t size) { return do_truncate(fd, size); }
int ftruncate64(int fd, off_t size) { return do_truncate(fd, size); }

int mkdir(const char *given, mode_t mode) {
    READY();
    char buffer[PATH_MAX];
    if (table == NULL) return real_mkdir(given, mode);
    const char *path = whole(AT_FDCWD, given, buffer);
    int action = verdict(MKDIR, path);
    if (action == FAIL) return -1;
    int done = real_mkdir(given, mode);
    if (done == 0 && is_kept(path)) keep_name('c', path, "");
    if (action == KILL_AFTER) kill(getpid(), SIGKILL);
    return done;
}

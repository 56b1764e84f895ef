/* A clock that runs apart: CLOCK_REALTIME moved by a number of milliseconds in a shared file.
 *
 * Preloaded into every process of one host. Interval clocks are left alone, as a wrong wall clock
 * leaves them alone; so are the times of files, which are the kernel's. The file holds one signed
 * 64 bit number in the machine's byte order and may be changed while processes run.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS 1000000000L

static int (*real_gettime)(clockid_t, struct timespec *);
static volatile const int64_t *offset_ms;

__attribute__((constructor)) static void start(void) {
    real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("CERTMESH_SHIM_CLOCK");
    if (path == NULL) return;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED) offset_ms = page;
}

static int is_wall(clockid_t clock) {
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int rc = real_gettime != NULL ? real_gettime(clock, now)
                                  : (int)syscall(SYS_clock_gettime, clock, now);
    if (rc != 0 || offset_ms == NULL || !is_wall(clock)) return rc;
    int64_t moved_ms = *offset_ms;
    int64_t ns = now->tv_nsec + (moved_ms % 1000) * 1000000L;
    now->tv_sec += moved_ms / 1000 + (ns >= NS) - (ns < 0);
    now->tv_nsec = (ns + NS) % NS;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result != NULL) *result = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict result, void *restrict zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    result->tv_sec = now.tv_sec;
    result->tv_usec = now.tv_nsec / 1000;
    return 0;
}

int timespec_get(struct timespec *result, int base) {
    return clock_gettime(CLOCK_REALTIME, result) == 0 ? base : 0;
}

// What every floor program needs: a clock, a CPU to stay on, shared memory, order statistics.
//
// A floor does the least work that gives the same effect, with no protocol and no checks. It prints
// `name value` lines, values in nanoseconds, as the programs that it is compared with do.
#ifndef FLOOR_H
#define FLOOR_H

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_PAGE ((size_t)2 << 20)

static inline void fail(const char *what) {
    perror(what);
    exit(1);
}

static inline uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// Stays on one CPU; with fewer CPUs than asked for, on the last there is.
static inline void pin(int cpu) {
    int last = (int)sysconf(_SC_NPROCESSORS_ONLN) - 1;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu < last ? cpu : last, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) fail("sched_setaffinity");
}

// Maps a file, or fresh shared memory for -1, at an address that huge pages can back.
static inline char *map_shared(int file, size_t bytes) {
    char *area = mmap(NULL, bytes + HUGE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED) fail("mmap");
    char *at = (char *)(((uintptr_t)area + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
    int flags = MAP_SHARED | MAP_FIXED | (file < 0 ? MAP_ANONYMOUS : 0);
    if (mmap(at, bytes, PROT_READ | PROT_WRITE, flags, file, 0) == MAP_FAILED) fail("mmap");
    return at;
}

// Shared, populated memory that children inherit; on huge pages where that is worth it, as the
// engine under test does.
static inline void *share(size_t bytes) {
    bytes = (bytes + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    char *at = map_shared(-1, bytes);
    memset(at, 0, bytes);
    if (bytes > HUGE_PAGE) madvise(at, bytes, MADV_COLLAPSE);
    return at;
}

// Forks; the child does not outlive its parent.
static inline pid_t start(void) {
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) prctl(PR_SET_PDEATHSIG, SIGKILL);
    return child;
}

static inline long futex_wait(_Atomic uint32_t *word, uint32_t expected) {
    return syscall(SYS_futex, word, FUTEX_WAIT, expected, NULL, NULL, 0);
}

static inline long futex_wake(_Atomic uint32_t *word, int count) {
    return syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double quantile(const double *sorted, size_t count, double q) {
    size_t at = (size_t)(q * (double)count);
    return sorted[at < count ? at : count - 1];
}

static inline void print(const char *name, double value) { printf("%s %.3f\n", name, value); }

// Sorts the samples and prints two quantiles of them.
static inline void print_quantiles(double *samples, size_t count) {
    qsort(samples, count, sizeof *samples, by_value);
    print("p50", quantile(samples, count, 0.50));
    print("p99", quantile(samples, count, 0.99));
}

static inline double *samples_for(size_t count) {
    double *samples = calloc(count, sizeof *samples);
    if (!samples) fail("calloc");
    return samples;
}

static inline size_t argument(int argc, char **argv, int index) {
    if (index >= argc) {
        fprintf(stderr, "%s: argument %d is missing\n", argv[0], index);
        exit(2);
    }
    return strtoull(argv[index], NULL, 10);
}

#endif

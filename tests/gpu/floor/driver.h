/* What the floors have in common: the driver's functions, found by name, and the clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef unsigned long long number;
typedef struct { int kind, id; } location;
typedef struct { int kind, handles; location where; void *metadata; unsigned char flags[8]; } properties;
typedef struct { location where; int flags; } grant;

#define GIB ((size_t)1 << 30)

static void fail(const char *what, int code) { fprintf(stderr, "%s failed with %d\n", what, code); exit(1); }
static void need(int code, const char *what) { if (code) fail(what, code); }

static void *driver;
static void *find(const char *name) {
    void *found = dlsym(driver, name);
    if (!found) fail(name, -1);
    return found;
}
#define CALL(name, types, ...) need(((int (*) types)find(#name))(__VA_ARGS__), #name)

static void *context, *stream;

/* Takes the first device's context for this thread, and a stream of it. */
static void take_device(void) {
    if (!(driver = dlopen("libcuda.so.1", RTLD_NOW))) fail(dlerror(), -1);
    CALL(cuInit, (unsigned), 0);
    CALL(cuDevicePrimaryCtxRetain, (void **, int), &context, 0);
    CALL(cuCtxPushCurrent_v2, (void *), context);
    CALL(cuStreamCreate, (void **, unsigned), &stream, 1);
}
/* Begins the line of results with the device. */
static void name_device(void) {
    unsigned char id[16];
    CALL(cuDeviceGetUuid_v2, (unsigned char *, int), id, 0);
    printf("{\"device\": \"GPU-");
    for (int i = 0; i < 16; i++) printf("%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", id[i]);
    printf("\", ");
}

/* In microseconds. */
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

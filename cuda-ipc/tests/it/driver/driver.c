/* A driver for tests: the few functions that cuda-ipc calls, over memfds and threads.
 *
 * Addresses on its devices are addresses of the process, memory is a memfd, a stream is a thread with a
 * queue. It checks what the driver checks: whole mappings, granularity, access, contexts, captures that
 * are spoilt. It proves logic, and nothing about a device.
 *
 * VERSION is the CUDA that it claims to be, such as 11080. WITHOUT_WORDS, WITHOUT_BATCHES and WITHOUT_CHUNKS
 * leave out the functions of stream memory operations, of many of them at once, and of virtual memory. In the environment: TEST_DRIVER_DEVICES,
 * CUDA_VISIBLE_DEVICES (numbers), TEST_DRIVER_NO_PEERS, TEST_DRIVER_DEAD (cuInit fails with the code),
 * TEST_DRIVER_ONE_CONTEXT (there is no memory for one beside the primary context),
 * TEST_DRIVER_STALLED (nothing is done that is queued in another context than the primary one),
 * TEST_DRIVER_REFUSED_COPIES and _CALLS (so many copies to the host, and calls of the host's functions, are refused),
 * CUDA_DEVICE_MAX_CONNECTIONS (8 unless it says otherwise: so many queues do the streams of a context share),
 * TEST_DRIVER_APART (asking for the default stream leaves out the streams that it waits for),
 * TEST_DRIVER_LACKS (a device without this: "chunks" for virtual memory, "descriptors" of it, or "pinning" of
 * memory of the host), TEST_DRIVER_NO_EXPORT (descriptors are refused with the code).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef VERSION
#define VERSION 12080
#endif

enum {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100,
    INVALID_DEVICE = 101, INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
    ALREADY_REGISTERED = 712, NOT_REGISTERED = 713, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901
};

typedef unsigned long long address;
typedef struct { unsigned char bytes[16]; } uuid;
typedef struct { int kind, id; } location;
typedef struct { int kind, handles; location where; void *metadata; unsigned char flags[8]; } properties;
typedef struct { location where; int flags; } access_of;

#define GRANULARITY ((size_t)2 << 20)
#define TAIL 4096
#ifndef WITHOUT_CHUNKS
static const char MARK[8] = "TESTCUDA";
#endif

static pthread_mutex_t everything = PTHREAD_MUTEX_INITIALIZER;
static int visible[8], visible_count = -1;
static pid_t started_in;

struct graph;
/* The queues that the streams of a context share, by whose work each was given last. */
enum { CONNECTIONS = 32 };
struct stream;
struct context { int ordinal, retained, is_over; struct graph *capture; unsigned streams; struct stream *given[CONNECTIONS]; pthread_mutex_t freeing; } contexts[8];
static __thread struct context *stack[16];
static __thread int depth;
static __thread unsigned capture_mode;
static struct context *current(void) { return depth ? stack[depth - 1] : NULL; }

/* ---- starting ---- */

int cuInit(unsigned flags) {
    (void)flags;
    const char *dead = getenv("TEST_DRIVER_DEAD");
    if (dead) return atoi(dead);
    pthread_mutex_lock(&everything);
    if (visible_count < 0) {
        const char *text = getenv("TEST_DRIVER_DEVICES"), *show = getenv("CUDA_VISIBLE_DEVICES");
        int count = text ? atoi(text) : 2;
        visible_count = 0;
        if (show) {
            for (const char *at = show; *at; at++)
                if (*at >= '0' && *at < '0' + count) visible[visible_count++] = *at - '0';
        } else {
            for (int i = 0; i < count; i++) visible[visible_count++] = i;
        }
        started_in = getpid();
        for (int i = 0; i < 8; i++) contexts[i].ordinal = i;
    }
    pthread_mutex_unlock(&everything);
    if (started_in != getpid()) return NOT_INITIALIZED;
    return visible_count ? OK : NO_DEVICE;
}

int cuDriverGetVersion(int *version) { *version = VERSION; return OK; }

int cuGetErrorName(int code, const char **name) {
    switch (code) {
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; return OK;
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; return OK;
    case NOT_INITIALIZED: *name = "CUDA_ERROR_NOT_INITIALIZED"; return OK;
    case 34: *name = "CUDA_ERROR_STUB_LIBRARY"; return OK;
    case NO_DEVICE: *name = "CUDA_ERROR_NO_DEVICE"; return OK;
    case ILLEGAL_ADDRESS: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; return OK;
    case 800: *name = "CUDA_ERROR_NOT_PERMITTED"; return OK;
    case NOT_SUPPORTED: *name = "CUDA_ERROR_NOT_SUPPORTED"; return OK;
    default: *name = NULL; return INVALID_VALUE;
    }
}
int cuGetErrorString(int code, const char **text) { (void)code; *text = "as the tests want it"; return OK; }

/* ---- devices ---- */

static int seen(int ordinal) { return ordinal >= 0 && ordinal < visible_count; }
int cuDeviceGetCount(int *count) { *count = visible_count; return OK; }
int cuDeviceGet(int *device, int ordinal) { if (!seen(ordinal)) return INVALID_DEVICE; *device = ordinal; return OK; }
int cuDeviceGetName(char *name, int room, int ordinal) {
    if (!seen(ordinal)) return INVALID_DEVICE;
    snprintf(name, room, "Test device %d", visible[ordinal]);
    return OK;
}
#if VERSION >= 11040
int cuDeviceGetUuid_v2(uuid *id, int ordinal) {
#else
int cuDeviceGetUuid(uuid *id, int ordinal) {
#endif
    if (!seen(ordinal)) return INVALID_DEVICE;
    memset(id, 0xa0 + visible[ordinal], sizeof *id);
    return OK;
}
int cuDeviceTotalMem_v2(size_t *bytes, int ordinal) { if (!seen(ordinal)) return INVALID_DEVICE; *bytes = (size_t)8 << 30; return OK; }
static int lacks(const char *what) { const char *told = getenv("TEST_DRIVER_LACKS"); return told && strstr(told, what); }
int cuDeviceGetAttribute(int *value, int attribute, int ordinal) {
    if (!seen(ordinal)) return INVALID_DEVICE;
    switch (attribute) {
    case 41: *value = 1; return OK;
    case 99: *value = !lacks("pinning"); return OK;
    case 102: *value = !lacks("chunks"); return OK;
    case 103: *value = !lacks("chunks") && !lacks("descriptors"); return OK;
#if VERSION >= 11010
    case 113: *value = 1; return OK;
#endif
#if VERSION >= 11070
    case 122: *value = 1; return OK;
#endif
    default: return INVALID_VALUE;
    }
}
__attribute__((unused)) static int reach(int from, int home) { return from == home || !getenv("TEST_DRIVER_NO_PEERS"); }
int cuDeviceCanAccessPeer(int *can, int ordinal, int peer) {
    if (!seen(ordinal) || !seen(peer)) return INVALID_DEVICE;
    *can = reach(visible[ordinal], visible[peer]);
    return OK;
}

/* ---- contexts ---- */

int cuDevicePrimaryCtxGetState(int ordinal, unsigned *flags, int *active) {
    if (!seen(ordinal)) return INVALID_DEVICE;
    *flags = 0; *active = contexts[ordinal].retained > 0;
    return OK;
}
int cuDevicePrimaryCtxRetain(struct context **context, int ordinal) {
    if (!seen(ordinal)) return INVALID_DEVICE;
    pthread_mutex_lock(&everything);
    contexts[ordinal].retained++;
    pthread_mutex_unlock(&everything);
    *context = &contexts[ordinal];
    return OK;
}
int cuDevicePrimaryCtxRelease_v2(int ordinal) {
    if (!seen(ordinal) || !contexts[ordinal].retained) return INVALID_CONTEXT;
    pthread_mutex_lock(&everything);
    contexts[ordinal].retained--;
    pthread_mutex_unlock(&everything);
    return OK;
}
/* As on a device: while somebody waits for all streams of a context to free something, others wait who queue there,
   words apart, or make objects, allocate or register. Chunks are mapped, and other contexts go on. */
static void let_free(struct context *context) {
    if (!context) return;
    pthread_mutex_lock(&context->freeing);
    pthread_mutex_unlock(&context->freeing);
}
static void wait_for_all(void);
int cuCtxCreate_v2(struct context **context, unsigned flags, int ordinal) {
    if (!seen(ordinal)) return INVALID_DEVICE;
    if (flags || depth == 16) return INVALID_VALUE;
    if (getenv("TEST_DRIVER_ONE_CONTEXT")) return OUT_OF_MEMORY;
    *context = calloc(1, sizeof **context);
    (*context)->ordinal = ordinal;
    stack[depth++] = *context;
    return OK;
}
/* Its streams end with it. What is queued there goes on here, which is more than a device does. */
int cuCtxDestroy_v2(struct context *context) {
    if (!context || context->is_over) return INVALID_CONTEXT;
    context->is_over = 1;
    return OK;
}
int cuCtxPushCurrent_v2(struct context *context) { if (depth == 16) return INVALID_VALUE; stack[depth++] = context; return OK; }
int cuCtxPopCurrent_v2(struct context **context) { if (!depth) return INVALID_CONTEXT; *context = stack[--depth]; return OK; }
int cuCtxGetCurrent(struct context **context) { *context = current(); return OK; }
int cuThreadExchangeStreamCaptureMode(unsigned *mode) { unsigned was = capture_mode; capture_mode = *mode; *mode = was; return OK; }

/* ---- memory ---- */

struct allocation { int fd, references; size_t bytes; int home, imported; };
struct piece { address base; size_t bytes; struct allocation *of; struct piece *next; int is_writable; };
static struct piece *pieces;
struct range { address base; size_t bytes; struct range *next; int fd, is_lent; unsigned long number; };
static struct range *mallocs;
#ifndef WITHOUT_CHUNKS
static struct range *ranges;
#endif

static int home_of(const struct allocation *of) {
    for (int i = 0; i < visible_count; i++) if (visible[i] == of->home) return i;
    return -2;
}

#ifndef WITHOUT_CHUNKS
int cuMemGetAllocationGranularity(size_t *bytes, const properties *wanted, unsigned option) {
    (void)wanted; (void)option; *bytes = GRANULARITY; return OK;
}
int cuMemCreate(struct allocation **made, size_t bytes, const properties *wanted, unsigned long long flags) {
    if (flags || wanted->kind != 1 || wanted->where.kind != 1 || !seen(wanted->where.id)) return INVALID_VALUE;
    if (!bytes || bytes % GRANULARITY) return INVALID_VALUE;
    if (bytes > (size_t)8 << 30) return OUT_OF_MEMORY;
    struct allocation *it = calloc(1, sizeof *it);
    it->fd = memfd_create("test driver", MFD_CLOEXEC);
    if (it->fd < 0 || ftruncate(it->fd, bytes + TAIL)) return OUT_OF_MEMORY;
    it->bytes = bytes; it->home = visible[wanted->where.id]; it->references = 1;
    unsigned char tail[16]; memcpy(tail, MARK, 8); memset(tail + 8, it->home, 8);
    if (pwrite(it->fd, tail, 16, bytes) != 16) return OUT_OF_MEMORY;
    *made = it;
    return OK;
}
static void drop(struct allocation *it) {
    if (--it->references == 0) { close(it->fd); free(it); }
}
int cuMemRelease(struct allocation *it) {
    pthread_mutex_lock(&everything); drop(it); pthread_mutex_unlock(&everything);
    return OK;
}
int cuMemExportToShareableHandle(int *fd, struct allocation *it, unsigned kind, unsigned long long flags) {
    /* As on a device: what was imported is not exported again. */
    if (kind != 1 || flags || it->imported) return INVALID_VALUE;
    const char *refused = getenv("TEST_DRIVER_NO_EXPORT");
    if (refused) return atoi(refused);
    *fd = fcntl(it->fd, F_DUPFD_CLOEXEC, 3);
    return *fd < 0 ? OUT_OF_MEMORY : OK;
}
int cuMemImportFromShareableHandle(struct allocation **made, void *number, unsigned kind) {
    struct stat about; unsigned char tail[16];
    int fd = (int)(intptr_t)number;
    if (kind != 1 || fstat(fd, &about) || about.st_size < TAIL) return INVALID_VALUE;
    if (pread(fd, tail, 16, about.st_size - TAIL) != 16 || memcmp(tail, MARK, 8)) return INVALID_VALUE;
    struct allocation *it = calloc(1, sizeof *it);
    it->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    it->bytes = about.st_size - TAIL; it->home = tail[8]; it->references = 1; it->imported = 1;
    *made = it;
    return OK;
}
int cuMemRetainAllocationHandle(struct allocation **made, void *at) {
    int code = INVALID_VALUE;
    pthread_mutex_lock(&everything);
    for (struct piece *it = pieces; it; it = it->next)
        if ((address)at >= it->base && (address)at < it->base + it->bytes) {
            it->of->references++; *made = it->of; code = OK;
        }
    pthread_mutex_unlock(&everything);
    return code;
}
int cuMemGetAllocationPropertiesFromHandle(properties *about, struct allocation *it) {
    memset(about, 0, sizeof *about);
    about->kind = 1; about->handles = !it->imported; about->where.kind = 1; about->where.id = home_of(it);
    return OK;
}
int cuMemAddressReserve(address *base, size_t bytes, size_t align, address wish, unsigned long long flags) {
    (void)wish;
    if (!bytes || bytes % GRANULARITY || align || flags) return INVALID_VALUE;
    char *at = mmap(NULL, bytes + GRANULARITY, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return OUT_OF_MEMORY;
    char *aligned = (char *)(((uintptr_t)at + GRANULARITY - 1) & ~(GRANULARITY - 1));
    if (aligned > at) munmap(at, aligned - at);
    munmap(aligned + bytes, GRANULARITY - (aligned - at));
    struct range *it = malloc(sizeof *it);
    pthread_mutex_lock(&everything);
    *it = (struct range){(address)aligned, bytes, ranges, -1, 0, 0}; ranges = it;
    pthread_mutex_unlock(&everything);
    *base = it->base;
    return OK;
}
int cuMemAddressFree(address base, size_t bytes) {
    int code = INVALID_VALUE;
    pthread_mutex_lock(&everything);
    for (struct piece *it = pieces; it; it = it->next)
        if (it->base >= base && it->base < base + bytes) goto out;
    for (struct range **at = &ranges; *at; at = &(*at)->next)
        if ((*at)->base == base && (*at)->bytes == bytes) {
            struct range *it = *at; *at = it->next; free(it);
            munmap((void *)base, bytes); code = OK;
            break;
        }
out:
    pthread_mutex_unlock(&everything);
    return code;
}
int cuMemMap(address base, size_t bytes, size_t offset, struct allocation *of, unsigned long long flags) {
    if (offset || flags || bytes != of->bytes || base % GRANULARITY) return INVALID_VALUE;
    if (mmap((void *)base, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, of->fd, 0) == MAP_FAILED) return OUT_OF_MEMORY;
    struct piece *it = malloc(sizeof *it);
    pthread_mutex_lock(&everything);
    of->references++;
    *it = (struct piece){base, bytes, of, pieces, 0}; pieces = it;
    pthread_mutex_unlock(&everything);
    return OK;
}
int cuMemUnmap(address base, size_t bytes) {
    pthread_mutex_lock(&everything);
    size_t found = 0;
    for (struct piece **at = &pieces; *at;) {
        struct piece *it = *at;
        if (it->base >= base && it->base + it->bytes <= base + bytes) {
            found += it->bytes; *at = it->next; drop(it->of); free(it);
        } else at = &it->next;
    }
    pthread_mutex_unlock(&everything);
    if (found != bytes) return INVALID_VALUE;
    mmap((void *)base, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    return OK;
}
int cuMemSetAccess(address base, size_t bytes, const access_of *access, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (!seen(access[i].where.id)) return INVALID_DEVICE;
        pthread_mutex_lock(&everything);
        int far = 0;
        for (struct piece *it = pieces; it; it = it->next)
            if (it->base >= base && it->base < base + bytes) {
                it->is_writable = access[i].flags == 3;
                if (!reach(visible[access[i].where.id], it->of->home)) far = 1;
            }
        pthread_mutex_unlock(&everything);
        if (far) return NOT_SUPPORTED;
        if (mprotect((void *)base, bytes, access[i].flags == 3 ? PROT_READ | PROT_WRITE : PROT_READ)) return INVALID_VALUE;
    }
    return OK;
}
#endif

/* ---- what others made ---- */

static int mapped_range(address *made, size_t bytes, int fd, int is_lent) {
    struct range *it = malloc(sizeof *it);
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return OUT_OF_MEMORY;
    pthread_mutex_lock(&everything);
    static unsigned long number;
    *it = (struct range){(address)at, bytes, mallocs, fd, is_lent, ++number}; mallocs = it;
    pthread_mutex_unlock(&everything);
    *made = it->base;
    return OK;
}
static int unmapped_range(address base, int is_lent) {
    int code = INVALID_VALUE;
    pthread_mutex_lock(&everything);
    for (struct range **at = &mallocs; *at; at = &(*at)->next)
        if ((*at)->base == base && (*at)->is_lent == is_lent) {
            struct range *it = *at; *at = it->next;
            munmap((void *)base, it->bytes); close(it->fd); free(it);
            code = OK;
            break;
        }
    pthread_mutex_unlock(&everything);
    return code;
}
int cuMemAlloc_v2(address *made, size_t bytes) {
    if (!current()) return INVALID_CONTEXT;
    let_free(current());
    int fd = memfd_create("test driver, allocated", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, bytes)) return OUT_OF_MEMORY;
    return mapped_range(made, bytes, fd, 0);
}
int cuMemFree_v2(address base) {
    if (!current()) return INVALID_CONTEXT;
    wait_for_all();
    return unmapped_range(base, 0);
}
static struct piece *mapped_at(address at) {
    for (struct piece *it = pieces; it; it = it->next) if (at >= it->base && at < it->base + it->bytes) return it;
    return NULL;
}
static struct range *allocated_at(address at) {
    for (struct range *it = mallocs; it; it = it->next) if (at >= it->base && at < it->base + it->bytes) return it;
    return NULL;
}

/* What the 64 bytes of a legacy handle are here. As on a device, memory that is allocated anew has another. */
typedef struct { char mark[8]; pid_t maker; int fd; size_t bytes; unsigned long number; char rest[32]; } handle_of;
_Static_assert(sizeof(handle_of) == 64, "as the driver's");

int cuIpcGetMemHandle(handle_of *made, address at) {
    pthread_mutex_lock(&everything);
    struct range *range = allocated_at(at);
    if (range) *made = (handle_of){"TESTIPC", getpid(), range->fd, range->bytes, range->number, {0}};
    pthread_mutex_unlock(&everything);
    return range && !range->is_lent ? OK : INVALID_VALUE;
}
int cuIpcOpenMemHandle_v2(address *made, handle_of from, unsigned flags) {
    if (!current()) return INVALID_CONTEXT;
    if (flags != 1 || memcmp(from.mark, "TESTIPC", 8)) return INVALID_VALUE;
    if (from.maker == getpid()) return INVALID_CONTEXT;
    char path[64]; snprintf(path, sizeof path, "/proc/%d/fd/%d", from.maker, from.fd);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    return fd < 0 ? INVALID_VALUE : mapped_range(made, from.bytes, fd, 1);
}
int cuIpcCloseMemHandle(address base) {
    if (!current()) return INVALID_CONTEXT;
    wait_for_all();
    return unmapped_range(base, 1);
}

int cuMemGetAddressRange_v2(address *base, size_t *bytes, address at) {
    int code = OK;
    pthread_mutex_lock(&everything);
    struct piece *piece = mapped_at(at); struct range *range = allocated_at(at);
    if (piece) { *base = piece->base; *bytes = piece->bytes; }
    else if (range) { *base = range->base; *bytes = range->bytes; }
    else code = INVALID_VALUE;
    pthread_mutex_unlock(&everything);
    return code;
}
int cuPointerGetAttribute(void *value, int attribute, address at) {
    pthread_mutex_lock(&everything);
    struct piece *piece = mapped_at(at); struct range *range = allocated_at(at);
    int home = piece ? home_of(piece->of) : 0;
    pthread_mutex_unlock(&everything);
    if (!piece && !range) return INVALID_VALUE;
    switch (attribute) {
    case 2: *(unsigned *)value = 2; return OK;
    case 8: *(unsigned char *)value = 0; return OK;
    case 9: *(int *)value = home; return OK;
    case 10: *(unsigned char *)value = range != NULL; return OK;
    case 17: *(void **)value = NULL; return OK;
    default: return INVALID_VALUE;
    }
}

/* What is free is not followed. */
int cuMemGetInfo_v2(size_t *available, size_t *total) { *available = *total = (size_t)8 << 30; return current() ? OK : INVALID_CONTEXT; }

/* ---- host memory ---- */

enum { READ_ONLY = 8 };
static struct pinned { address base; size_t bytes; unsigned flags; struct pinned *next; } *pinned;

static struct pinned *pinned_at(address at) {
    for (struct pinned *it = pinned; it; it = it->next) if (at >= it->base && at < it->base + it->bytes) return it;
    return NULL;
}
int cuMemHostRegister_v2(void *at, size_t bytes, unsigned flags) {
    if (!current()) return INVALID_CONTEXT;
    if (!bytes || flags & ~15u) return INVALID_VALUE;
    let_free(current());
    address base = (address)at;
    int code = OK;
    pthread_mutex_lock(&everything);
    for (struct pinned *it = pinned; it; it = it->next)
        if (base < it->base + it->bytes && it->base < base + bytes) code = ALREADY_REGISTERED;
    if (!code) {
        struct pinned *it = malloc(sizeof *it);
        *it = (struct pinned){base, bytes, flags, pinned}; pinned = it;
    }
    pthread_mutex_unlock(&everything);
    return code;
}
/* For tests: how many ranges are registered. */
int test_driver_registered(void) {
    int count = 0;
    pthread_mutex_lock(&everything);
    for (struct pinned *it = pinned; it; it = it->next) count++;
    pthread_mutex_unlock(&everything);
    return count;
}
int cuMemHostGetDevicePointer_v2(address *made, void *at, unsigned flags) {
    if (!current()) return INVALID_CONTEXT;
    pthread_mutex_lock(&everything);
    int is_pinned = pinned_at((address)at) != NULL;
    pthread_mutex_unlock(&everything);
    if (flags || !is_pinned) return INVALID_VALUE;
    *made = (address)at;
    return OK;
}

/* ---- streams: a thread and a queue each ---- */

enum step_kind { WRITE, WAIT, COPY, FILL, RECORD, AWAIT, PATTERN, COMPARE, CALL };
struct event { atomic_ullong recorded, come; atomic_int references; };
struct step { enum step_kind kind; address to, from; unsigned long long value; struct event *event; struct step *next; address count; };
struct object { void *data; void (*drop)(void *); int references; };
struct kept { struct object *object; struct kept *next; };
struct graph { int spoilt, references; struct kept *kept; struct step *first, **last; };
struct stream {
    pthread_mutex_t lock; pthread_cond_t moved; pthread_t thread;
    struct step *first, **last, now; int running, over; struct context *context; struct graph *capture;
    int is_blocking; struct stream *next; unsigned connection;
};
static struct stream default_stream[8];
/* Those that were made. The blocking ones wait for their context's default stream, and it for them. */
static struct stream *streams;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

static void let_go_event(struct event *it) { if (atomic_fetch_sub(&it->references, 1) == 1) free(it); }

/* As on a device: a write to what is mapped for reading is told by whatever is called from then on, and of what
   was queued on that device nothing more is done. */
static atomic_int lost_on[8];
static int lost(const struct stream *it) { return atomic_load(&lost_on[it->context->ordinal]); }
static int is_lost_by(struct stream *it, address to) {
    pthread_mutex_lock(&everything);
    struct piece *piece = mapped_at(to);
    struct pinned *range = pinned_at(to);
    int is_wrong = (piece && !piece->is_writable) || (range && range->flags & READ_ONLY);
    pthread_mutex_unlock(&everything);
    if (is_wrong) atomic_store(&lost_on[it->context->ordinal], ILLEGAL_ADDRESS);
    return lost(it);
}

static void nap(void) { struct timespec t = {0, 50000}; nanosleep(&t, NULL); }

static unsigned long long word_of(size_t at, unsigned long long seed) { return at * 0x9E3779B97F4A7C15ull ^ seed; }
/* What the two kernels of the tests do. */
static void pattern(unsigned long long *words, size_t count, unsigned long long seed) {
    for (size_t i = 0; i < count; i++) words[i] = word_of(i, seed);
}
static void compare(const unsigned long long *words, size_t count, unsigned long long seed, unsigned long long *wrong) {
    for (size_t i = 0; i < count; i++) *wrong += words[i] != word_of(i, seed);
}

static void *work(void *arg) {
    struct stream *it = arg;
    int is_apart = it->context < contexts || it->context >= contexts + 8;
    while (is_apart && getenv("TEST_DRIVER_STALLED")) nap();
    pthread_mutex_lock(&it->lock);
    for (;;) {
        while (!it->first && !it->over) pthread_cond_wait(&it->moved, &it->lock);
        if (!it->first) break;
        struct step *step = it->first;
        it->first = step->next; if (!it->first) it->last = &it->first;
        it->running = 1; it->now = *step;
        pthread_mutex_unlock(&it->lock);
        if (!lost(it)) switch (step->kind) {
        case WRITE: atomic_store((atomic_ullong *)step->to, step->value); break;
        case WAIT: while (!lost(it) && (long long)(atomic_load((atomic_ullong *)step->to) - step->value) < 0) nap(); break;
        case COPY: if (!is_lost_by(it, step->to)) memmove((void *)step->to, (void *)step->from, step->value); break;
        case FILL: if (!is_lost_by(it, step->to)) memset((void *)step->to, (int)step->from, step->value); break;
        case PATTERN: if (!is_lost_by(it, step->to)) pattern((void *)step->to, step->value, step->from); break;
        case COMPARE: compare((void *)step->to, step->value, step->from, (void *)step->count); break;
        case CALL: ((void (*)(void *))step->to)((void *)step->from); break;
        case RECORD: atomic_store(&step->event->come, step->value); break;
        case AWAIT: while (!lost(it) && atomic_load(&step->event->come) < step->value) nap(); break;
        }
        if (step->event) let_go_event(step->event);
        free(step);
        pthread_mutex_lock(&it->lock);
        it->running = 0;
        pthread_cond_broadcast(&it->moved);
    }
    pthread_mutex_unlock(&it->lock);
    pthread_mutex_lock(&order);
    for (struct stream **at = &streams; *at; at = &(*at)->next) if (*at == it) { *at = it->next; break; }
    if (it->context->given[it->connection] == it) it->context->given[it->connection] = NULL;
    pthread_mutex_unlock(&order);
    free(it);
    return NULL;
}
static unsigned connections(void) {
    const char *text = getenv("CUDA_DEVICE_MAX_CONNECTIONS");
    int count = text ? atoi(text) : 8;
    return count < 1 ? 1 : count > CONNECTIONS ? CONNECTIONS : (unsigned)count;
}
static void begin(struct stream *it, struct context *context) {
    it->connection = __atomic_fetch_add(&context->streams, 1, __ATOMIC_RELAXED) % connections();
    pthread_mutex_init(&it->lock, NULL); pthread_cond_init(&it->moved, NULL);
    it->last = &it->first; it->context = context;
    pthread_create(&it->thread, NULL, work, it);
}
/* Of the default stream 1 is another name. */
static int has_handle(const struct stream *it) { return (uintptr_t)it > 1; }
static struct stream *which(struct stream *it) {
    if (has_handle(it)) return it;
    if (!current()) return NULL;
    struct stream *own = &default_stream[current()->ordinal];
    pthread_mutex_lock(&everything);
    if (!own->last) begin(own, current());
    pthread_mutex_unlock(&everything);
    return own;
}
static void append(struct stream *it, struct step step) {
    struct step *made = malloc(sizeof *made);
    *made = step; made->next = NULL;
    pthread_mutex_lock(&it->lock);
    *it->last = made; it->last = &made->next;
    pthread_cond_broadcast(&it->moved);
    pthread_mutex_unlock(&it->lock);
}
static int is_busy(struct stream *it) {
    pthread_mutex_lock(&it->lock);
    int busy = it->first || it->running;
    pthread_mutex_unlock(&it->lock);
    return busy;
}
static void order_behind(struct stream *then, struct stream *first) {
    if (!is_busy(first)) return;
    struct event *event = calloc(1, sizeof *event);
    event->recorded = 1; event->references = 2;
    append(first, (struct step){.kind = RECORD, .value = 1, .event = event});
    append(then, (struct step){.kind = AWAIT, .value = 1, .event = event});
}
static int queue(struct stream *it, struct step step) {
    if (!(it = which(it))) return INVALID_CONTEXT;
    if (step.kind != WRITE && step.kind != WAIT) let_free(it->context);
    if (lost(it)) { if (step.event) let_go_event(step.event); return lost(it); }
    if (it->capture) {
        if (step.event) let_go_event(step.event);
        else {
            struct step *made = malloc(sizeof *made);
            *made = step; *it->capture->last = made; it->capture->last = &made->next;
        }
        return it->capture->spoilt ? CAPTURE_INVALIDATED : OK;
    }
    struct stream *own = &default_stream[it->context->ordinal];
    pthread_mutex_lock(&order);
    if (it == own) {
        for (struct stream *at = streams; at; at = at->next)
            if (at->is_blocking && at->context == it->context) order_behind(it, at);
    } else if (it->is_blocking && own->last) order_behind(it, own);
    /* As on a device: what is in one queue is done in the order in which it came, of whatever streams. */
    struct stream **given = &it->context->given[it->connection];
    if (*given && *given != it) order_behind(it, *given);
    *given = it;
    append(it, step);
    pthread_mutex_unlock(&order);
    return OK;
}
int cuStreamCreate(struct stream **made, unsigned flags) {
    let_free(current());
    if (!current()) return INVALID_CONTEXT;
    *made = calloc(1, sizeof **made);
    (*made)->is_blocking = !flags;
    begin(*made, current());
    pthread_mutex_lock(&order);
    (*made)->next = streams; streams = *made;
    pthread_mutex_unlock(&order);
    return OK;
}
int cuStreamGetFlags(struct stream *it, unsigned *flags) { *flags = has_handle(it) && !it->is_blocking; return OK; }
/* As on a device: what is queued in it goes on. */
int cuStreamDestroy_v2(struct stream *it) {
    if (it->context->is_over) {
        fputs("a stream is destroyed after its context\n", stderr);
        abort();
    }
    pthread_detach(it->thread);
    pthread_mutex_lock(&it->lock);
    it->over = 1; pthread_cond_broadcast(&it->moved);
    pthread_mutex_unlock(&it->lock);
    return OK;
}
int cuStreamSynchronize(struct stream *it) {
    if (!(it = which(it))) return INVALID_CONTEXT;
    if (it->capture) { it->capture->spoilt = 1; return CAPTURE_UNSUPPORTED; }
    pthread_mutex_lock(&it->lock);
    while (it->first || it->running) pthread_cond_wait(&it->moved, &it->lock);
    pthread_mutex_unlock(&it->lock);
    return lost(it);
}
int cuStreamQuery(struct stream *it) {
    if (!(it = which(it))) return INVALID_CONTEXT;
    if (it->capture) { it->capture->spoilt = 1; return CAPTURE_UNSUPPORTED; }
    int busy = is_busy(it);
    pthread_mutex_lock(&order);
    if (it == &default_stream[it->context->ordinal] && !getenv("TEST_DRIVER_APART"))
        for (struct stream *at = streams; at; at = at->next)
            busy |= at->is_blocking && at->context == it->context && is_busy(at);
    pthread_mutex_unlock(&order);
    return lost(it) ? lost(it) : busy ? NOT_READY : OK;
}
static int has_work(struct context *context) {
    struct stream *own = &default_stream[context->ordinal];
    pthread_mutex_lock(&order);
    int busy = own->last && own->context == context && is_busy(own);
    for (struct stream *at = streams; at; at = at->next) busy |= at->context == context && is_busy(at);
    pthread_mutex_unlock(&order);
    return busy;
}
/* As on a device: waiting for a context spoils every capture in it, whoever waits. */
int cuCtxSynchronize(void) {
    if (!current()) return INVALID_CONTEXT;
    if (current()->capture) { current()->capture->spoilt = 1; return CAPTURE_UNSUPPORTED; }
    while (has_work(current())) nap();
    return atomic_load(&lost_on[current()->ordinal]);
}
/* As on a device: who frees or unregisters memory, or closes another process's, waits for all streams of the context. */
static void wait_for_all(void) {
    struct context *context = current();
    pthread_mutex_lock(&context->freeing);
    while (has_work(context)) nap();
    pthread_mutex_unlock(&context->freeing);
}
/* As on a device: what is unregistered under copies ends the context. */
static int touches(const struct step *step, const struct pinned *range) {
    address end = range->base + range->bytes;
    if (step->kind == WRITE || step->kind == WAIT) return step->to >= range->base && step->to < end;
    if (step->kind != COPY && step->kind != FILL) return 0;
    int to = step->to < end && range->base < step->to + step->value;
    int from = step->kind == COPY && step->from < end && range->base < step->from + step->value;
    return to || from;
}
int cuMemHostUnregister(void *at) {
    if (!current()) return INVALID_CONTEXT;
    struct pinned *found = NULL;
    pthread_mutex_lock(&everything);
    for (struct pinned **it = &pinned; *it; it = &(*it)->next)
        if ((*it)->base == (address)at) { found = *it; *it = found->next; break; }
    pthread_mutex_unlock(&everything);
    if (!found) return NOT_REGISTERED;
    pthread_mutex_lock(&order);
    for (struct stream *it = streams; it; it = it->next) {
        pthread_mutex_lock(&it->lock);
        int is_used = it->running && touches(&it->now, found);
        for (struct step *step = it->first; step; step = step->next) is_used |= touches(step, found);
        pthread_mutex_unlock(&it->lock);
        if (is_used) atomic_store(&lost_on[it->context->ordinal], ILLEGAL_ADDRESS);
    }
    pthread_mutex_unlock(&order);
    wait_for_all();
    free(found);
    return OK;
}
#ifndef WITHOUT_WORDS
static int word(struct stream *it, enum step_kind kind, address at, unsigned long long value) {
    pthread_mutex_lock(&everything);
    int is_there = pinned_at(at) || mapped_at(at) || allocated_at(at);
    pthread_mutex_unlock(&everything);
    if (at % 8 || !is_there) return INVALID_VALUE;
    return queue(it, (struct step){.kind = kind, .to = at, .value = value});
}
int cuStreamWriteValue64_v2(struct stream *it, address to, unsigned long long value, unsigned flags) {
    return flags ? INVALID_VALUE : word(it, WRITE, to, value);
}
int cuStreamWaitValue64_v2(struct stream *it, address to, unsigned long long value, unsigned flags) {
    return flags ? INVALID_VALUE : word(it, WAIT, to, value);
}
#ifndef WITHOUT_BATCHES
struct word_call { unsigned kind; address at; unsigned long long value; unsigned flags; address alias; unsigned long long rest; };
int cuStreamBatchMemOp_v2(struct stream *it, unsigned count, struct word_call *calls, unsigned flags) {
    if (count >= 256 || flags) return INVALID_VALUE;
    for (unsigned i = 0; i < count; i++) {
        if (calls[i].flags || (calls[i].kind != 4 && calls[i].kind != 5)) return INVALID_VALUE;
        int code = word(it, calls[i].kind == 4 ? WAIT : WRITE, calls[i].at, calls[i].value);
        if (code) return code;
    }
    return OK;
}
#endif
#endif
/* Whether a call of what is named in the environment is one of the first so many, which are refused. */
static int is_refused(const char *name) {
    static atomic_int copies, calls;
    const char *count = getenv(name);
    return count && atomic_fetch_add(!strcmp(name, "TEST_DRIVER_REFUSED_COPIES") ? &copies : &calls, 1) < atoi(count);
}
int cuLaunchHostFunc(struct stream *it, void (*call)(void *), void *with) {
    if (is_refused("TEST_DRIVER_REFUSED_CALLS")) return OUT_OF_MEMORY;
    return queue(it, (struct step){.kind = CALL, .to = (address)call, .from = (address)with});
}
int cuMemcpyDtoDAsync_v2(address to, address from, size_t bytes, struct stream *it) {
    return queue(it, (struct step){.kind = COPY, .to = to, .from = from, .value = bytes});
}
int cuMemcpyHtoDAsync_v2(address to, const void *from, size_t bytes, struct stream *it) { return cuMemcpyDtoDAsync_v2(to, (address)from, bytes, it); }
int cuMemcpyDtoHAsync_v2(void *to, address from, size_t bytes, struct stream *it) {
    return is_refused("TEST_DRIVER_REFUSED_COPIES") ? OUT_OF_MEMORY : cuMemcpyDtoDAsync_v2((address)to, from, bytes, it);
}
int cuMemsetD8Async(address to, unsigned char byte, size_t bytes, struct stream *it) {
    return queue(it, (struct step){.kind = FILL, .to = to, .from = byte, .value = bytes});
}

/* ---- kernels: two, by their names ---- */

int cuModuleLoadData(void **module, const void *image) {
    if (!current()) return INVALID_CONTEXT;
    *module = (void *)image;
    return strstr(image, ".entry") ? OK : INVALID_VALUE;
}
int cuModuleGetFunction(const char **kernel, void *module, const char *name) {
    (void)module;
    *kernel = strcmp(name, "fill") ? strcmp(name, "check") ? NULL : "check" : "fill";
    return *kernel ? OK : INVALID_VALUE;
}
int cuLaunchKernel(const char *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, struct stream *it, unsigned long long **with, void **more) {
    (void)gx; (void)gy; (void)gz; (void)bx; (void)by; (void)bz; (void)shared; (void)more;
    struct step step = {.kind = *kernel == 'f' ? PATTERN : COMPARE, .to = *with[0], .value = *with[1], .from = *with[2]};
    if (step.kind == COMPARE) step.count = *with[3];
    return queue(it, step);
}

/* ---- events ---- */

int cuEventCreate(struct event **made, unsigned flags) {
    (void)flags;
    let_free(current());
    if (!current()) return INVALID_CONTEXT;
    *made = calloc(1, sizeof **made);
    (*made)->references = 1;
    return OK;
}
int cuEventRecord(struct event *event, struct stream *it) {
    unsigned long long number = atomic_fetch_add(&event->recorded, 1) + 1;
    atomic_fetch_add(&event->references, 1);
    return queue(it, (struct step){.kind = RECORD, .value = number, .event = event});
}
int cuEventQuery(struct event *event) { return atomic_load(&event->come) >= atomic_load(&event->recorded) ? OK : NOT_READY; }
int cuStreamWaitEvent(struct stream *it, struct event *event, unsigned flags) {
    (void)flags;
    atomic_fetch_add(&event->references, 1);
    return queue(it, (struct step){.kind = AWAIT, .value = atomic_load(&event->recorded), .event = event});
}
int cuEventDestroy_v2(struct event *event) { let_go_event(event); return OK; }

/* ---- captures ---- */

int cuStreamBeginCapture_v2(struct stream *it, int mode) {
    (void)mode;
    if (!it || it->capture) return INVALID_VALUE;
    it->capture = it->context->capture = calloc(1, sizeof *it->capture);
    it->capture->references = 1; it->capture->last = &it->capture->first;
    return OK;
}
int cuStreamEndCapture(struct stream *it, struct graph **made) {
    struct graph *graph = it->capture;
    it->capture = it->context->capture = NULL;
    *made = graph;
    return graph->spoilt ? CAPTURE_INVALIDATED : OK;
}
int cuStreamIsCapturing(struct stream *it, int *status) {
    if (!(it = which(it))) return INVALID_CONTEXT;
    *status = it->capture ? it->capture->spoilt ? 2 : 1 : 0;
    return lost(it);
}
int cuStreamGetCaptureInfo_v2(struct stream *it, int *status, unsigned long long *id, struct graph **graph, const void ***edges, size_t *count) {
    (void)id; (void)edges; (void)count;
    int code = cuStreamIsCapturing(it, status);
    if (!code && *status) *graph = it->capture;
    return code;
}
int cuUserObjectCreate(struct object **made, void *data, void (*destroy)(void *), unsigned references, unsigned flags) {
    (void)flags;
    *made = malloc(sizeof **made);
    **made = (struct object){data, destroy, (int)references};
    return OK;
}
int cuGraphRetainUserObject(struct graph *graph, struct object *object, unsigned count, unsigned flags) {
    (void)count; (void)flags;
    struct kept *kept = malloc(sizeof *kept);
    *kept = (struct kept){object, graph->kept};
    graph->kept = kept;
    return OK;
}
int cuGraphDestroy(struct graph *graph) {
    if (--graph->references) return OK;
    while (graph->first) { struct step *it = graph->first; graph->first = it->next; free(it); }
    while (graph->kept) {
        struct kept *it = graph->kept;
        graph->kept = it->next;
        it->object->drop(it->object->data);
        free(it->object); free(it);
    }
    free(graph);
    return OK;
}
/* A graph that can be run is the graph itself, once more. */
int cuGraphInstantiateWithFlags(struct graph **made, struct graph *graph, unsigned long long flags) {
    if (flags) return INVALID_VALUE;
    graph->references++; *made = graph;
    return OK;
}
int cuGraphExecDestroy(struct graph *graph) { return cuGraphDestroy(graph); }
int cuGraphLaunch(struct graph *graph, struct stream *it) {
    for (struct step *step = graph->first; step; step = step->next) {
        int code = queue(it, *step);
        if (code) return code;
    }
    return OK;
}

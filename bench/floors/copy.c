// One frame in, one frame out: two memcpy over a rotating ring of slots, in one process.
//
// copy BYTES SLOTS THREADS SAMPLES BATCH: a sample is the mean of BATCH pairs. With two threads the
// second takes half of each copy; it parks between copies, as a helper in a library has to.
#include "floor.h"

#include <pthread.h>

static struct {
    _Atomic uint32_t turn;
    _Atomic uint32_t done;
    char *to;
    const char *from;
    size_t bytes;
} job;

static void *assist(void *unused) {
    (void)unused;
    for (uint32_t seen = 0;; seen++) {
        while (atomic_load_explicit(&job.turn, memory_order_acquire) == seen)
            futex_wait(&job.turn, seen);
        if (job.bytes == 0) return NULL;
        memcpy(job.to, job.from, job.bytes);
        atomic_store_explicit(&job.done, seen + 1, memory_order_release);
    }
}

static void copy_by_two(char *to, const char *from, size_t bytes) {
    size_t half = bytes / 2 & ~(size_t)4095;
    job.to = to + half;
    job.from = from + half;
    job.bytes = bytes - half;
    uint32_t turn = atomic_fetch_add_explicit(&job.turn, 1, memory_order_release) + 1;
    futex_wake(&job.turn, 1);
    memcpy(to, from, half);
    while (atomic_load_explicit(&job.done, memory_order_acquire) != turn) relax();
}

int main(int argc, char **argv) {
    size_t bytes = argument(argc, argv, 1), slots = argument(argc, argv, 2);
    size_t threads = argument(argc, argv, 3), samples = argument(argc, argv, 4);
    size_t batch = argument(argc, argv, 5);
    size_t stride = (bytes + 4095) & ~(size_t)4095;
    char *ring = share(stride * slots), *in = malloc(bytes), *out = malloc(bytes);
    if (!in || !out) fail("malloc");
    memset(in, 7, bytes);
    memset(out, 1, bytes);
    pthread_t assistant;
    if (threads == 1) pin(0);
    if (threads == 2 && pthread_create(&assistant, NULL, assist, NULL) != 0) fail("pthread_create");
    double *times = samples_for(samples);
    size_t slot = 0, warm = samples / 10 + 1;
    for (size_t i = 0; i < samples + warm; i++) {
        uint64_t begun = now_ns();
        for (size_t j = 0; j < batch; j++) {
            char *at = ring + slot * stride;
            slot = slot + 1 == slots ? 0 : slot + 1;
            if (threads == 2) {
                copy_by_two(at, in, bytes);
                copy_by_two(out, at, bytes);
            } else {
                memcpy(at, in, bytes);
                // The compiler must not see through the pair.
                __asm__ volatile("" : : "r"(at) : "memory");
                memcpy(out, at, bytes);
                __asm__ volatile("" : : "r"(out) : "memory");
            }
        }
        if (i >= warm) times[i - warm] = (double)(now_ns() - begun) / (double)batch;
    }
    if (out[bytes - 1] != 7) return 1;
    print_quantiles(times, samples);
    return 0;
}

// Frames both ways between two processes, one per CPU, copied in and out on both sides.
//
// pingpong BYTES_THERE BYTES_BACK SLOTS park|spin SAMPLES. With frames of no bytes it is the bare
// notification there and back.
#include "floor.h"

typedef struct {
    _Alignas(128) _Atomic uint32_t count;
} word;

typedef struct {
    word *word;
    char *ring;
    size_t bytes, stride, slots;
    uint32_t seen;
} channel;

static int parks;

static channel channel_of(size_t bytes, size_t slots) {
    channel made = {.bytes = bytes, .slots = slots, .stride = (bytes + 4095) & ~(size_t)4095};
    made.word = share(sizeof *made.word);
    made.ring = share(made.stride * slots + 4096);
    return made;
}

static char *slot(channel *to, uint32_t count) { return to->ring + count % to->slots * to->stride; }

static void put(channel *to, const char *frame) {
    uint32_t next = ++to->seen;
    memcpy(slot(to, next), frame, to->bytes);
    atomic_store_explicit(&to->word->count, next, memory_order_release);
    if (parks) futex_wake(&to->word->count, 1);
}

static void take(channel *from, char *frame) {
    uint32_t seen = from->seen;
    while (atomic_load_explicit(&from->word->count, memory_order_acquire) == seen) {
        if (parks)
            futex_wait(&from->word->count, seen);
        else
            relax();
    }
    memcpy(frame, slot(from, ++from->seen), from->bytes);
}

int main(int argc, char **argv) {
    size_t there = argument(argc, argv, 1), back = argument(argc, argv, 2);
    size_t slots = argument(argc, argv, 3), samples = argument(argc, argv, 5);
    parks = strcmp(argv[4], "park") == 0;
    size_t largest = there > back ? there : back, warm = samples / 10 + 1;
    channel ping = channel_of(there, slots), pong = channel_of(back, slots);
    char *frame = calloc(1, largest + 1);
    if (!frame) fail("calloc");
    pid_t child = start();
    if (child == 0) {
        pin(1);
        for (size_t i = 0; i < samples + warm; i++) {
            take(&ping, frame);
            put(&pong, frame);
        }
        _exit(0);
    }
    pin(0);
    double *times = samples_for(samples);
    for (size_t i = 0; i < samples + warm; i++) {
        uint64_t begun = now_ns();
        put(&ping, frame);
        take(&pong, frame);
        if (i >= warm) times[i - warm] = (double)(now_ns() - begun);
    }
    waitpid(child, NULL, 0);
    print_quantiles(times, samples);
    return 0;
}

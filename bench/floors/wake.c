// One way to a waiting process on the other CPU: from just before the store to running there.
//
// wake IDLE_NS park|spin SAMPLES: the waker keeps its own CPU busy for IDLE_NS between two wakes.
#include "floor.h"

typedef struct {
    _Alignas(128) _Atomic uint32_t count;
    _Alignas(128) _Atomic uint64_t begun;
    _Alignas(128) _Atomic uint32_t taken;
} shared;

int main(int argc, char **argv) {
    uint64_t idle = argument(argc, argv, 1);
    int parks = argc > 2 && strcmp(argv[2], "park") == 0;
    size_t samples = argument(argc, argv, 3);
    shared *with = share(sizeof *with);
    double *times = share(samples * sizeof *times);
    pid_t child = start();
    if (child == 0) {
        pin(1);
        for (uint32_t seen = 0; seen < samples; seen++) {
            while (atomic_load_explicit(&with->count, memory_order_acquire) == seen) {
                if (parks)
                    futex_wait(&with->count, seen);
                else
                    relax();
            }
            times[seen] = (double)(now_ns() - atomic_load(&with->begun));
            atomic_store(&with->taken, seen + 1);
        }
        _exit(0);
    }
    pin(0);
    for (uint32_t i = 0; i < samples; i++) {
        while (atomic_load(&with->taken) != i) relax();
        uint64_t until = now_ns() + idle;
        while (now_ns() < until) relax();
        atomic_store(&with->begun, now_ns());
        atomic_store_explicit(&with->count, i + 1, memory_order_release);
        if (parks) futex_wake(&with->count, 1);
    }
    waitpid(child, NULL, 0);
    print_quantiles(times, samples);
    return 0;
}

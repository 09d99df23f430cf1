// A bare lock word: uncontended, and fought over by two processes that each hold it for 200 ns.
//
// lock SAMPLES
#include "floor.h"

#define BATCH 1000
#define HELD_NS 200

// 0 free, 1 held, 2 held and somebody may sleep.
static void take(_Atomic uint32_t *word) {
    uint32_t seen = 0;
    if (atomic_compare_exchange_strong_explicit(word, &seen, 1, memory_order_acquire,
                                                memory_order_relaxed))
        return;
    for (int i = 0; i < 100; i++) {
        seen = 0;
        if (atomic_load_explicit(word, memory_order_relaxed) == 0 &&
            atomic_compare_exchange_strong_explicit(word, &seen, 1, memory_order_acquire,
                                                    memory_order_relaxed))
            return;
        relax();
    }
    while (atomic_exchange_explicit(word, 2, memory_order_acquire) != 0) futex_wait(word, 2);
}

static void leave(_Atomic uint32_t *word) {
    if (atomic_exchange_explicit(word, 0, memory_order_release) == 2) futex_wake(word, 1);
}

static void hold(void) {
    for (uint64_t until = now_ns() + HELD_NS; now_ns() < until;) {
    }
}

int main(int argc, char **argv) {
    size_t samples = argument(argc, argv, 1);
    _Atomic uint32_t *word = share(4096);
    _Atomic uint32_t *arrived = word + 64;
    double *times = samples_for(samples);
    pin(0);
    for (size_t i = 0; i < samples; i++) {
        uint64_t begun = now_ns();
        for (int j = 0; j < BATCH; j++) {
            take(word);
            leave(word);
        }
        times[i] = (double)(now_ns() - begun) / BATCH;
    }
    qsort(times, samples, sizeof *times, by_value);
    print("uncontended", quantile(times, samples, 0.5));

    size_t turns = samples * 200;
    pid_t child = start();
    pin(child == 0);
    atomic_fetch_add(arrived, 1);
    while (atomic_load(arrived) != 2) relax();
    uint64_t begun = now_ns();
    for (size_t i = 0; i < turns; i++) {
        take(word);
        hold();
        leave(word);
    }
    double each = (double)(now_ns() - begun) / (double)(2 * turns);
    if (child == 0) _exit(0);
    waitpid(child, NULL, 0);
    print("contended", each);
    return 0;
}

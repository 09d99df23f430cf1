// What one broadcast wake of N parked processes costs the one who wakes.
//
// fanout PROCESSES SAMPLES
#include "floor.h"

int main(int argc, char **argv) {
    size_t processes = argument(argc, argv, 1), samples = argument(argc, argv, 2);
    _Atomic uint32_t *word = share(sizeof *word);
    for (size_t i = 0; i < processes; i++) {
        pid_t child = start();
            if (child > 0) continue;
        for (uint32_t seen = 0; seen < samples; seen = atomic_load(word))
            while (atomic_load(word) == seen) futex_wait(word, seen);
        _exit(0);
    }
    double *times = samples_for(samples);
    for (uint32_t i = 0; i < samples; i++) {
        // Long enough for all of them to run and to park again.
        usleep(2000 + 100 * (unsigned)processes);
        uint64_t begun = now_ns();
        atomic_store_explicit(word, i + 1, memory_order_release);
        futex_wake(word, INT_MAX);
        times[i] = (double)(now_ns() - begun);
    }
    while (wait(NULL) > 0) {
    }
    print_quantiles(times, samples);
    return 0;
}

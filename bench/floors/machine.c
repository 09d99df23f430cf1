// What this machine charges for the steps that every protocol is made of.
#include "floor.h"

#define STEPS 20000

#define MEASURE(name, step)                                                      \
    do {                                                                         \
        double best = 1e18;                                                      \
        for (int round = 0; round < 25; round++) {                               \
            uint64_t begun = now_ns();                                           \
            for (int i = 0; i < STEPS; i++) {                                    \
                step;                                                            \
            }                                                                    \
            double each = (double)(now_ns() - begun) / STEPS;                    \
            if (each < best) best = each;                                        \
        }                                                                        \
        print(name, best);                                                       \
    } while (0)

int main(void) {
    pin(0);
    _Atomic uint64_t *word = share(4096);
    _Atomic uint32_t *futex = (_Atomic uint32_t *)(word + 64);
    MEASURE("clock", now_ns());
    MEASURE("locked_add", atomic_fetch_add_explicit(word, 1, memory_order_relaxed));
    MEASURE("fence", atomic_thread_fence(memory_order_seq_cst));
    MEASURE("system_call", syscall(SYS_getppid));
    MEASURE("wake_nobody", futex_wake(futex, INT_MAX));
    return 0;
}

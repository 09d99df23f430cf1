// A small named file of shared memory: made, sized, mapped, touched; then opened again.
//
// create BYTES SAMPLES PATH
#include "floor.h"

#include <fcntl.h>

static void touch(int file, size_t bytes) {
    volatile char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (at == MAP_FAILED) fail("mmap");
    at[0] = 1;
    munmap((void *)at, bytes);
}

int main(int argc, char **argv) {
    size_t bytes = argument(argc, argv, 1), samples = argument(argc, argv, 2);
    argument(argc, argv, 3);
    double *create = samples_for(samples), *attach = samples_for(samples);
    pin(0);
    for (size_t i = 0; i < samples; i++) {
        uint64_t begun = now_ns();
        int file = open(argv[3], O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
        if (file < 0 || ftruncate(file, (off_t)bytes) != 0) fail(argv[3]);
        posix_fallocate(file, 0, (off_t)bytes);
        touch(file, bytes);
        close(file);
        create[i] = (double)(now_ns() - begun);
        begun = now_ns();
        file = open(argv[3], O_RDWR | O_CLOEXEC);
        if (file < 0) fail(argv[3]);
        touch(file, bytes);
        close(file);
        attach[i] = (double)(now_ns() - begun);
        unlink(argv[3]);
    }
    qsort(create, samples, sizeof *create, by_value);
    qsort(attach, samples, sizeof *attach, by_value);
    print("create", quantile(create, samples, 0.5));
    print("attach", quantile(attach, samples, 0.5));
    return 0;
}

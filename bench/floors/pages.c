// A file of shared memory: made and populated, then mapped again and touched.
//
// pages BYTES: `create` on small pages, `create_huge` collapsed onto huge ones, `attach` likewise.
#include "floor.h"

#include <fcntl.h>

static int made(size_t bytes) {
    int file = memfd_create("floor", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)bytes) != 0) fail("memfd_create");
    int error = posix_fallocate(file, 0, (off_t)bytes);
    if (error != 0) {
        errno = error;
        fail("posix_fallocate");
    }
    return file;
}

static char *mapped(int file, size_t bytes, int advice) {
    char *at = map_shared(file, bytes);
    if (madvise(at, bytes, advice) != 0) fail("madvise");
    return at;
}

// Maps the file anew and touches every page, of the size that it has.
static double attach(int file, size_t bytes, size_t page) {
    uint64_t begun = now_ns();
    volatile char *at = mapped(file, bytes, MADV_POPULATE_READ);
    for (size_t i = 0; i < bytes; i += page) (void)at[i];
    double spent = (double)(now_ns() - begun);
    munmap((void *)at, bytes);
    return spent;
}

int main(int argc, char **argv) {
    size_t bytes = (argument(argc, argv, 1) + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    pin(0);
    uint64_t begun = now_ns();
    int file = made(bytes);
    char *at = mapped(file, bytes, MADV_POPULATE_WRITE);
    print("create", (double)(now_ns() - begun));
    print("attach", attach(file, bytes, 4096));
    if (madvise(at, bytes, MADV_COLLAPSE) != 0) return 0;
    print("create_huge", (double)(now_ns() - begun));
    print("attach_huge", attach(file, bytes, HUGE_PAGE));
    return 0;
}

// From the SIGKILL of a process to the end of file on its socket: the kernel takes the memory of a
// dead process apart before it closes its files. The process does what a client does: its mapping is
// its own to write, and it copies every byte once, as what it has in the caches has its price here.
//
// hangup RESIDENT_BYTES MAPPED_BYTES SAMPLES
#include "floor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

static void read_all(const char *from, size_t bytes) {
    char page[4096];
    for (size_t at = 0; at < bytes; at += sizeof page) {
        memcpy(page, from + at, bytes - at < sizeof page ? bytes - at : sizeof page);
        __asm__ volatile("" : : "r"(page) : "memory"); // the copy is made, though nobody looks
    }
}

// The process has memory of its own, and reads what the other has written to a file and keeps mapped.
static double one(size_t resident, size_t mapped) {
    int file = memfd_create("hangup", MFD_CLOEXEC);
    if (file < 0 || posix_fallocate(file, 0, (off_t)mapped) != 0) fail("memfd_create");
    char *filled = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (filled == MAP_FAILED) fail("mmap");
    memset(filled, 1, mapped);
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) fail("socketpair");
    pid_t child = start();
    if (child == 0) {
        close(pair[0]);
        char *memory = mmap(NULL, resident + 1, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) fail("mmap");
        memset(memory, 1, resident + 1);
        char *lent = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, file, 0);
        if (lent == MAP_FAILED) fail("mmap");
        read_all(lent, mapped);
        if (send(pair[1], "r", 1, 0) != 1) fail("send");
        for (;;) pause();
    }
    close(pair[1]);
    char ready;
    if (recv(pair[0], &ready, 1, 0) != 1) fail("recv");
    uint64_t begun = now_ns();
    kill(child, SIGKILL);
    struct pollfd end = {.fd = pair[0], .events = POLLIN};
    while (recv(pair[0], &ready, 1, MSG_DONTWAIT) != 0) poll(&end, 1, -1);
    double took = (double)(now_ns() - begun);
    waitpid(child, NULL, 0);
    close(pair[0]);
    munmap(filled, mapped);
    close(file);
    return took;
}

int main(int argc, char **argv) {
    size_t resident = argument(argc, argv, 1), mapped = argument(argc, argv, 2);
    size_t samples = argument(argc, argv, 3);
    double *times = samples_for(samples);
    for (size_t i = 0; i < samples; i++) times[i] = one(resident, mapped);
    print_quantiles(times, samples);
    return 0;
}

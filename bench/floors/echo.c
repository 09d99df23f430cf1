// A request and its reply over a Unix socket, with one hand-over to a worker thread: what any server
// does that reads its sockets on one thread and runs user code on another.
//
// echo BYTES SAMPLES. The client stays on one CPU, both threads of the server on another.
#include "floor.h"

#include <pthread.h>
#include <sys/socket.h>

#define HEADER 24

static int connection;
static size_t bytes;
static char *request;
// Odd while the worker has a request that it has not answered.
static _Atomic uint32_t turn;

static void move(int send_it, int socket, char *from, size_t length) {
    while (length > 0) {
        ssize_t moved =
            send_it ? send(socket, from, length, MSG_NOSIGNAL) : recv(socket, from, length, 0);
        if (moved <= 0) _exit(moved < 0);
        from += moved;
        length -= (size_t)moved;
    }
}

static void *work(void *unused) {
    (void)unused;
    uint32_t seen = 0;
    for (;;) {
        while (atomic_load_explicit(&turn, memory_order_acquire) == seen) futex_wait(&turn, seen);
        seen++;
        move(1, connection, request, HEADER + bytes);
    }
    return NULL;
}

static void serve(void) {
    pin(1);
    pthread_t worker;
    if (pthread_create(&worker, NULL, work, NULL) != 0) fail("pthread_create");
    for (;;) {
        move(0, connection, request, HEADER + bytes);
        atomic_fetch_add_explicit(&turn, 1, memory_order_release);
        futex_wake(&turn, 1);
    }
}

int main(int argc, char **argv) {
    bytes = argument(argc, argv, 1);
    size_t samples = argument(argc, argv, 2), warm = samples / 10 + 1;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) fail("socketpair");
    request = calloc(1, HEADER + bytes);
    if (!request) fail("calloc");
    pid_t child = start();
    connection = pair[child == 0];
    close(pair[child != 0]);
    if (child == 0) serve();
    pin(0);
    double *times = samples_for(samples);
    for (size_t i = 0; i < samples + warm; i++) {
        uint64_t begun = now_ns();
        move(1, connection, request, HEADER + bytes);
        move(0, connection, request, HEADER + bytes);
        if (i >= warm) times[i - warm] = (double)(now_ns() - begun);
    }
    close(connection);
    waitpid(child, NULL, 0);
    print_quantiles(times, samples);
    return 0;
}

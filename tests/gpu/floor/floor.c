/* What a hand-over costs with the driver and a socket alone: the floor under the benchmark's rows.
 *
 * floor SAMPLES. A server in another process makes memory; this one asks for it, and prints quantiles in
 * microseconds as one line of JSON. An echo goes there and back with a descriptor, ordered by words that
 * the streams of both write and wait for. Memory is opened again by a message with its descriptors, which
 * are closed; opened anew also by importing, reserving, mapping and granting access.
 *
 * floor SAMPLES COUNT BYTES prints the median time in microseconds for opening so many chunks anew.
 */
#include "driver.h"

#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

/* Bert of 672 million parameters: its bytes, and those of a message that says where each one lies. */
#define BERT_PART ((size_t)428 << 21)
#define BERT_PARTS 3
#define MANIFEST 65536

static uint64_t *words;
static number on_device;

static void begin(int fd) {
    take_device();
    words = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (words == MAP_FAILED) fail("mmap", -1);
    CALL(cuMemHostRegister_v2, (void *, size_t, unsigned), words, 4096, 2);
    CALL(cuMemHostGetDevicePointer_v2, (number *, void *, unsigned), &on_device, words, 0);
}

static int (*write_word)(void *, number, number, unsigned), (*wait_word)(void *, number, number, unsigned);
static void words_of_streams(void) {
    write_word = find("cuStreamWriteValue64_v2");
    wait_word = find("cuStreamWaitValue64_v2");
}

/* ---- messages ---- */

static void send_all(int socket, const void *bytes, size_t count, const int *fds, int fd_count) {
    union { char room[CMSG_SPACE(4 * sizeof(int))]; struct cmsghdr align; } with;
    struct iovec part = {(void *)bytes, count};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd_count) {
        message.msg_control = with.room;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET; head->cmsg_type = SCM_RIGHTS; head->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(head), fds, fd_count * sizeof(int));
    }
    while (part.iov_len) {
        ssize_t sent = sendmsg(socket, &message, MSG_NOSIGNAL);
        if (sent < 0) fail("sendmsg", -1);
        part.iov_base = (char *)part.iov_base + sent; part.iov_len -= sent;
        message.msg_control = NULL; message.msg_controllen = 0;
    }
}
/* Whether anything came: the end is none. As many descriptors as are told, or with ANY one at most. */
#define ANY (-1)
static int receive_all(int socket, void *bytes, size_t count, int *fds, int fd_count) {
    union { char room[CMSG_SPACE(4 * sizeof(int))]; struct cmsghdr align; } with;
    struct iovec part = {bytes, count};
    int found = 0;
    while (part.iov_len) {
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = with.room, .msg_controllen = sizeof with.room};
        ssize_t came = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
        if (came < 0) fail("recvmsg", -1);
        if (!came) return 0;
        for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
            int some = (int)((head->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            for (int i = 0; i < some && found < abs(fd_count); i++) memcpy(&fds[found++], CMSG_DATA(head) + i * sizeof(int), sizeof(int));
        }
        part.iov_base = (char *)part.iov_base + came; part.iov_len -= came;
    }
    if (fd_count != ANY && found != fd_count) fail("receiving descriptors", found);
    return 1;
}

/* ---- memory ---- */

static int make(size_t bytes) {
    properties wanted = {.kind = 1, .handles = 1, .where = {1, 0}};
    number handle;
    int fd;
    CALL(cuMemCreate, (number *, size_t, properties *, number), &handle, bytes, &wanted, 0);
    CALL(cuMemExportToShareableHandle, (void *, number, int, number), &fd, handle, 1, 0);
    CALL(cuMemRelease, (number), handle);
    return fd;
}
static number open_all(const int *fds, int count, size_t bytes) {
    number base;
    grant access = {{1, 0}, 1};
    CALL(cuMemAddressReserve, (number *, size_t, size_t, number, number), &base, bytes * count, 0, 0, 0);
    for (int i = 0; i < count; i++) {
        number handle;
        CALL(cuMemImportFromShareableHandle, (number *, void *, int), &handle, (void *)(intptr_t)fds[i], 1);
        CALL(cuMemMap, (number, size_t, size_t, number, number), base + i * bytes, bytes, 0, handle, 0);
        CALL(cuMemRelease, (number), handle);
    }
    CALL(cuMemSetAccess, (number, size_t, grant *, size_t), base, bytes * count, &access, 1);
    return base;
}
static void close_all(number base, int count, size_t bytes) {
    CALL(cuMemUnmap, (number, size_t), base, bytes * count);
    CALL(cuMemAddressFree, (number, size_t), base, bytes * count);
}

/* ---- both sides ---- */

typedef struct { char kind; number value; } request;

static void serve(int socket, int page) {
    static char manifest[MANIFEST];
    begin(page);
    words_of_streams();
    int gibibyte = make(GIB), bert[BERT_PARTS];
    for (int i = 0; i < BERT_PARTS; i++) bert[i] = make(BERT_PART);
    request asked = {0};
    send_all(socket, &asked, sizeof asked, NULL, 0);
    for (;;) {
        int fd;
        if (!receive_all(socket, &asked, sizeof asked, &fd, ANY)) break;
        switch (asked.kind) {
        case 'e':
            need(wait_word(stream, on_device, asked.value, 0), "cuStreamWaitValue64");
            need(write_word(stream, on_device + 8, asked.value, 0), "cuStreamWriteValue64");
            send_all(socket, &asked, sizeof asked, &fd, 1);
            close(fd);
            break;
        case 'g': send_all(socket, &asked, sizeof asked, &gibibyte, 1); break;
        case 'b': send_all(socket, manifest, MANIFEST, bert, BERT_PARTS); break;
        }
    }
    CALL(cuStreamSynchronize, (void *), stream);
}

static int by_value(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

static int socket_of, own;
static number round_of;

static void echo(void) {
    int fd;
    request asked = {'e', ++round_of};
    need(write_word(stream, on_device, round_of, 0), "cuStreamWriteValue64");
    send_all(socket_of, &asked, sizeof asked, &own, 1);
    if (!receive_all(socket_of, &asked, sizeof asked, &fd, 1)) fail("echo", -1);
    need(wait_word(stream, on_device + 8, round_of, 0), "cuStreamWaitValue64");
    close(fd);
}
static void ask(char kind, int *fds, int count) {
    static char manifest[MANIFEST];
    request asked = {kind, 0};
    send_all(socket_of, &asked, sizeof asked, NULL, 0);
    if (!receive_all(socket_of, manifest, kind == 'b' ? MANIFEST : sizeof asked, fds, count)) fail("asking", -1);
}

/* Times one row; between timers what was opened is closed. */
static void row(const char *name, char kind, int count, size_t bytes, int is_anew, int samples, const char *end) {
    double *took = malloc((samples + 1) * sizeof *took);
    for (int i = 0; i <= samples; i++) {
        int fds[BERT_PARTS];
        number base = 0;
        double begun = now();
        if (kind == 'e') echo();
        else ask(kind, fds, count);
        if (is_anew) base = open_all(fds, count, bytes);
        took[i] = now() - begun;
        if (is_anew) close_all(base, count, bytes);
        for (int j = 0; j < count; j++) close(fds[j]);
    }
    double first = took[0];
    qsort(took + 1, samples, sizeof *took, by_value);
    printf("\"%s\": {\"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"first\": %.3f, \"samples\": %d}%s", name,
           took[1 + samples / 2], took[1 + samples * 9 / 10], took[1 + samples * 99 / 100], first, samples, end);
    free(took);
}

static int open_only(int samples, int count, size_t bytes) {
    double *took = malloc((samples + 1) * sizeof *took);
    int *fds = malloc(count * sizeof *fds), page = memfd_create("words", MFD_CLOEXEC);
    if (samples < 1 || count < 1 || page < 0 || ftruncate(page, 4096)) fail("starting", samples);
    begin(page);
    for (int i = 0; i < count; i++) fds[i] = make(bytes);
    for (int i = 0; i <= samples; i++) {
        double begun = now();
        number base = open_all(fds, count, bytes);
        took[i] = now() - begun;
        close_all(base, count, bytes);
    }
    qsort(took + 1, samples, sizeof *took, by_value);
    printf("%.3f\n", took[1 + samples / 2]);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 3) return open_only(atoi(argv[1]), atoi(argv[2]), strtoull(argv[3], NULL, 10));
    int samples = argc > 1 ? atoi(argv[1]) : 400, pair[2];
    int page = memfd_create("words", MFD_CLOEXEC);
    if (samples < 1 || page < 0 || ftruncate(page, 4096) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) fail("starting", samples);
    pid_t server = fork();
    if (server < 0) fail("fork", -1);
    if (!server) {
        /* It does not outlive who asks. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(pair[0]);
        serve(pair[1], page);
        return 0;
    }
    close(pair[1]);
    socket_of = pair[0];
    begin(page);
    words_of_streams();
    own = make(2 << 20);
    request ready;
    if (!receive_all(socket_of, &ready, sizeof ready, NULL, 0)) fail("the server", -1);
    name_device();
    printf("\"ordering\": \"memops\", ");
    row("echo", 'e', 0, 0, 0, samples, ", ");
    row("gibibyte", 'g', 1, GIB, 0, samples, ", ");
    row("bert", 'b', BERT_PARTS, BERT_PART, 0, samples, ", ");
    row("gibibyte anew", 'g', 1, GIB, 1, samples / 4 + 1, ", ");
    row("bert anew", 'b', BERT_PARTS, BERT_PART, 1, samples / 4 + 1, "}\n");
    CALL(cuStreamSynchronize, (void *), stream);
    close(socket_of);
    int status;
    if (waitpid(server, &status, 0) != server || status) fail("the server's end", status);
    return 0;
}

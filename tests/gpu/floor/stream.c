/* What frames on a device cost with the driver alone: the floor under streams whose frames are on a GPU.
 *
 * Two processes, or one, have 64 MB and more of one chunk and a page of words, which is registered. A frame is
 * complete by cuStreamWriteValue64 behind the copy that fills it; whoever reads it has its stream wait
 * with cuStreamWaitValue64, or looks at the word itself. Each prints a line of JSON, in microseconds:
 *
 * stream turn BYTES SAMPLES       there and back between two processes, each copying from and to memory of
 *                                 its own, until the first one's stream is done
 *     spins                       each looks at the word, and queues its copies when that has come
 *     waits                       each queues a wait for the word and the copies behind it at once
 *     told                        each tells the other's CPU, by a word that no device writes, as soon as the
 *                                 copy and the word behind it are queued; who is told queues a wait for the word
 *                                 unless it has come, the copy, and a word that says that the frame is read
 *     parts                       of each, as the first process sees it: its write is queued, and told; it knows of
 *                                 the answer; it has queued reading that; its stream is done
 * stream pair BYTES SAMPLES       one process writes and reads, on one stream, again and again
 *     pair                        copy, write of a word, wait for it, copy, write of another
 *     queued                      of that, the calls alone
 *     copies                      the two copies alone
 *     copy                        one of them
 * stream host BYTES SAMPLES       the frame comes from memory of the host, and is read by a copy as above
 *     pageable, registered        from ordinary and from registered memory
 *     filled                      from registered memory that is filled from ordinary memory before
 * stream enqueue SAMPLES          what one call of each kind takes while the stream is held up
 *     copy, write, wait
 *     pushed, current             changing the thread's context and back, and asking for it
 *     capturing, relaxed          asking whether the stream is captured; changing the thread's mode and back
 */
#include "driver.h"

#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096
#define SLOTS 4
/* So many pairs are queued before the stream is waited for. */
#define AHEAD 64
/* A GPU's queue takes so many commands without blocking, and more. */
#define HELD 200

/* Of words that devices write, in the page that is registered; and of those that processes do, in the next. */
enum { PING = 0, PONG = 8, HOLD = 16, PING_READ = 24, PONG_READ = 32 };
enum { PING_TOLD = PAGE, PONG_TOLD = PAGE + 64 };
/* Between two processes. */
enum way { SPINS, WAITS, TOLD, WAYS };
static const char *const ways[] = {"spins", "waits", "told"};

static volatile uint64_t *words;
static number on_device;
static int (*write_word)(void *, number, number, unsigned), (*wait_word)(void *, number, number, unsigned);
static int (*copy_async)(number, number, size_t, void *), (*upload_async)(number, const void *, size_t, void *);
static int (*synchronize)(void *);

static void begin(void *page) {
    take_device();
    CALL(cuMemHostRegister_v2, (void *, size_t, unsigned), page, PAGE, 2);
    CALL(cuMemHostGetDevicePointer_v2, (number *, void *, unsigned), &on_device, page, 0);
    words = page;
    write_word = find("cuStreamWriteValue64_v2");
    wait_word = find("cuStreamWaitValue64_v2");
    copy_async = find("cuMemcpyDtoDAsync_v2");
    upload_async = find("cuMemcpyHtoDAsync_v2");
    synchronize = find("cuStreamSynchronize");
}
static void say(int at, uint64_t value) { need(write_word(stream, on_device + at, value, 0), "cuStreamWriteValue64"); }
static void await(int at, uint64_t value) { need(wait_word(stream, on_device + at, value, 0), "cuStreamWaitValue64"); }
static void copy(number to, number from, size_t bytes) { need(copy_async(to, from, bytes, stream), "cuMemcpyDtoDAsync"); }
static void done(void) { need(synchronize(stream), "cuStreamSynchronize"); }
static void look(int at, uint64_t value) {
    while (words[at / 8] < value) __builtin_ia32_pause();
}
static void tell(int at, uint64_t value) { __atomic_store_n(words + at / 8, value, __ATOMIC_RELEASE); }

static number own(size_t bytes) {
    number made;
    CALL(cuMemAlloc_v2, (number *, size_t), &made, bytes);
    return made;
}
static size_t rounded(size_t bytes) { return (bytes + (2 << 20) - 1) / (2 << 20) * (2 << 20); }
static int make(size_t bytes) {
    properties wanted = {.kind = 1, .handles = 1, .where = {1, 0}};
    number handle;
    int fd;
    CALL(cuMemCreate, (number *, size_t, properties *, number), &handle, bytes, &wanted, 0);
    CALL(cuMemExportToShareableHandle, (void *, number, int, number), &fd, handle, 1, 0);
    CALL(cuMemRelease, (number), handle);
    return fd;
}
static number map(int fd, size_t bytes) {
    number base, handle;
    grant access = {{1, 0}, 3};
    CALL(cuMemAddressReserve, (number *, size_t, size_t, number, number), &base, bytes, 0, 0, 0);
    CALL(cuMemImportFromShareableHandle, (number *, void *, int), &handle, (void *)(intptr_t)fd, 1);
    CALL(cuMemMap, (number, size_t, size_t, number, number), base, bytes, 0, handle, 0);
    CALL(cuMemRelease, (number), handle);
    CALL(cuMemSetAccess, (number, size_t, grant *, size_t), base, bytes, &access, 1);
    return base;
}

/* Of a turn: write, answer, read, end. */
enum { PARTS = 4 };

static int by_value(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}
static void row(const char *name, double *took, int samples) {
    qsort(took, samples, sizeof *took, by_value);
    printf("\"%s\": {\"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"samples\": %d}, ", name, took[samples / 2],
           took[samples * 9 / 10], took[samples * 99 / 100], samples);
}
/* The same, with the middle of each part. */
static void row_of_parts(const char *name, double *took, double *parts[PARTS], int samples) {
    qsort(took, samples, sizeof *took, by_value);
    for (int part = 0; part < PARTS; part++) qsort(parts[part], samples, sizeof *took, by_value);
    int middle = samples / 2;
    printf("\"%s\": {\"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"samples\": %d, \"parts\": [%.3f, %.3f, %.3f, %.3f]}, ",
           name, took[middle], took[samples * 9 / 10], took[samples * 99 / 100], samples, parts[0][middle],
           parts[1][middle], parts[2][middle], parts[3][middle]);
}
static void end_line(void) { printf("\"ordering\": \"memops\"}\n"); }

/* ---- two processes ---- */

static void send_descriptor(int socket, int fd) {
    union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } with;
    char byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = with.room, .msg_controllen = sizeof with.room};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET; head->cmsg_type = SCM_RIGHTS; head->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    if (sendmsg(socket, &message, 0) != 1) fail("sendmsg", -1);
}
static int receive_descriptor(int socket) {
    union { char room[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } with;
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = with.room, .msg_controllen = sizeof with.room};
    int fd;
    if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&message)) fail("recvmsg", -1);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

/* Each turn goes on from the last one: `first` is what was counted before. No slot is filled before it was
 * read: a turn is over when the answer has come, which is queued behind what reads the question. */
static void answer(number there, number back, number local, size_t bytes, int turns, enum way way, uint64_t first) {
    for (uint64_t turn = first + 1; turn <= first + turns; turn++) {
        if (way == TOLD) look(PING_TOLD, turn);
        if (way == SPINS) look(PING, turn);
        else if (way == WAITS || words[PING / 8] < turn) await(PING, turn);
        copy(local, there, bytes);
        if (way == TOLD) say(PING_READ, turn);
        copy(back, local, bytes);
        say(PONG, turn);
        if (way == TOLD) tell(PONG_TOLD, turn);
        /* As whoever asks: nothing is queued ahead of its turn. */
        if (way == WAITS) done();
    }
    done();
}
static void ask(number there, number back, number local, size_t bytes, int turns, enum way way, uint64_t first,
                double *took, double *parts[PARTS]) {
    for (uint64_t turn = first + 1; turn <= first + turns; turn++) {
        double at[PARTS + 1] = {now()};
        copy(there, local, bytes);
        say(PING, turn);
        if (way == TOLD) tell(PING_TOLD, turn);
        at[1] = now();
        if (way == TOLD) look(PONG_TOLD, turn);
        if (way == SPINS) look(PONG, turn);
        at[2] = now();
        if (way == WAITS || (way == TOLD && words[PONG / 8] < turn)) await(PONG, turn);
        copy(local, back, bytes);
        if (way == TOLD) say(PONG_READ, turn);
        at[3] = now();
        done();
        at[4] = now();
        int sample = turn - first - 1;
        took[sample] = at[4] - at[0];
        for (int part = 0; part < PARTS; part++) parts[part][sample] = at[part + 1] - at[part];
    }
}

static void turn(size_t bytes, int samples) {
    void *page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int pair[2], warm = samples / 10 + 1;
    size_t frame = rounded(bytes);
    if (page == MAP_FAILED || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) fail("starting", -1);
    pid_t other = fork();
    if (other < 0) fail("fork", -1);
    if (!other) prctl(PR_SET_PDEATHSIG, SIGKILL);
    begin(page);
    int fd = other ? make(2 * frame) : receive_descriptor(pair[1]);
    if (other) send_descriptor(pair[0], fd);
    number there = map(fd, 2 * frame), back = there + frame, local = own(bytes);
    uint64_t counted = 0;
    double *took = malloc(samples * sizeof *took), *parts[PARTS];
    for (int part = 0; part < PARTS; part++) parts[part] = malloc(samples * sizeof *took);
    if (other) name_device();
    for (enum way way = SPINS; way < WAYS; way++) {
        for (int timed = 0; timed < 2; timed++) {
            int turns = timed ? samples : warm;
            if (turns > samples) turns = samples;
            if (other) ask(there, back, local, bytes, turns, way, counted, took, parts);
            else answer(there, back, local, bytes, turns, way, counted);
            counted += turns;
        }
        if (other) row_of_parts(ways[way], took, parts, samples);
    }
    if (!other) _exit(0);
    int status;
    if (waitpid(other, &status, 0) != other || status) fail("the other's end", status);
    end_line();
}

/* ---- one process ---- */

static number ring, local, result;
static uint64_t sequence;

/* From memory of the device, or of the host, as far as the two are told apart. */
static void pair_of(size_t bytes, const void *host) {
    number slot = ring + sequence % SLOTS * rounded(bytes);
    sequence++;
    if (host) need(upload_async(slot, host, bytes, stream), "cuMemcpyHtoDAsync");
    else copy(slot, local, bytes);
    say(PING, sequence);
    await(PING, sequence);
    copy(result, slot, bytes);
    say(PONG, sequence);
}
static void copies_of(size_t bytes) {
    number slot = ring + sequence++ % SLOTS * rounded(bytes);
    copy(slot, local, bytes);
    copy(result, slot, bytes);
}
static void copy_of(size_t bytes) { copy(result, local, bytes); }

enum kind { PAIR, COPIES, COPY, PAGEABLE, REGISTERED, FILLED };
static void *pageable, *registered;
static void once(enum kind kind, size_t bytes) {
    switch (kind) {
    case PAIR: pair_of(bytes, NULL); break;
    case COPIES: copies_of(bytes); break;
    case COPY: copy_of(bytes); break;
    case PAGEABLE: pair_of(bytes, pageable); break;
    case REGISTERED: pair_of(bytes, registered); break;
    case FILLED:
        /* Whoever fills it again waits until it was read. */
        done();
        memcpy(registered, pageable, bytes);
        pair_of(bytes, registered);
        break;
    }
}
/* The time of one, by batches; and of its calls. */
static void sustained(const char *name, const char *queued, enum kind kind, size_t bytes, int samples) {
    double *took = malloc(samples * sizeof *took), *calls = malloc(samples * sizeof *took);
    int ahead = bytes > 64 << 20 ? 4 : AHEAD;
    for (int sample = -1; sample < samples; sample++) {
        double begun = now();
        for (int each = 0; each < ahead; each++) once(kind, bytes);
        double called = now();
        done();
        if (sample < 0) continue;
        took[sample] = (now() - begun) / ahead;
        calls[sample] = (called - begun) / ahead;
    }
    row(name, took, samples);
    if (queued) row(queued, calls, samples);
    free(took);
    free(calls);
}
static void prepare(size_t bytes) {
    void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) fail("mmap", -1);
    begin(page);
    ring = map(make(SLOTS * rounded(bytes)), SLOTS * rounded(bytes));
    local = own(bytes);
    result = own(bytes);
    name_device();
}
static void pair(size_t bytes, int samples) {
    prepare(bytes);
    sustained("pair", "queued", PAIR, bytes, samples);
    sustained("copies", NULL, COPIES, bytes, samples);
    sustained("copy", NULL, COPY, bytes, samples);
    end_line();
}
static void host(size_t bytes, int samples) {
    prepare(bytes);
    size_t room = rounded(bytes);
    pageable = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    registered = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (pageable == MAP_FAILED || registered == MAP_FAILED) fail("mmap", -1);
    memset(pageable, 1, room);
    memset(registered, 1, room);
    CALL(cuMemHostRegister_v2, (void *, size_t, unsigned), registered, room, 2);
    sustained("pageable", NULL, PAGEABLE, bytes, samples);
    sustained("registered", NULL, REGISTERED, bytes, samples);
    sustained("filled", NULL, FILLED, bytes, samples);
    end_line();
}

/* ---- calls alone ---- */

enum call { CALL_COPY, CALL_WRITE, CALL_WAIT, CALL_PUSH, CALL_CURRENT, CALL_CAPTURING, CALL_RELAXED, CALLS };
static void call(enum call which, uint64_t hold) {
    static int (*push)(void *), (*pop)(void **), (*current)(void **), (*capturing)(void *, int *), (*exchange)(int *);
    void *found;
    int mode = 2;
    if (!push) {
        push = find("cuCtxPushCurrent_v2");
        pop = find("cuCtxPopCurrent_v2");
        current = find("cuCtxGetCurrent");
        capturing = find("cuStreamIsCapturing");
        exchange = find("cuThreadExchangeStreamCaptureMode");
    }
    switch (which) {
    case CALL_COPY: copy(result, local, 40000); break;
    case CALL_WRITE: say(PING, sequence + 1); break;
    case CALL_WAIT: await(HOLD, hold); break;
    case CALL_PUSH: need(push(context), "cuCtxPushCurrent"); need(pop(&found), "cuCtxPopCurrent"); break;
    case CALL_CURRENT: need(current(&found), "cuCtxGetCurrent"); break;
    case CALL_CAPTURING: need(capturing(stream, &mode), "cuStreamIsCapturing"); break;
    default: need(exchange(&mode) || exchange(&mode), "cuThreadExchangeStreamCaptureMode");
    }
}
static void enqueue(int samples) {
    const char *names[] = {"copy", "write", "wait", "pushed", "current", "capturing", "relaxed"};
    double *took = malloc(samples * sizeof *took);
    uint64_t hold = 0;
    prepare(40000);
    for (enum call which = CALL_COPY; which < CALLS; which++) {
        /* What takes less than looking at the clock is called more often between. */
        int found = 0, times = which < CALL_PUSH ? 1 : HELD;
        while (found < samples) {
            await(HOLD, ++hold);
            for (int each = 0; each < HELD && found < samples; each++) {
                double begun = now();
                for (int time = 0; time < times; time++) call(which, hold);
                took[found++] = (now() - begun) / times;
            }
            words[HOLD / 8] = hold;
            done();
        }
        row(names[which], took, samples);
    }
    end_line();
}

int main(int argc, char **argv) {
    const char *what = argc > 2 ? argv[1] : "";
    size_t bytes = argc > 3 ? strtoull(argv[2], NULL, 10) : 0;
    int samples = argc > 2 ? atoi(argv[argc - 1]) : 0;
    if (samples < 1 || (!bytes && strcmp(what, "enqueue"))) fail("stream turn|pair|host BYTES SAMPLES, or stream enqueue SAMPLES", argc);
    if (!strcmp(what, "turn")) turn(bytes, samples);
    else if (!strcmp(what, "pair")) pair(bytes, samples);
    else if (!strcmp(what, "host")) host(bytes, samples);
    else if (!strcmp(what, "enqueue")) enqueue(samples);
    else fail(what, -1);
    return 0;
}

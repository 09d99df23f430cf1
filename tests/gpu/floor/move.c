/* What it takes to move memory of cuMemAlloc into chunks that can be exported, with the driver alone: the
 * floor under publishing a large module.
 *
 * move COUNT BYTES prints one line of JSON, in microseconds, for so many chunks of so many bytes:
 *   copies                     as many copies within the device, and nothing else
 *   made, created, mapped      the chunks made on a device that has nothing else; and of that, creating
 *                              and exporting them, and mapping them with access
 *   in_line, in_line_freed     each chunk made, filled, and its old place freed before the next is made;
 *                              and of that, waiting for the copy and freeing
 */
#include "driver.h"

#include <unistd.h>

typedef struct { number handle, base; int fd; } chunk;

static int count;
static size_t bytes;
static chunk *chunks;
static number *old;
static double created, mapped;

static void make(chunk *it) {
    properties wanted = {.kind = 1, .handles = 1, .where = {1, 0}};
    grant access = {{1, 0}, 3};
    double begun = now();
    CALL(cuMemCreate, (number *, size_t, properties *, number), &it->handle, bytes, &wanted, 0);
    CALL(cuMemExportToShareableHandle, (void *, number, int, number), &it->fd, it->handle, 1, 0);
    double made = now();
    CALL(cuMemAddressReserve, (number *, size_t, size_t, number, number), &it->base, bytes, 0, 0, 0);
    CALL(cuMemMap, (number, size_t, size_t, number, number), it->base, bytes, 0, it->handle, 0);
    CALL(cuMemSetAccess, (number, size_t, grant *, size_t), it->base, bytes, &access, 1);
    created += made - begun;
    mapped += now() - made;
}
static void drop_all(void) {
    for (int i = 0; i < count; i++) {
        CALL(cuMemUnmap, (number, size_t), chunks[i].base, bytes);
        CALL(cuMemAddressFree, (number, size_t), chunks[i].base, bytes);
        CALL(cuMemRelease, (number), chunks[i].handle);
        close(chunks[i].fd);
    }
}

static double made_alone(void) {
    double begun = now();
    for (int i = 0; i < count; i++) make(&chunks[i]);
    double took = now() - begun;
    drop_all();
    return took;
}

static void allocate_old(void) {
    for (int i = 0; i < count; i++) {
        CALL(cuMemAlloc_v2, (number *, size_t), &old[i], bytes);
        CALL(cuMemsetD8Async, (number, unsigned char, size_t, void *), old[i], (unsigned char)i, bytes, stream);
    }
    CALL(cuStreamSynchronize, (void *), stream);
}
static double copied(void) {
    double begun = now();
    for (int i = 0; i < count; i++)
        CALL(cuMemcpyDtoDAsync_v2, (number, number, size_t, void *), old[(i + 1) % count], old[i], bytes, stream);
    CALL(cuStreamSynchronize, (void *), stream);
    return now() - begun;
}
/* Fills a chunk and frees where its bytes were; returns how long waiting and freeing took. */
static double fill(int i) {
    CALL(cuMemcpyDtoDAsync_v2, (number, number, size_t, void *), chunks[i].base, old[i], bytes, stream);
    double begun = now();
    CALL(cuStreamSynchronize, (void *), stream);
    CALL(cuMemFree_v2, (number), old[i]);
    return now() - begun;
}
static double moved_in_line(double *freed) {
    double begun = now();
    for (int i = 0; i < count; i++) {
        make(&chunks[i]);
        *freed += fill(i);
    }
    return now() - begun;
}

int main(int argc, char **argv) {
    if (argc != 3) fail("move COUNT BYTES", argc);
    count = atoi(argv[1]);
    bytes = strtoull(argv[2], NULL, 10);
    if (count < 1 || !bytes) fail("reading the arguments", count);
    chunks = calloc(count, sizeof *chunks);
    old = calloc(count, sizeof *old);
    if (!chunks || !old) fail("calloc", count);
    take_device();
    name_device();
    printf("\"ordering\": \"none\", ");
    double made = made_alone();
    printf("\"made\": %.3f, \"created\": %.3f, \"mapped\": %.3f, ", made, created, mapped);
    allocate_old();
    double copies = copied(), freed = 0, in_line = moved_in_line(&freed);
    printf("\"copies\": %.3f, \"in_line\": %.3f, \"in_line_freed\": %.3f}\n", copies, in_line, freed);
    drop_all();
    return 0;
}

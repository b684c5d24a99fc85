// A libFuzzer target: whatever arrives at a worker's pipe, it answers or ends; no crash, no leak, no endless run.
//
// The worker's own loop reads the input as its host's stream, on fake_opencl.c linked in. Whole answers are checked to
// be JSON by the runner's own reader.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../harness/runner/native/faults.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int memory(const char *name) {
    int fd = memfd_create(name, 0);
    if (fd < 0) abort();
    return fd;
}

// The answers one after the other: each an envelope, a line, a blob.
static void check(int fd) {
    struct source *source = calloc(1, sizeof *source);
    struct envelope envelope;
    source->fd = fd;
    lseek(fd, 0, SEEK_SET);
    while (source_read(source, &envelope, sizeof envelope)) {
        struct bytes line = {0}, blob = {0};
        struct document document;
        if (envelope.magic != ENVELOPE || envelope.line_size > MAX_LINE_BYTES) abort();
        if (!source_read(source, bytes_reserve(&line, envelope.line_size), envelope.line_size)) abort();
        if (envelope.blob_size && !source_read(source, bytes_reserve(&blob, envelope.blob_size), envelope.blob_size))
            abort();
        if (line.data[envelope.line_size - 1] != '\n') abort();
        bool read = json_read(&document, line.data, envelope.line_size - 1);
        if (!read && (!document.wrong || strcmp(document.wrong, "too many values") != 0)) abort();
        const struct json *ok = read ? json_get(&document, document.values, "ok") : NULL;
        if (read && (!ok || ok->type != JSON_BOOL)) abort();
        json_free(&document);
        bytes_free(&line);
        bytes_free(&blob);
    }
    free(source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct options options = {.sys = "/nowhere"};
    struct device device = {0};
    char why[300];
    setenv("FAKE_LAUNCHES", "2000", 1);
    struct library library = {.path = "linked in", .direct = true, .count = 1};
    if (!library_use(&library, NULL, why, sizeof why)) abort();
    cl.GetPlatformIDs(1, &device.platform, NULL);
    cl.GetDeviceIDs(device.platform, CL_DEVICE_TYPE_ALL, 1, &device.id, NULL);
    if (!device_open(&device, &options, why, sizeof why)) abort();
    int from = memory("requests"), to = memory("answers");
    if (write(from, data, size) != (ssize_t)size) abort();
    lseek(from, 0, SEEK_SET);
    struct source *source = calloc(1, sizeof *source);
    struct frame frame = {0};
    struct faults faults = {.slower = 1};
    source->fd = from;
    while (answer_one(&device, &options, source, &frame, &faults, to)) continue;
    check(to);
    frame_free(&frame);
    bytes_free(&frame.line);
    bytes_free(&frame.text);
    bytes_free(&frame.id);
    free(source);
    close(from);
    close(to);
    device_close(&device);
    return 0;
}

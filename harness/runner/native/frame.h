// Frames (harness/runner/protocol.py): a line of JSON, then raw bytes, read from a pipe that gives what it likes.
#ifndef KILN_FRAME_H
#define KILN_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include "bytes.h"
#include "json.h"

enum {
    PROTOCOL = 1,
    MAX_LINE_BYTES = 64 << 20, // as protocol.py has it: a longer line is no frame
    MAX_BLOBS = 1 << 10,
};

// A descriptor with what was read ahead of it. `wait`, where it is set, is called before each read and may end the
// input by returning false.
struct source {
    int fd;
    bool (*wait)(void *arg);
    void *arg;
    size_t at, end;
    char data[1 << 16];
};

// Exactly so many bytes; false at the end of input.
bool source_read(struct source *source, void *to, size_t size);
// At least one byte and at most `size`; 0 at the end of input.
size_t source_some(struct source *source, void *to, size_t size);

// All of it, through EINTR and short writes; false where the other end is gone.
bool write_all(int fd, const void *data, size_t size);

struct frame {
    struct bytes line; // what came, without its newline
    struct bytes text; // the same, as the document took it apart; the document points into it
    struct document document;
    const struct json *object; // NULL: garbage, and then document.wrong says why
    struct bytes id;           // as JSON: a string, a number, true, false or null
    char op[32];               // "" where it is none or too long to be one
    uint32_t blobs;
    uint64_t blob_bytes; // all of them
};

// The next frame; false at the end of input. A garbage line is a frame without an object. Blobs are left in the source.
bool frame_read(struct source *source, struct frame *frame);
void frame_free(struct frame *frame);

// A whole number of `object`, `absent` where there is none; false where it is something else.
bool frame_integer(const struct frame *frame, const struct json *object, const char *name, int64_t absent, int64_t *to);

#endif

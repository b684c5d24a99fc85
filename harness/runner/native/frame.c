#include "frame.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

// Nonblocking pipes are for whoever waits before each call; here EAGAIN means that its wait was for nothing.
static bool again(void) { return errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK; }

// Some bytes from the descriptor itself; 0 at the end of input.
static size_t get(struct source *source, void *to, size_t size) {
    for (;;) {
        if (source->wait && !source->wait(source->arg)) return 0;
        ssize_t count = read(source->fd, to, size);
        if (count >= 0) return (size_t)count;
        if (!again()) return 0;
    }
}

static bool fill(struct source *source) {
    source->at = 0;
    source->end = get(source, source->data, sizeof source->data);
    return source->end > 0;
}

size_t source_some(struct source *source, void *to, size_t size) {
    // A blob's bytes need not go through what lines are read into.
    if (source->at == source->end && size >= sizeof source->data) return get(source, to, size);
    if (source->at == source->end && !fill(source)) return 0;
    size_t here = source->end - source->at;
    if (here > size) here = size;
    memcpy(to, source->data + source->at, here);
    source->at += here;
    return here;
}

bool source_read(struct source *source, void *to, size_t size) {
    for (char *at = to; size > 0;) {
        size_t count = source_some(source, at, size);
        if (count == 0) return false;
        at += count;
        size -= count;
    }
    return true;
}

bool write_all(int fd, const void *data, size_t size) {
    for (const char *at = data; size > 0;) {
        ssize_t count = write(fd, at, size);
        if (count >= 0) {
            at += count;
            size -= (size_t)count;
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

// A line without its newline. What is longer than a line may be is read to its end and marked as failed.
static bool read_line(struct source *source, struct bytes *line) {
    line->size = 0;
    line->failed = false;
    line->limit = MAX_LINE_BYTES;
    for (bool any = false;; any = true) {
        if (source->at == source->end && !fill(source)) return any && line->size > 0 && !line->failed;
        char *from = source->data + source->at;
        size_t here = source->end - source->at;
        char *newline = memchr(from, '\n', here);
        bytes_append(line, from, newline ? (size_t)(newline - from) : here);
        source->at += newline ? (size_t)(newline - from) + 1 : here;
        if (newline) return true;
    }
}

static void write_id(struct bytes *out, const struct json *id) {
    out->size = 0;
    if (id && id->type == JSON_STRING) {
        json_string(out, id->text, id->size);
    } else if (id && id->type == JSON_NUMBER && id->whole) {
        bytes_printf(out, "%" PRId64, id->integer);
    } else if (id && id->type == JSON_NUMBER) {
        json_number(out, id->number);
    } else if (id && id->type == JSON_BOOL) {
        bytes_text(out, id->truth ? "true" : "false");
    } else {
        bytes_text(out, "null");
    }
    bytes_append(out, "", 1); // it is read as a C string
}

static const char *read_blobs(struct frame *frame) {
    const struct json *blobs = json_get(&frame->document, frame->object, "blobs");
    if (!blobs) return NULL;
    if (blobs->type != JSON_ARRAY) return "blobs is no list of lengths";
    if (blobs->count > MAX_BLOBS) return "too many blobs";
    for (const struct json *n = json_first(&frame->document, blobs); n; n = json_next(&frame->document, n)) {
        if (n->type != JSON_NUMBER || !n->whole || n->integer < 0) return "a blob's length is no number of bytes";
        if ((uint64_t)n->integer > INT64_MAX - frame->blob_bytes) return "blobs larger than any memory";
        frame->blob_bytes += (uint64_t)n->integer;
        frame->blobs++;
    }
    return NULL;
}

static void take_apart(struct frame *frame) {
    if (frame->line.failed) {
        frame->document.wrong = "a line longer than any frame";
        return;
    }
    bytes_append(&frame->text, frame->line.data, frame->line.size);
    if (frame->text.failed) {
        frame->document.wrong = "out of memory";
        return;
    }
    if (!json_read(&frame->document, frame->text.data, frame->text.size)) return;
    frame->object = &frame->document.values[0];
    if (frame->object->type != JSON_OBJECT) frame->document.wrong = "not an object";
    if (!frame->document.wrong) frame->document.wrong = read_blobs(frame);
    if (frame->document.wrong) {
        frame->object = NULL;
        return;
    }
    write_id(&frame->id, json_get(&frame->document, frame->object, "id"));
    const struct json *op = json_get(&frame->document, frame->object, "op");
    if (op && op->type == JSON_STRING && op->size < sizeof frame->op) memcpy(frame->op, op->text, op->size + 1);
}

bool frame_read(struct source *source, struct frame *frame) {
    frame_free(frame);
    if (!read_line(source, &frame->line)) return false;
    take_apart(frame);
    return true;
}

void frame_free(struct frame *frame) {
    if (frame->line.room > 1 << 20) bytes_free(&frame->line); // else the next line goes into the same memory
    if (frame->text.room > 1 << 20) bytes_free(&frame->text);
    frame->line.size = frame->text.size = 0;
    frame->line.failed = frame->text.failed = frame->id.failed = false;
    json_free(&frame->document);
    frame->document.wrong = NULL;
    frame->object = NULL;
    frame->op[0] = '\0';
    frame->blobs = 0;
    frame->blob_bytes = 0;
}

bool frame_integer(const struct frame *frame, const struct json *object, const char *name, int64_t absent,
                   int64_t *to) {
    const struct json *value = json_get(&frame->document, object, name);
    *to = value && value->whole && value->type == JSON_NUMBER ? value->integer : absent;
    return !value || (value->type == JSON_NUMBER && value->whole);
}

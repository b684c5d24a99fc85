// Buffers that are resident on the device, filled from the pipe piece by piece: content is never held here as a whole.
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "worker.h"

enum { PIECE_BYTES = 4 << 20 };

struct resident *buffer_find(struct device *device, const char *name) {
    struct resident *at = device->buffers;
    while (at && strcmp(at->name, name) != 0) at = at->next;
    return at;
}

static void release(struct resident *buffer) {
    for (int i = 0; i < buffer->count; i++) cl.ReleaseMemObject(buffer->copies[i]);
    free(buffer->copies);
    free(buffer->name);
    free(buffer);
}

static struct resident *take_out(struct device *device, const char *name) {
    for (struct resident **at = &device->buffers; *at; at = &(*at)->next) {
        if (strcmp((*at)->name, name) != 0) continue;
        struct resident *found = *at;
        *at = found->next;
        return found;
    }
    return NULL;
}

void drop_buffer(struct device *device, const char *name) {
    struct resident *found = take_out(device, name);
    if (found) release(found);
}

// A new buffer, not yet resident; NULL with a refusal.
static struct resident *create(struct device *device, const char *name, size_t size, struct answer *answer) {
    struct resident *made = calloc(1, sizeof *made);
    if (made) {
        made->name = strdup(name);
        made->copies = calloc(1, sizeof *made->copies);
    }
    if (!made || !made->name || !made->copies) {
        refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    } else {
        cl_int status = CL_SUCCESS;
        made->size = size;
        made->copies[0] = cl.CreateBuffer(device->context, CL_MEM_READ_WRITE, size, NULL, &status);
        if (done(answer, status, INTERNAL, "clCreateBuffer")) {
            made->count = 1;
            return made;
        }
    }
    if (made) release(made);
    return NULL;
}

static bool write_piece(struct device *device, cl_mem to, size_t at, size_t size, const void *from,
                        struct answer *answer) {
    cl_int status = cl.EnqueueWriteBuffer(device->plain, to, 1, at, size, from, 0, NULL, NULL);
    return done(answer, status, INTERNAL, "clEnqueueWriteBuffer");
}

static bool receive(struct device *device, struct resident *buffer, struct request *request, struct answer *answer) {
    size_t room = buffer->size < PIECE_BYTES ? buffer->size : PIECE_BYTES;
    char *piece = malloc(room);
    if (!piece) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    bool good = true;
    for (size_t at = 0; good && at < buffer->size;) {
        size_t size = buffer->size - at < room ? buffer->size - at : room;
        good = blob_read(request, piece, size) && write_piece(device, buffer->copies[0], at, size, piece, answer);
        at += size;
    }
    free(piece);
    return good;
}

// Bytes from hexadecimal, at most `room`; their number, 0 where it is not hexadecimal.
static size_t unhex(const struct json *text, unsigned char *to, size_t room) {
    if (text->type != JSON_STRING || text->size == 0 || text->size % 2 || text->size / 2 > room) return 0;
    for (size_t i = 0; i < text->size; i++) {
        char c = text->text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return 0;
        to[i / 2] = (unsigned char)(i % 2 ? to[i / 2] << 4 | digit : digit);
    }
    return text->size / 2;
}

static bool fill(struct device *device, struct resident *buffer, const struct json *text, struct answer *answer) {
    unsigned char pattern[4096];
    size_t length = unhex(text, pattern, sizeof pattern), filled = 0;
    if (length == 0) return refuse(answer, BAD_REQUEST, "a fill pattern is 1 to 4096 hexadecimal bytes");
    bool fits = length <= 128 && (length & (length - 1)) == 0; // what clEnqueueFillBuffer takes
    if (fits && cl.EnqueueFillBuffer) filled = buffer->size - buffer->size % length;
    if (filled) {
        cl_int status =
            cl.EnqueueFillBuffer(device->plain, buffer->copies[0], pattern, length, 0, filled, 0, NULL, NULL);
        if (!done(answer, status, INTERNAL, "clEnqueueFillBuffer")) return false;
    }
    if (filled == buffer->size) return true;
    size_t room = PIECE_BYTES - PIECE_BYTES % length, rest = buffer->size - filled;
    if (rest < room) room = rest;
    char *piece = malloc(room);
    if (!piece) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    for (size_t i = 0; i < room; i++) piece[i] = (char)pattern[i % length];
    bool good = true;
    while (good && filled < buffer->size) {
        size_t size = buffer->size - filled < room ? buffer->size - filled : room;
        good = write_piece(device, buffer->copies[0], filled, size, piece, answer);
        filled += size;
    }
    free(piece);
    return good;
}

static bool copy(struct device *device, cl_mem from, cl_mem to, size_t size, struct answer *answer) {
    cl_int status = cl.EnqueueCopyBuffer(device->plain, from, to, 0, 0, size, 0, NULL, NULL);
    return done(answer, status, INTERNAL, "clEnqueueCopyBuffer");
}

bool buffer_duplicate(struct device *device, struct resident *buffer, int copies, struct answer *answer) {
    if (copies <= buffer->count) return true;
    cl_mem *more = realloc(buffer->copies, (size_t)copies * sizeof *more);
    if (!more) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    buffer->copies = more;
    while (buffer->count < copies) {
        cl_int status = CL_SUCCESS;
        cl_mem made = cl.CreateBuffer(device->context, CL_MEM_READ_WRITE, buffer->size, NULL, &status);
        if (!done(answer, status, LAUNCH_FAILED, "clCreateBuffer")) return false;
        more[buffer->count++] = made;
        if (!copy(device, more[0], made, buffer->size, answer)) return false;
    }
    return done(answer, cl.Finish(device->plain), LAUNCH_FAILED, "clFinish");
}

static void keep(struct device *device, struct resident *buffer) {
    buffer->next = device->buffers;
    device->buffers = buffer;
}

// `other` may be the buffer of that name: it goes when it has been copied.
static bool copy_of(struct device *device, const char *name, size_t size, struct resident *other,
                    struct answer *answer) {
    struct resident *made = create(device, name, size, answer);
    if (!made) return false;
    if (!copy(device, other->copies[0], made->copies[0], size, answer) ||
        !done(answer, cl.Finish(device->plain), INTERNAL, "clFinish")) {
        release(made);
        return false;
    }
    drop_buffer(device, name);
    keep(device, made);
    return true;
}

bool op_put(struct device *device, struct request *request, struct answer *answer) {
    const struct frame *frame = request->frame;
    const char *name = need_text(request, answer, "buf");
    int64_t bytes = 0;
    if (!name) return false;
    if (!json_get(&frame->document, frame->object, "bytes") || !frame_integer(frame, frame->object, "bytes", 0, &bytes))
        return refuse(answer, BAD_REQUEST, "put needs bytes, a whole number");
    const struct json *pattern = json_get(&frame->document, frame->object, "pattern");
    const struct json *from = json_get(&frame->document, frame->object, "from");
    struct resident *resident = buffer_find(device, name), *other = NULL;
    if (!request->has_blob && !pattern && !from) {
        bytes_printf(&answer->fields, ",\"have\":%s", resident && (uint64_t)bytes == resident->size ? "true" : "false");
        return true;
    }
    if (bytes <= 0 || (request->has_blob && request->blob_size != (uint64_t)bytes))
        return refuse(answer, BAD_REQUEST, "%s: %lld bytes announced, %llu sent", name, (long long)bytes,
                      request->has_blob ? (unsigned long long)request->blob_size : 0ULL);
    if ((uint64_t)bytes > SIZE_MAX) return refuse(answer, OUT_OF_RESOURCES, "%s: beyond this machine's memory", name);
    if (from && !request->has_blob) {
        other = from->type == JSON_STRING ? buffer_find(device, from->text) : NULL;
        if (!other || other->size < (uint64_t)bytes)
            return refuse(answer, BAD_REQUEST, "%s: no resident buffer of %lld bytes to copy", name, (long long)bytes);
    }
    if (other) return copy_of(device, name, (size_t)bytes, other, answer);
    resident = take_out(device, name); // what was there is gone, whatever comes
    if (resident && resident->size == (size_t)bytes) {
        while (resident->count > 1) cl.ReleaseMemObject(resident->copies[--resident->count]);
    } else {
        if (resident) release(resident);
        resident = create(device, name, (size_t)bytes, answer);
        if (!resident) return false;
    }
    bool good =
        request->has_blob ? receive(device, resident, request, answer) : fill(device, resident, pattern, answer);
    good = good && done(answer, cl.Finish(device->plain), INTERNAL, "clFinish");
    if (!good) {
        release(resident);
        return false;
    }
    keep(device, resident);
    return true;
}

bool op_get(struct device *device, struct request *request, struct answer *answer) {
    const struct frame *frame = request->frame;
    const char *name = need_text(request, answer, "buf");
    if (!name) return false;
    struct resident *buffer = buffer_find(device, name);
    if (!buffer) return refuse(answer, BAD_REQUEST, "no buffer %s is resident", name);
    int64_t offset = 0, size = 0;
    if (!frame_integer(frame, frame->object, "offset", 0, &offset) ||
        !frame_integer(frame, frame->object, "bytes", 0, &size))
        return refuse(answer, BAD_REQUEST, "get needs offset and bytes as whole numbers");
    if (offset >= 0 && size == 0 && (uint64_t)offset < buffer->size) size = (int64_t)(buffer->size - (uint64_t)offset);
    if (offset < 0 || size <= 0 || (uint64_t)offset > buffer->size || (uint64_t)size > buffer->size - (uint64_t)offset)
        return refuse(answer, BAD_REQUEST, "%lld bytes from %lld of a %zu-byte buffer", (long long)size,
                      (long long)offset, buffer->size);
    answer->blob = malloc((size_t)size);
    if (!answer->blob) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    answer->blob_size = (size_t)size;
    cl_int status = cl.EnqueueReadBuffer(device->plain, buffer->copies[0], 1, (size_t)offset, (size_t)size,
                                         answer->blob, 0, NULL, NULL);
    return done(answer, status, INTERNAL, "clEnqueueReadBuffer");
}

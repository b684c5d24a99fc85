// Parts of buffers as arguments: regions, 2D images, and the texels that stand in for those.
#include <stdlib.h>
#include <string.h>

#include "launch.h"

bool region_make(struct resident *buffer, cl_mem copy, int64_t offset, int64_t size, cl_mem *region,
                 struct answer *answer) {
    if (offset < 0 || size <= 0 || (uint64_t)offset > buffer->size || (uint64_t)size > buffer->size - (uint64_t)offset)
        return refuse(answer, BAD_REQUEST, "%lld bytes from %lld of a %zu-byte buffer", (long long)size,
                      (long long)offset, buffer->size);
    struct _cl_buffer_region part = {(size_t)offset, (size_t)size};
    cl_int status = CL_SUCCESS;
    cl_mem made = cl.CreateSubBuffer(copy, CL_MEM_READ_WRITE, CL_BUFFER_CREATE_TYPE_REGION, &part, &status);
    if (!done(answer, status, LAUNCH_FAILED, "clCreateSubBuffer")) return false;
    *region = made;
    return true;
}

struct format {
    const char *name;
    cl_uint value;
    int size; // channels, or bytes of a channel
};
static const struct format ORDERS[] = {{"R", CL_R, 1}, {"RG", CL_RG, 2}, {"RGBA", CL_RGBA, 4}};
static const struct format TYPES[] = {{"uint32", CL_UNSIGNED_INT32, 4},
                                      {"uint16", CL_UNSIGNED_INT16, 2},
                                      {"fp16", CL_HALF_FLOAT, 2},
                                      {"fp32", CL_FLOAT, 4}};

static const struct format *find(const struct format *list, size_t count, const struct json *name) {
    for (size_t i = 0; i < count; i++)
        if (json_is(name, list[i].name)) return &list[i];
    return NULL;
}

bool image_make(struct device *device, struct request *request, const struct json *view, struct resident *buffer,
                cl_mem copy, struct part *part, struct answer *answer) {
    const struct frame *frame = request->frame;
    const struct json *texels = json_get(&frame->document, view, "texels");
    bool stand_in = texels && texels->type == JSON_BOOL && texels->truth;
    if (!stand_in && (!device->views || !cl.CreateImage))
        return refuse(answer, UNSUPPORTED, "the device has no cl_khr_image2d_from_buffer");
    const struct format *order = find(ORDERS, 3, json_get(&frame->document, view, "channels"));
    const struct format *type = find(TYPES, 4, json_get(&frame->document, view, "type"));
    int64_t width = 0, height = 0, offset = 0;
    bool whole = frame_integer(frame, view, "width", 0, &width) && frame_integer(frame, view, "height", 0, &height) &&
                 frame_integer(frame, view, "offset", 0, &offset);
    if (!order || !type || !whole || width <= 0 || height <= 0 || width > 1 << 24 || height > 1 << 24)
        return refuse(answer, BAD_REQUEST, "an image has channels, type, width and height as the protocol says");
    int64_t pitch = width * order->size * type->size, size = pitch * height; // below 2^52
    cl_mem from = copy;
    if (offset != 0 || (uint64_t)size != buffer->size) {
        if (!region_make(buffer, copy, offset, size, &part->region, answer)) return false;
        from = part->region;
    }
    cl_int status = CL_SUCCESS;
    if (stand_in) {
        struct texels *made = calloc(1, sizeof *made);
        if (!made) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
        *made = (struct texels){from, NULL, (size_t)width, (size_t)height, order->size, type->value};
        part->texels = made;
        size_t bytes = 16 * (1 + (size_t)width * (size_t)height);
        made->made = cl.CreateBuffer(device->context, CL_MEM_READ_ONLY, bytes, NULL, &status);
        if (!done(answer, status, LAUNCH_FAILED, "clCreateBuffer")) return false;
        part->mem = made->made;
    } else {
        struct _cl_image_format form = {order->value, type->value};
        struct _cl_image_desc desc = {.image_type = CL_MEM_OBJECT_IMAGE2D,
                                      .image_width = (size_t)width,
                                      .image_height = (size_t)height,
                                      .image_row_pitch = (size_t)pitch,
                                      .buffer = from};
        cl_mem image = cl.CreateImage(device->context, CL_MEM_READ_ONLY, &form, &desc, NULL, &status);
        if (!done(answer, status, LAUNCH_FAILED, "clCreateImage")) return false;
        part->mem = image;
    }
    part->owned = true;
    return true;
}

static uint32_t bits_of_half(uint16_t half) { // as the float of the same value
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
    if (exponent == 0x1f) return sign | 0x7f800000 | fraction << 13;
    if (exponent == 0 && fraction == 0) return sign;
    if (exponent == 0) { // subnormal: shift the leading one out
        exponent = 1;
        while (!(fraction & 0x400)) {
            fraction <<= 1;
            exponent--;
        }
        fraction &= 0x3ff;
    }
    return sign | (exponent + 112) << 23 | fraction << 13;
}

bool texels_make(const struct texels *t, cl_command_queue queue, struct answer *answer) {
    size_t count = t->width * t->height, step = t->type == CL_UNSIGNED_INT16 || t->type == CL_HALF_FLOAT ? 2 : 4;
    size_t raw_bytes = count * (size_t)t->channels * step, bytes = 16 * (1 + count);
    unsigned char *raw = malloc(raw_bytes);
    uint32_t *texels = calloc(bytes, 1);
    bool good = raw && texels;
    if (!good) refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    good = good && done(answer, cl.EnqueueReadBuffer(queue, t->source, 1, 0, raw_bytes, raw, 0, NULL, NULL),
                        LAUNCH_FAILED, "clEnqueueReadBuffer");
    if (good) {
        bool real = t->type == CL_HALF_FLOAT || t->type == CL_FLOAT;
        texels[0] = (uint32_t)t->width;
        texels[1] = (uint32_t)t->height;
        for (size_t i = 0; i < count; i++) {
            uint32_t *texel = texels + 4 * (1 + i);
            texel[3] = real ? 0x3f800000 : 1; // absent channels are 0, the fourth 1
            for (int c = 0; c < t->channels; c++) {
                const unsigned char *from = raw + (i * (size_t)t->channels + (size_t)c) * step;
                uint16_t narrow = 0;
                if (step == 4) {
                    memcpy(&texel[c], from, 4);
                } else {
                    memcpy(&narrow, from, 2);
                    texel[c] = real ? bits_of_half(narrow) : narrow;
                }
            }
        }
        cl_int status = cl.EnqueueWriteBuffer(queue, t->made, 1, 0, bytes, texels, 0, NULL, NULL);
        good = done(answer, status, LAUNCH_FAILED, "clEnqueueWriteBuffer");
    }
    free(raw);
    free(texels);
    return good;
}

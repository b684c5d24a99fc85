#include "launch.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAUNCHES = 1 << 14, MAX_ARGS = 256, MAX_PARTS = 1 << 20 };

static bool number_arg(struct request *request, const struct json *arg, struct argument *to, struct answer *answer,
                       bool *is) {
    const struct json *integer = json_get(&request->frame->document, arg, "i32");
    const struct json *real = json_get(&request->frame->document, arg, "f32");
    *is = to->plain = integer || real;
    if (integer) {
        if (integer->type != JSON_NUMBER || !integer->whole || integer->integer < INT32_MIN ||
            integer->integer > INT32_MAX)
            return refuse(answer, BAD_REQUEST, "an i32 argument is a 32-bit integer");
        int32_t value = (int32_t)integer->integer;
        memcpy(to->value, &value, sizeof value);
    } else if (real) {
        if (real->type != JSON_NUMBER || real->number > FLT_MAX || real->number < -FLT_MAX)
            return refuse(answer, BAD_REQUEST, "an f32 argument is a number that a float can hold");
        float value = (float)real->number;
        memcpy(to->value, &value, sizeof value);
    }
    return true;
}

static bool is_rotated(const struct sequence *sequence, const char *name) {
    for (int i = 0; i < sequence->rotated_count; i++)
        if (strcmp(sequence->rotated[i], name) == 0) return true;
    return false;
}

static bool memory_arg(struct sequence *sequence, struct request *request, const struct json *arg, struct argument *to,
                       struct answer *answer) {
    const struct frame *frame = request->frame;
    const struct json *image = json_get(&frame->document, arg, "image");
    const struct json *name = json_get(&frame->document, image ? image : arg, "buf");
    if (!name || name->type != JSON_STRING) return refuse(answer, BAD_REQUEST, "an argument is buf, i32, f32 or image");
    struct resident *buffer = buffer_find(sequence->device, name->text);
    if (!buffer) return refuse(answer, BAD_REQUEST, "no buffer %s is resident", name->text);
    int64_t offset = 0, size = 0;
    if (!frame_integer(frame, arg, "offset", 0, &offset) || !frame_integer(frame, arg, "bytes", 0, &size))
        return refuse(answer, BAD_REQUEST, "offset and bytes of an argument are whole numbers");
    bool part = json_get(&frame->document, arg, "offset") || json_get(&frame->document, arg, "bytes");
    if (size == 0 && offset >= 0 && (uint64_t)offset < buffer->size) size = (int64_t)(buffer->size - (uint64_t)offset);
    sequence->parts += (uint64_t)sequence->turns;
    if (sequence->parts > MAX_PARTS)
        return refuse(answer, BAD_REQUEST, "more arguments, each copy counted, than %d", MAX_PARTS);
    to->parts = calloc((size_t)sequence->turns, sizeof *to->parts);
    if (!to->parts) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    for (int turn = 0; turn < sequence->turns; turn++) {
        cl_mem copy = buffer->copies[is_rotated(sequence, buffer->name) ? turn : 0];
        struct part *made = &to->parts[turn];
        made->mem = copy;
        if (image) {
            if (!image_make(sequence->device, request, image, buffer, copy, made, answer)) return false;
            sequence->texels = sequence->texels || made->texels;
        } else if (part) {
            if (!region_make(buffer, copy, offset, size, &made->mem, answer)) return false;
            made->owned = true;
        }
    }
    return true;
}

// Up to three sizes of a work-group or of all work-items; their number, 0 with a refusal.
static cl_uint sizes(struct request *request, const struct json *list, size_t to[3], struct answer *answer) {
    cl_uint count = 0;
    if (!list || list->type != JSON_ARRAY || list->count == 0) {
        refuse(answer, BAD_REQUEST, "a launch has global: one to three sizes");
        return 0;
    }
    if (list->count > 3) {
        refuse(answer, LAUNCH_FAILED, "%u dimensions where OpenCL promises three", list->count);
        return 0;
    }
    for (const struct json *at = json_first(&request->frame->document, list); at;
         at = json_next(&request->frame->document, at)) {
        if (at->type != JSON_NUMBER || !at->whole || at->integer < 0 || (uint64_t)at->integer > SIZE_MAX) {
            refuse(answer, BAD_REQUEST, "the sizes of a launch are whole numbers");
            return 0;
        }
        to[count++] = (size_t)at->integer;
    }
    return count;
}

static bool find_kernel(struct sequence *sequence, struct request *request, const struct json *one,
                        struct launch *launch, struct answer *answer) {
    const struct frame *frame = request->frame;
    const struct json *name = json_get(&frame->document, one, "program");
    if (!name) name = json_get(&frame->document, frame->object, "program");
    if (!name || name->type != JSON_STRING)
        return refuse(answer, BAD_REQUEST, "a launch needs a program, its own or the run's");
    struct program *program = program_find(sequence->device, name->text);
    if (!program) return refuse(answer, BAD_REQUEST, "no program %s is resident", name->text);
    const struct json *entry = json_get(&frame->document, one, "entry");
    for (cl_uint i = 0; i < program->count && !launch->kernel; i++)
        if (json_is(entry, program->kernels[i].name)) launch->kernel = &program->kernels[i];
    if (launch->kernel) return true;
    return refuse(answer, BAD_REQUEST, "no kernel %s in program %s",
                  entry && entry->text ? entry->text : "without a name", name->text);
}

static bool bind(struct sequence *sequence, struct request *request, const struct json *one, struct launch *launch,
                 struct answer *answer) {
    const struct frame *frame = request->frame;
    if (!find_kernel(sequence, request, one, launch, answer)) return false;
    const struct json *args = json_get(&frame->document, one, "args");
    if (!args || args->type != JSON_ARRAY) return refuse(answer, BAD_REQUEST, "a launch has args, a list");
    if (args->count > MAX_ARGS) return refuse(answer, BAD_REQUEST, "more arguments than any kernel has");
    launch->args = calloc(args->count + 1, sizeof *launch->args);
    if (!launch->args) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    launch->count = args->count;
    struct argument *to = launch->args;
    for (const struct json *arg = json_first(&frame->document, args); arg;
         arg = json_next(&frame->document, arg), to++) {
        bool number = false;
        if (!number_arg(request, arg, to, answer, &number)) return false;
        if (!number && !memory_arg(sequence, request, arg, to, answer)) return false;
    }
    if (launch->kernel->args != launch->count)
        return refuse(answer, BAD_REQUEST, "%s takes %u arguments, not %u", launch->kernel->name, launch->kernel->args,
                      launch->count);
    launch->dims = sizes(request, json_get(&frame->document, one, "global"), launch->global, answer);
    if (!launch->dims) return false;
    const struct json *local = json_get(&frame->document, one, "local");
    if (!local || (local->type == JSON_ARRAY && local->count == 0)) return true;
    launch->has_local = true;
    cl_uint dims = sizes(request, local, launch->local, answer);
    if (dims && dims != launch->dims)
        refuse(answer, LAUNCH_FAILED, "%u sizes of a work-group for %u of work-items", dims, launch->dims);
    return !answer->refused;
}

static bool read_rotation(struct sequence *sequence, struct request *request, struct answer *answer) {
    const struct frame *frame = request->frame;
    const struct json *rotate = json_get(&frame->document, frame->object, "rotate");
    const struct json *bufs = json_get(&frame->document, rotate, "bufs");
    int64_t copies = 1;
    sequence->turns = 1;
    if (!rotate) return true;
    if (!frame_integer(frame, rotate, "copies", 1, &copies) || copies < 1 || copies > 1 << 16)
        return refuse(answer, BAD_REQUEST, "copies of a rotation are 1 to 65536");
    if (bufs && bufs->type != JSON_ARRAY) return refuse(answer, BAD_REQUEST, "bufs of a rotation is a list of names");
    sequence->rotated = calloc(bufs ? bufs->count + 1 : 1, sizeof *sequence->rotated);
    if (!sequence->rotated) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    for (const struct json *at = json_first(&frame->document, bufs); at; at = json_next(&frame->document, at)) {
        struct resident *buffer = at->type == JSON_STRING ? buffer_find(sequence->device, at->text) : NULL;
        if (!buffer)
            return refuse(answer, BAD_REQUEST, "a buffer to rotate is not resident: %s",
                          at->text ? at->text : "no name");
        if (!buffer_duplicate(sequence->device, buffer, (int)copies, answer)) return false;
        sequence->rotated[sequence->rotated_count++] = buffer->name;
    }
    sequence->turns = (int)copies;
    return true;
}

static int by_kernel(const void *a, const void *b) {
    const struct kernel *x = (*(struct launch *const *)a)->kernel, *y = (*(struct launch *const *)b)->kernel;
    return x < y ? -1 : x > y;
}

// Mark the launches whose kernel object another one uses too: their arguments are set before each enqueue.
static bool mark_shared(struct sequence *sequence, struct answer *answer) {
    struct launch **sorted = calloc(sequence->count + 1, sizeof(struct launch *));
    if (!sorted) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    for (uint32_t i = 0; i < sequence->count; i++) sorted[i] = &sequence->launches[i];
    qsort(sorted, sequence->count, sizeof *sorted, by_kernel);
    for (uint32_t i = 1; i < sequence->count; i++)
        if (sorted[i]->kernel == sorted[i - 1]->kernel) sorted[i]->shared = sorted[i - 1]->shared = true;
    free(sorted);
    return true;
}

static bool set_arg(const struct launch *launch, cl_uint index, int turn, struct answer *answer) {
    const struct argument *arg = &launch->args[index];
    cl_int status = arg->plain ? cl.SetKernelArg(launch->kernel->handle, index, sizeof arg->value, arg->value)
                               : cl.SetKernelArg(launch->kernel->handle, index, sizeof(cl_mem), &arg->parts[turn].mem);
    return done(answer, status, LAUNCH_FAILED, "clSetKernelArg");
}

bool sequence_bind(struct sequence *sequence, struct request *request, struct answer *answer) {
    const struct frame *frame = request->frame;
    if (!read_rotation(sequence, request, answer)) return false;
    const struct json *launches = json_get(&frame->document, frame->object, "launches");
    if (launches && launches->type != JSON_ARRAY) return refuse(answer, BAD_REQUEST, "launches is a list");
    uint32_t count = launches ? launches->count : 0;
    if (count > MAX_LAUNCHES) return refuse(answer, BAD_REQUEST, "more than %d launches", MAX_LAUNCHES);
    sequence->launches = calloc(count + 1, sizeof *sequence->launches);
    if (!sequence->launches) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    for (const struct json *one = json_first(&frame->document, launches); one; one = json_next(&frame->document, one))
        if (!bind(sequence, request, one, &sequence->launches[sequence->count++], answer)) return false;
    if (!mark_shared(sequence, answer)) return false;
    for (uint32_t i = 0; i < sequence->count; i++)
        for (cl_uint k = 0; k < sequence->launches[i].count; k++)
            if (!set_arg(&sequence->launches[i], k, 0, answer)) return false;
    return true;
}

bool launch_enqueue(const struct sequence *sequence, const struct launch *launch, int turn, cl_command_queue queue,
                    const cl_event *gate, cl_event *event, uint64_t *host, struct answer *answer) {
    for (cl_uint i = 0; i < launch->count; i++) {
        const struct argument *arg = &launch->args[i];
        if ((launch->shared || (sequence->turns > 1 && !arg->plain)) && !set_arg(launch, i, turn, answer)) return false;
        if (!arg->plain && arg->parts[turn].texels && !texels_make(arg->parts[turn].texels, queue, answer))
            return false;
    }
    if (host) host[0] = now_ns();
    cl_int status = cl.EnqueueNDRangeKernel(queue, launch->kernel->handle, launch->dims, NULL, launch->global,
                                            launch->has_local ? launch->local : NULL, gate ? 1 : 0, gate, event);
    if (host) host[1] = now_ns();
    return done(answer, status, LAUNCH_FAILED, "clEnqueueNDRangeKernel");
}

void sequence_free(struct sequence *sequence) {
    for (uint32_t i = 0; sequence->launches && i < sequence->count; i++) {
        struct launch *launch = &sequence->launches[i];
        for (cl_uint k = 0; launch->args && k < launch->count; k++) {
            struct argument *arg = &launch->args[k];
            for (int turn = 0; arg->parts && turn < sequence->turns; turn++) {
                struct part *part = &arg->parts[turn];
                if (part->owned) cl.ReleaseMemObject(part->mem);
                if (part->region) cl.ReleaseMemObject(part->region);
                free(part->texels);
            }
            free(arg->parts);
        }
        free(launch->args);
    }
    free(sequence->launches);
    free(sequence->rotated);
}

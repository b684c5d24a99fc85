#include "worker.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faults.h"
#include "sensors.h"

bool blob_read(struct request *request, void *to, size_t size) {
    request->broken = request->broken || !source_read(request->source, to, size);
    request->taken += size;
    return !request->broken;
}

static void skip_blobs(struct request *request) {
    char nowhere[1 << 14];
    while (request->taken < request->frame->blob_bytes && !request->broken) {
        uint64_t left = request->frame->blob_bytes - request->taken;
        blob_read(request, nowhere, left < sizeof nowhere ? (size_t)left : sizeof nowhere);
    }
}

const char *need_text(struct request *request, struct answer *answer, const char *name) {
    const struct json *value = json_get(&request->frame->document, request->frame->object, name);
    if (value && value->type == JSON_STRING && !memchr(value->text, '\0', value->size)) return value->text;
    refuse(answer, BAD_REQUEST, "%s needs %s, a text", request->frame->op, name);
    return NULL;
}

static bool op_hello(struct device *device, const struct options *options, struct request *request,
                     struct answer *answer) {
    int64_t protocol = 0;
    if (!frame_integer(request->frame, request->frame->object, "protocol", 0, &protocol) || protocol != PROTOCOL)
        return refuse(answer, UNSUPPORTED, "this runner speaks protocol %d, not %lld", PROTOCOL, (long long)protocol);
    struct bytes *out = &answer->fields;
    bytes_printf(out,
                 ",\"protocol\":%d,\"runner\":\"kiln-runner 1\",\"ops\":[\"read\",\"watch\",\"limit\"],\"device\":{",
                 PROTOCOL);
    describe(device->platform, device->id, out);
    bytes_text(out, "},\"sensors\":[");
    for (int i = 0; SENSOR_NAMES[i]; i++) bytes_printf(out, "%s\"%s\"", i ? "," : "", SENSOR_NAMES[i]);
    bytes_text(out, "]");
    if (options->priority || options->performance) {
        bytes_text(out, ",\"hints\":{");
        bytes_append(out, device->hints.data, device->hints.size);
        bytes_text(out, "}");
    }
    return true;
}

static bool op_drop(struct device *device, struct request *request, struct answer *answer) {
    const struct frame *frame = request->frame;
    const struct json *bufs = json_get(&frame->document, frame->object, "bufs");
    const struct json *programs = json_get(&frame->document, frame->object, "programs");
    if ((bufs && bufs->type != JSON_ARRAY) || (programs && programs->type != JSON_ARRAY))
        return refuse(answer, BAD_REQUEST, "drop takes bufs and programs, lists of names");
    for (const struct json *at = json_first(&frame->document, bufs); at; at = json_next(&frame->document, at))
        if (at->type == JSON_STRING) drop_buffer(device, at->text);
    for (const struct json *at = json_first(&frame->document, programs); at; at = json_next(&frame->document, at))
        if (at->type == JSON_STRING) drop_program(device, at->text);
    return true;
}

static void run_and_tell(struct device *device, const struct options *options, struct request *request,
                         struct faults *faults, const char *fault, struct answer *answer) {
    struct times times = {0};
    long long before = gpu_resets(options->sys);
    if (op_run(device, request, answer, &times)) {
        fault_times(faults, fault, &times);
        times_write(&times, answer);
        long long after = gpu_resets(options->sys);
        if (before >= 0 && after >= before) bytes_printf(&answer->fields, ",\"resets\":%lld", after - before);
    }
    times_free(&times);
}

static void sense(const struct options *options, struct faults *faults, const char *fault, struct answer *answer) {
    struct readings readings;
    sensors_read(options->sys, &readings);
    fault_readings(faults, fault, &readings);
    sensors_write(&readings, answer);
}

static void carry_out(struct device *device, const struct options *options, struct request *request,
                      struct faults *faults, const char *fault, struct answer *answer) {
    const struct frame *frame = request->frame;
    const char *op = frame->op;
    if (strcmp(op, "hello") == 0) {
        op_hello(device, options, request, answer);
    } else if (strcmp(op, "put") == 0) {
        op_put(device, request, answer);
    } else if (strcmp(op, "drop") == 0) {
        op_drop(device, request, answer);
    } else if (strcmp(op, "build") == 0) {
        op_build(device, request, answer);
    } else if (strcmp(op, "run") == 0) {
        run_and_tell(device, options, request, faults, fault, answer);
    } else if (strcmp(op, "get") == 0) {
        op_get(device, request, answer);
        fault_blob(fault, answer);
    } else if (strcmp(op, "sensors") == 0) {
        sense(options, faults, fault, answer);
    } else if (strcmp(op, "read") == 0) {
        op_read(frame, answer);
    } else if (strcmp(op, "watch") == 0) {
        op_watch(frame, answer);
    } else if (strcmp(op, "watched") == 0) {
        op_watched(answer);
    } else if (strcmp(op, "inject") == 0 && options->inject) {
        op_inject(faults, request, answer);
    } else if (strcmp(op, "bye") != 0) {
        refuse(answer, BAD_REQUEST,
               "unknown op %s; there are hello, put, drop, build, run, get, sensors, read, watch, watched, bye",
               *op ? op : "without a name");
    }
}

static bool send(int to, const struct answer *answer, const char *id) {
    struct bytes line = {0};
    answer_line(answer, id, &line);
    if (line.failed || answer->fields.failed) { // nothing of it has been sent
        struct answer full = {0};
        refuse(&full, OUT_OF_RESOURCES, "the answer is larger than a line may be, or than the runner's memory");
        bytes_free(&line);
        line.failed = false;
        answer_line(&full, id, &line);
        answer_free(&full);
    }
    bool blob = answer->blob && !answer->refused;
    struct envelope envelope = {ENVELOPE, 0, line.size, blob ? answer->blob_size : 0};
    bool sent = write_all(to, &envelope, sizeof envelope) && write_all(to, line.data, line.size) &&
                (!blob || write_all(to, answer->blob, answer->blob_size));
    bytes_free(&line);
    return sent;
}

bool answer_one(struct device *device, const struct options *options, struct source *source, struct frame *frame,
                struct faults *faults, int to) {
    if (!frame_read(source, frame)) return false;
    struct answer answer = {.fields.limit = MAX_LINE_BYTES - (1 << 16)};
    struct request request = {.frame = frame, .source = source, .has_blob = frame->blobs > 0};
    if (!frame->object) {
        refuse(&answer, BAD_REQUEST, "not a frame: %s", frame->document.wrong);
    } else if (request.has_blob) {
        request.blob_size =
            (uint64_t)json_first(&frame->document, json_get(&frame->document, frame->object, "blobs"))->integer;
    }
    char due[24];
    const char *fault = fault_due(faults, frame->op, due);
    if (frame->object && (!*fault || fault_before(fault, to, &answer)))
        carry_out(device, options, &request, faults, fault, &answer);
    skip_blobs(&request);
    bool more =
        !request.broken && send(to, &answer, frame->object ? frame->id.data : "null") && strcmp(frame->op, "bye") != 0;
    answer_free(&answer);
    if (strcmp(fault, "leave") == 0) _exit(0);
    return more;
}

int worker(const struct options *options, int from, int to) {
    signal(SIGPIPE, SIG_IGN);
    struct device device = {0};
    struct bytes why = {0};
    char said[300];
    if (!device_choose(&options->choice, &device.platform, &device.id, &why)) {
        fprintf(stderr, "kiln-runner: no %s%s: %s\n", options->choice.device ? "device " : "OpenCL device",
                options->choice.device ? options->choice.device : "", why.data);
        return 3;
    }
    bytes_free(&why);
    if (!device_open(&device, options, said, sizeof said)) {
        fprintf(stderr, "kiln-runner: %s\n", said);
        return 3;
    }
    struct source *source = calloc(1, sizeof *source);
    struct envelope ready = {ENVELOPE, 1, 0, 0};
    if (!source || !write_all(to, &ready, sizeof ready)) return 1;
    source->fd = from;
    struct frame frame = {0};
    struct faults faults = {.slower = 1};
    while (answer_one(&device, options, source, &frame, &faults, to)) continue;
    device_close(&device);
    return 0;
}

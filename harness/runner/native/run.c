// `run`: the launches of a request enqueued sample after sample, timed by events or as one batch by the clock.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "launch.h"

// An answer's line may be 64 MiB: of stamps as long as they get, 84 characters a launch, these fit.
enum { MAX_TIMED = 500000, MAX_SAMPLES = 10000000 };

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct restore {
    cl_mem to, from;
    size_t size;
};

struct plan {
    struct sequence sequence;
    cl_command_queue queue;
    struct restore *restores;
    uint32_t restore_count;
    int64_t warmup, samples, first, abort_above_ns;
    bool profile, clock, abort;
    uint64_t turn; // samples so far, warm-up included
};

static bool truth(struct request *request, const char *name) {
    const struct json *value = json_get(&request->frame->document, request->frame->object, name);
    return value && value->type == JSON_BOOL && value->truth;
}

static bool read_restores(struct plan *plan, struct device *device, struct request *request, struct answer *answer) {
    const struct frame *frame = request->frame;
    const struct json *list = json_get(&frame->document, frame->object, "restore");
    if (!list) return true;
    if (list->type != JSON_ARRAY) return refuse(answer, BAD_REQUEST, "restore is a list");
    plan->restores = calloc(list->count + 1, sizeof *plan->restores);
    if (!plan->restores) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    for (const struct json *at = json_first(&frame->document, list); at; at = json_next(&frame->document, at)) {
        const struct json *to = json_get(&frame->document, at, "buf"), *from = json_get(&frame->document, at, "from");
        struct resident *target = to && to->type == JSON_STRING ? buffer_find(device, to->text) : NULL;
        struct resident *source = from && from->type == JSON_STRING ? buffer_find(device, from->text) : NULL;
        if (!target || !source)
            return refuse(answer, BAD_REQUEST, "a buffer to restore, or what it is restored from, is not resident");
        plan->restores[plan->restore_count++] = (struct restore){target->copies[0], source->copies[0], source->size};
    }
    return true;
}

static bool read_plan(struct plan *plan, struct device *device, struct request *request, struct answer *answer) {
    const struct frame *frame = request->frame;
    const struct json *rotate = json_get(&frame->document, frame->object, "rotate");
    plan->sequence.device = device;
    plan->profile = truth(request, "profile");
    plan->clock = truth(request, "clock") && plan->profile;
    plan->queue = plan->profile ? device->timed : device->plain;
    plan->abort = json_get(&frame->document, frame->object, "abort_above_ns") != NULL;
    if (!frame_integer(frame, frame->object, "warmup", 0, &plan->warmup) ||
        !frame_integer(frame, frame->object, "samples", 1, &plan->samples) ||
        !frame_integer(frame, frame->object, "abort_above_ns", 0, &plan->abort_above_ns) ||
        !frame_integer(frame, rotate, "first", 0, &plan->first) || plan->first < 0)
        return refuse(answer, BAD_REQUEST, "warmup, samples, abort_above_ns and first are whole numbers");
    if (plan->warmup > MAX_SAMPLES || plan->samples > MAX_SAMPLES)
        return refuse(answer, BAD_REQUEST, "more than %d samples", MAX_SAMPLES);
    if (plan->samples == 0) plan->samples = 1;
    const struct json *program = json_get(&frame->document, frame->object, "program");
    if (program && (program->type != JSON_STRING || !program_find(device, program->text)))
        return refuse(answer, BAD_REQUEST, "no program %s is resident",
                      program->text ? program->text : "of such a name");
    if (!sequence_bind(&plan->sequence, request, answer)) return false;
    if (plan->profile && plan->samples * (plan->sequence.count ? plan->sequence.count : 1) > MAX_TIMED)
        return refuse(answer, BAD_REQUEST, "more samples than an answer holds");
    return read_restores(plan, device, request, answer);
}

static bool put_back(struct plan *plan, struct answer *answer) {
    for (uint32_t i = 0; i < plan->restore_count; i++) {
        const struct restore *r = &plan->restores[i];
        cl_int status = cl.EnqueueCopyBuffer(plan->queue, r->from, r->to, 0, 0, r->size, 0, NULL, NULL);
        if (!done(answer, status, LAUNCH_FAILED, "clEnqueueCopyBuffer")) return false;
    }
    return true;
}

// Enqueue each launch once and take the next turn; `events` and `host` may be NULL.
static bool launch_all(struct plan *plan, const cl_event *gate, cl_event *events, uint64_t *host,
                       struct answer *answer) {
    int turn = (int)(((uint64_t)plan->first + plan->turn++) % (uint64_t)plan->sequence.turns);
    for (uint32_t i = 0; i < plan->sequence.count; i++)
        if (!launch_enqueue(&plan->sequence, &plan->sequence.launches[i], turn, plan->queue, i == 0 ? gate : NULL,
                            events ? &events[i] : NULL, host ? &host[2 * i] : NULL, answer))
            return false;
    return true;
}

// As launch_all, so that the launches follow each other as fast as the device allows: the first waits for an event that
// is set when all are enqueued (see harness/runner/launching.py). Not with texels, which the host makes in between.
static bool launch_together(struct plan *plan, cl_event *events, uint64_t *host, struct answer *answer) {
    if (plan->sequence.count < 2 || plan->sequence.texels) return launch_all(plan, NULL, events, host, answer);
    cl_int status = CL_SUCCESS;
    cl_event gate = cl.CreateUserEvent(plan->sequence.device->context, &status);
    if (!done(answer, status, LAUNCH_FAILED, "clCreateUserEvent")) return false;
    bool good = launch_all(plan, &gate, events, host, answer);
    cl.SetUserEventStatus(gate, CL_COMPLETE);
    cl.ReleaseEvent(gate);
    return good;
}

static bool read_stamps(const cl_event *events, uint32_t count, uint64_t *stamps, struct answer *answer) {
    static const cl_uint asked[4] = {CL_PROFILING_COMMAND_QUEUED, CL_PROFILING_COMMAND_SUBMIT,
                                     CL_PROFILING_COMMAND_START, CL_PROFILING_COMMAND_END};
    for (uint32_t i = 0; i < count; i++)
        for (int k = 0; k < 4; k++) {
            cl_int status =
                cl.GetEventProfilingInfo(events[i], asked[k], sizeof *stamps, &stamps[4 * i + (uint32_t)k], NULL);
            if (!done(answer, status, LAUNCH_FAILED, "clGetEventProfilingInfo")) return false;
        }
    return true;
}

static bool sample(struct plan *plan, struct times *times, cl_event *events, struct answer *answer) {
    uint32_t n = times->samples, count = plan->sequence.count;
    if (!put_back(plan, answer) || !done(answer, cl.Finish(plan->queue), LAUNCH_FAILED, "clFinish")) return false;
    memset(events, 0, count * sizeof *events);
    uint64_t start = now_ns();
    bool good = launch_together(plan, events, times->host ? &times->host[2 * (size_t)n * count] : NULL, answer) &&
                done(answer, cl.Finish(plan->queue), LAUNCH_FAILED, "clFinish");
    uint64_t end = now_ns();
    times->wall[n] = end - start;
    if (times->finished) times->finished[n] = end;
    uint64_t *stamps = &times->stamps[4 * (size_t)n * count];
    good = good && read_stamps(events, count, stamps, answer);
    if (!good) cl.Finish(plan->queue);
    for (uint32_t i = 0; i < count; i++)
        if (events[i]) cl.ReleaseEvent(events[i]);
    if (!good) return false;
    times->samples++;
    int64_t took = count ? (int64_t)(stamps[4 * (count - 1) + 3] - stamps[2]) : 0;
    times->aborted = plan->abort && took > plan->abort_above_ns;
    return true;
}

// Room for one more sample, so that what was asked for and is then cut short costs nothing.
static bool grow(struct times *times, uint32_t *room, bool clock) {
    if (times->samples < *room) return true;
    uint32_t more = *room ? 2 * *room : 32;
    size_t launches = times->launches ? times->launches : 1;
    uint64_t *stamps = realloc(times->stamps, more * launches * 4 * sizeof *stamps);
    if (stamps) times->stamps = stamps;
    uint64_t *wall = realloc(times->wall, more * sizeof *wall);
    if (wall) times->wall = wall;
    uint64_t *host = clock ? realloc(times->host, more * launches * 2 * sizeof *host) : NULL;
    if (host) times->host = host;
    uint64_t *finished = clock ? realloc(times->finished, more * sizeof *finished) : NULL;
    if (finished) times->finished = finished;
    if (!stamps || !wall || (clock && (!host || !finished))) return false;
    *room = more;
    return true;
}

static bool timed(struct plan *plan, struct times *times, struct answer *answer) {
    cl_event *events = calloc(plan->sequence.count + 1, sizeof(cl_event));
    uint32_t room = 0;
    bool good = events || refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    times->launches = plan->sequence.count;
    while (good && times->samples < plan->samples && !times->aborted)
        good = (grow(times, &room, plan->clock) || refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory")) &&
               sample(plan, times, events, answer);
    free(events);
    return good;
}

static bool batch(struct plan *plan, struct times *times, struct answer *answer) {
    uint32_t room = 0;
    if (!grow(times, &room, false)) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    uint64_t start = now_ns();
    for (int64_t i = 0; i < plan->samples; i++)
        if (!put_back(plan, answer) || !launch_all(plan, NULL, NULL, NULL, answer)) return false;
    if (!done(answer, cl.Finish(plan->queue), LAUNCH_FAILED, "clFinish")) return false;
    times->wall[0] = now_ns() - start;
    times->samples = 1;
    return true;
}

bool op_run(struct device *device, struct request *request, struct answer *answer, struct times *times) {
    struct plan plan = {0};
    bool good = read_plan(&plan, device, request, answer);
    times->profile = plan.profile;
    if (good) {
        for (int64_t i = 0; good && i < plan.warmup; i++)
            good = put_back(&plan, answer) && launch_all(&plan, NULL, NULL, NULL, answer);
        good = good && done(answer, cl.Finish(plan.queue), LAUNCH_FAILED, "clFinish");
        good = good && (plan.profile ? timed(&plan, times, answer) : batch(&plan, times, answer));
        if (!good) cl.Finish(plan.queue); // an earlier launch may still run, and `get` uses another queue
    }
    sequence_free(&plan.sequence);
    free(plan.restores);
    return good;
}

static void numbers(struct bytes *out, const uint64_t *values, uint32_t count) {
    bytes_text(out, "[");
    for (uint32_t i = 0; i < count; i++) bytes_printf(out, "%s%" PRIu64, i ? "," : "", values[i]);
    bytes_text(out, "]");
}

static void nested(struct bytes *out, const uint64_t *values, const struct times *times, uint32_t each) {
    bytes_text(out, "[");
    for (uint32_t i = 0; i < times->samples; i++) {
        bytes_text(out, i ? ",[" : "[");
        for (uint32_t k = 0; k < times->launches; k++) {
            if (k) bytes_text(out, ",");
            numbers(out, &values[((size_t)i * times->launches + k) * each], each);
        }
        bytes_text(out, "]");
    }
    bytes_text(out, "]");
}

void times_write(const struct times *times, struct answer *answer) {
    struct bytes *out = &answer->fields;
    if (times->profile) {
        bytes_text(out, ",\"samples_ns\":");
        nested(out, times->stamps, times, 4);
    }
    bytes_text(out, ",\"wall_ns\":");
    numbers(out, times->wall, times->samples);
    if (times->profile) bytes_printf(out, ",\"aborted\":%s", times->aborted ? "true" : "false");
    if (times->host) {
        bytes_text(out, ",\"host_ns\":");
        nested(out, times->host, times, 2);
        bytes_text(out, ",\"finished_ns\":");
        numbers(out, times->finished, times->samples);
    }
}

void times_free(struct times *times) {
    free(times->stamps);
    free(times->host);
    free(times->finished);
    free(times->wall);
    *times = (struct times){0};
}

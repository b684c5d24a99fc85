// The context and its two queues, with the hints of --priority and --performance where the device takes them.
// harness/runner/hints.py says what the hints are for and where their numbers come from.
#include <stdio.h>
#include <string.h>

#include "worker.h"

enum { CONTEXT_PERF_HINT_QCOM = 0x40C2, CONTEXT_PRIORITY_HINT_QCOM = 0x40C9 };
static const intptr_t PERFORMANCE[] = {0x40C5, 0x40C4, 0x40C3}; // low, normal, high
static const intptr_t PRIORITY[] = {0x40CC, 0x40CB, 0x40CA};
static const cl_bitfield KHR[] = {1 << 2, 1 << 1, 1 << 0};

static int level(const char *name) { return strcmp(name, "low") == 0 ? 0 : strcmp(name, "normal") == 0 ? 1 : 2; }

static void tell(struct device *device, const char *what, const char *format, const char *name, const char *extension,
                 cl_int status) {
    char text[200];
    if (device->hints.size) bytes_text(&device->hints, ",");
    bytes_printf(&device->hints, "\"%s\":", what);
    snprintf(text, sizeof text, format, name, extension, (int)status);
    json_text(&device->hints, text);
}

static const char TAKEN[] = "%s by %s";
static const char REFUSED[] = "default: %s was asked for, and the driver refused %s with error %d";
static const char UNLISTED[] = "default: %s was asked for, and the device does not list %s";

// Add a hint to a context's properties (pairs, ended by 0) if a context takes it together with those before.
static void try_context(struct device *device, intptr_t properties[5], intptr_t key, intptr_t value, const char *what,
                        const char *name, const char *extension) {
    if (!device_has(device->id, extension)) {
        tell(device, what, UNLISTED, name, extension, 0);
        return;
    }
    int at = properties[0] ? 2 : 0;
    properties[at] = key;
    properties[at + 1] = value;
    cl_int status = CL_SUCCESS;
    cl_context context = cl.CreateContext(properties, 1, &device->id, NULL, NULL, &status);
    if (status == CL_SUCCESS && context) {
        cl.ReleaseContext(context);
    } else {
        properties[at] = properties[at + 1] = 0;
    }
    tell(device, what, status == CL_SUCCESS ? TAKEN : REFUSED, name, extension, status);
}

static cl_command_queue queue_with(struct device *device, cl_bitfield profiling, cl_bitfield priority, cl_int *status) {
    if (!priority) return cl.CreateCommandQueue(device->context, device->id, profiling, status);
    const cl_bitfield properties[] = {CL_QUEUE_PROPERTIES, profiling, CL_QUEUE_PRIORITY_KHR, priority, 0};
    return cl.CreateCommandQueueWithProperties(device->context, device->id, properties, status);
}

bool device_open(struct device *device, const struct options *options, char *why, size_t size) {
    intptr_t properties[5] = {0};
    cl_bitfield priority = 0;
    bool khr = cl.CreateCommandQueueWithProperties && device_has(device->id, "cl_khr_priority_hints");
    bool qcom = device_has(device->id, "cl_qcom_priority_hint");
    if (options->performance)
        try_context(device, properties, CONTEXT_PERF_HINT_QCOM, PERFORMANCE[level(options->performance)], "performance",
                    options->performance, "cl_qcom_perf_hint");
    if (options->priority && khr) priority = KHR[level(options->priority)];
    if (options->priority && !khr && qcom)
        try_context(device, properties, CONTEXT_PRIORITY_HINT_QCOM, PRIORITY[level(options->priority)], "priority",
                    options->priority, "cl_qcom_priority_hint");
    if (options->priority && !khr && !qcom)
        tell(device, "priority", "default: %s was asked for, and the device lists neither %s nor cl_qcom_priority_hint",
             options->priority, "cl_khr_priority_hints", 0);
    cl_int status = CL_SUCCESS;
    device->context = cl.CreateContext(properties[0] ? properties : NULL, 1, &device->id, NULL, NULL, &status);
    if (status == CL_SUCCESS) device->timed = queue_with(device, CL_QUEUE_PROFILING_ENABLE, priority, &status);
    if (priority)
        tell(device, "priority", status == CL_SUCCESS ? TAKEN : REFUSED, options->priority, "cl_khr_priority_hints",
             status);
    if (priority && status != CL_SUCCESS) {
        priority = 0;
        device->timed = queue_with(device, CL_QUEUE_PROFILING_ENABLE, 0, &status);
    }
    if (status == CL_SUCCESS) device->plain = queue_with(device, 0, priority, &status);
    device->views = device_has(device->id, "cl_khr_image2d_from_buffer");
    if (status != CL_SUCCESS) snprintf(why, size, "the device does not open: %s", cl_error(status));
    return status == CL_SUCCESS;
}

void device_close(struct device *device) {
    while (device->programs) drop_program(device, device->programs->name);
    while (device->buffers) drop_buffer(device, device->buffers->name);
    cl.ReleaseCommandQueue(device->timed);
    cl.ReleaseCommandQueue(device->plain);
    cl.ReleaseContext(device->context);
    bytes_free(&device->hints);
}

// Programs that were built, and what the compiler says of their kernels.
#include <stdlib.h>
#include <string.h>

#include "worker.h"

enum { MAX_SOURCE_BYTES = 64 << 20 };

struct program *program_find(struct device *device, const char *name) {
    struct program *at = device->programs;
    while (at && strcmp(at->name, name) != 0) at = at->next;
    return at;
}

static void release(struct program *program) {
    for (cl_uint i = 0; i < program->count; i++)
        if (program->kernels[i].handle) cl.ReleaseKernel(program->kernels[i].handle);
    if (program->handle) cl.ReleaseProgram(program->handle);
    bytes_free(&program->fields);
    free(program->kernels);
    free(program->name);
    free(program);
}

void drop_program(struct device *device, const char *name) {
    for (struct program **at = &device->programs; *at; at = &(*at)->next) {
        if (strcmp((*at)->name, name) != 0) continue;
        struct program *found = *at;
        *at = found->next;
        release(found);
        return;
    }
}

// The source as it arrives, so that what is announced and never sent costs nothing. NULL with a refusal.
static bool receive(struct request *request, struct bytes *source, struct answer *answer) {
    if (request->blob_size > MAX_SOURCE_BYTES) return refuse(answer, BAD_REQUEST, "a source of more than 64 MiB");
    for (uint64_t left = request->blob_size; left > 0;) {
        size_t size = left < 1 << 16 ? (size_t)left : 1 << 16;
        char *end = bytes_reserve(source, size);
        if (!end) return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
        if (!blob_read(request, end, size)) return false;
        source->size += size;
        left -= size;
    }
    return true;
}

static bool read_options(const struct frame *frame, struct bytes *options, struct answer *answer) {
    const struct json *list = json_get(&frame->document, frame->object, "options");
    if (list && list->type != JSON_ARRAY) return refuse(answer, BAD_REQUEST, "options is no list of texts");
    for (const struct json *at = json_first(&frame->document, list); at; at = json_next(&frame->document, at)) {
        if (at->type != JSON_STRING || memchr(at->text, '\0', at->size))
            return refuse(answer, BAD_REQUEST, "options is no list of texts");
        if (options->size) bytes_text(options, " ");
        bytes_append(options, at->text, at->size);
    }
    bytes_append(options, "", 1);
    return !options->failed || refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
}

// The compiler's words, without the white space and NULs around them.
static void read_log(struct device *device, cl_program program, struct bytes *log) {
    size_t size = 0;
    cl_int status = cl.GetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, 0, NULL, &size);
    char *text = status == CL_SUCCESS && size ? bytes_reserve(log, size) : NULL;
    if (!text) return;
    if (cl.GetProgramBuildInfo(program, device->id, CL_PROGRAM_BUILD_LOG, size, text, NULL) != CL_SUCCESS) return;
    while (size > 0 && strchr(" \n", text[size - 1])) size--; // strchr finds the NUL too
    size_t from = 0;
    while (from < size && strchr(" \n", text[from])) from++;
    memmove(text, text + from, size - from);
    log->size = size - from;
}

static bool limit(struct device *device, struct program *program, cl_kernel kernel, const char *name, cl_uint what,
                  struct answer *answer) {
    unsigned char raw[8] = {0}; // a size_t or a cl_ulong
    size_t size = 0;
    cl_int status = cl.GetKernelWorkGroupInfo(kernel, device->id, what, sizeof raw, raw, &size);
    if (!done(answer, status, BUILD_FAILED, "clGetKernelWorkGroupInfo")) return false;
    uint64_t wide = 0;
    uint32_t narrow = 0;
    memcpy(&wide, raw, sizeof wide);
    memcpy(&narrow, raw, sizeof narrow);
    bytes_printf(&program->fields, "\"%s\":%llu", name, (unsigned long long)(size == 4 ? narrow : wide));
    return true;
}

static bool read_kernel(struct device *device, struct program *program, struct kernel *kernel, struct answer *answer) {
    cl_int status = cl.GetKernelInfo(kernel->handle, CL_KERNEL_FUNCTION_NAME, sizeof kernel->name, kernel->name, NULL);
    if (!done(answer, status, BUILD_FAILED, "clGetKernelInfo")) return false;
    kernel->name[sizeof kernel->name - 1] = '\0';
    status = cl.GetKernelInfo(kernel->handle, CL_KERNEL_NUM_ARGS, sizeof kernel->args, &kernel->args, NULL);
    if (!done(answer, status, BUILD_FAILED, "clGetKernelInfo")) return false;
    json_text(&program->fields, kernel->name);
    bytes_text(&program->fields, ":{");
    static const struct {
        const char *name;
        cl_uint what;
    } asked[] = {{"work_group", CL_KERNEL_WORK_GROUP_SIZE},
                 {"local_bytes", CL_KERNEL_LOCAL_MEM_SIZE},
                 {"private_bytes", CL_KERNEL_PRIVATE_MEM_SIZE},
                 {"multiple", CL_KERNEL_PREFERRED_WORK_GROUP_SIZE_MULTIPLE}};
    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        if (i) bytes_text(&program->fields, ",");
        if (!limit(device, program, kernel->handle, asked[i].name, asked[i].what, answer)) return false;
    }
    bytes_text(&program->fields, "}");
    return true;
}

static bool read_kernels(struct device *device, struct program *program, struct answer *answer) {
    cl_uint count = 0;
    cl_int status = cl.CreateKernelsInProgram(program->handle, 0, NULL, &count);
    if (!done(answer, status, BUILD_FAILED, "clCreateKernelsInProgram")) return false;
    cl_kernel *handles = calloc(count + 1, sizeof *handles);
    program->kernels = calloc(count + 1, sizeof *program->kernels);
    if (!handles || !program->kernels) {
        free(handles);
        return refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    }
    if (count) status = cl.CreateKernelsInProgram(program->handle, count, handles, NULL);
    bool good = done(answer, status, BUILD_FAILED, "clCreateKernelsInProgram");
    for (cl_uint i = 0; good && i < count; i++) program->kernels[i].handle = handles[i];
    if (good) program->count = count;
    free(handles);
    for (cl_uint i = 0; good && i < count; i++) {
        if (i) bytes_text(&program->fields, ",");
        good = read_kernel(device, program, &program->kernels[i], answer);
    }
    return good;
}

static bool compile(struct device *device, struct program *program, const struct bytes *source, const char *options,
                    struct answer *answer) {
    uint64_t start = now_ns();
    const char *text = source->data ? source->data : "";
    cl_int status = CL_SUCCESS;
    program->handle = cl.CreateProgramWithSource(device->context, 1, &text, &source->size, &status);
    if (!done(answer, status, BUILD_FAILED, "clCreateProgramWithSource")) return false;
    status = cl.BuildProgram(program->handle, 1, &device->id, options, NULL, NULL);
    struct bytes log = {0};
    bool good = status == CL_SUCCESS;
    if (status == CL_BUILD_PROGRAM_FAILURE) {
        read_log(device, program->handle, &log);
        if (log.size) {
            answer->refused = true;
            answer->kind = BUILD_FAILED;
            bytes_append(&answer->message, log.data, log.size);
        }
    }
    if (!good) done(answer, status, BUILD_FAILED, "clBuildProgram");
    if (good) {
        bytes_text(&program->fields, ",\"kernels\":{");
        good = read_kernels(device, program, answer);
        read_log(device, program->handle, &log); // after the kernels: Mali compiles when they are made
        bytes_text(&program->fields, "},\"log\":");
        json_string(&program->fields, log.data, log.size);
        bytes_printf(&program->fields, ",\"build_ms\":%.6f", (double)(now_ns() - start) / 1e6);
        if (good && program->fields.failed) good = refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    }
    bytes_free(&log);
    return good;
}

bool op_build(struct device *device, struct request *request, struct answer *answer) {
    const char *name = need_text(request, answer, "program");
    if (!name) return false;
    struct program *program = program_find(device, name);
    if (program) {
        bytes_append(&answer->fields, program->fields.data, program->fields.size);
        return true;
    }
    if (!request->has_blob) return refuse(answer, BAD_REQUEST, "%s: no source was sent", name);
    struct bytes source = {0}, options = {0};
    program = calloc(1, sizeof *program);
    if (program) program->name = strdup(name);
    bool good = program && program->name;
    if (!good) refuse(answer, OUT_OF_RESOURCES, "the runner is out of memory");
    good = good && receive(request, &source, answer) && read_options(request->frame, &options, answer) &&
           compile(device, program, &source, options.data, answer);
    bytes_free(&source);
    bytes_free(&options);
    if (!good) {
        if (program) release(program);
        return false;
    }
    program->next = device->programs;
    device->programs = program;
    bytes_append(&answer->fields, program->fields.data, program->fields.size);
    return true;
}

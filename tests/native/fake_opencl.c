// An OpenCL library without a device behind it, for tests where no driver runs (under qemu) or where it must misbehave.
//
// It keeps buffers in memory and knows a handful of kernels by their name, which it finds in the source:
//     add(a, y, b, c)   y[i] = a[i] + b + (int)c        twice(y)   y[i] *= 2        count(a, by)   a[i] += by
//     texels(image, y)  one uint4 a texel
//     crash, hang       the launch ends the process by a real SIGSEGV, or does not return
//     talk              prints to stdout
//     reset             adds one to the number in the file FAKE_RESETS, as a GPU's driver counts its resets
// Other kernels launch and do nothing. A source whose braces do not match does not build; one with "crash the compiler"
// crashes in clBuildProgram, one with "hang the compiler" stays there. Launches beyond FAKE_LAUNCHES fail, so that a
// fuzzer's endless run ends. Compiled with FAKE_ICD it exports nothing but the way to its table, as PoCL does; with
// FAKE_CALM nothing crashes or hangs: a fuzzer finds the words for it in seconds.
#include <ctype.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../../harness/runner/native/opencl.h"

enum { WORK_GROUP = 256, MAX_ALLOC = 1 << 30, ARGS = 16 };

struct object {
    void **table; // as each object of an ICD driver begins
};
struct _cl_platform_id {
    struct object object;
};
struct _cl_device_id {
    struct object object;
};
struct _cl_context {
    struct object object;
};
struct _cl_command_queue {
    struct object object;
};
struct _cl_mem {
    struct object object;
    unsigned char *data;
    size_t size, width, height;
    cl_mem parent; // of a region or an image
};
struct _cl_program {
    struct object object;
    char *source;
};
struct _cl_kernel {
    struct object object;
    char name[64];
    cl_uint count;
    unsigned char args[ARGS][8];
    size_t sizes[ARGS];
};
struct _cl_event {
    struct object object;
    cl_ulong at;
};

static void *table[160];
static struct _cl_platform_id platform = {{table}};
static struct _cl_device_id device = {{table}};
static long launches_left = -1;  // below 0: no end
static cl_ulong clock_ns = 1000; // a clock of its own: what it says is the same in each run

#ifdef FAKE_CALM
enum { MISBEHAVES = 0 };
#else
enum { MISBEHAVES = 1 };
#endif

#ifdef FAKE_ICD
#define API static
#else
#define API extern
#endif
#define GIVE(status, value)                                                                                            \
    do {                                                                                                               \
        if (status_to) *status_to = (status);                                                                          \
        return (value);                                                                                                \
    } while (0)

static cl_int tell(const void *value, size_t size, size_t room, void *to, size_t *size_to) {
    if (size_to) *size_to = size;
    if (!to) return 0;
    if (room < size) return -30;
    memcpy(to, value, size);
    return 0;
}
#define TELL_TEXT(text) return tell(text, strlen(text) + 1, room, to, size_to)
#define TELL(type, value)                                                                                              \
    do {                                                                                                               \
        type told = (value);                                                                                           \
        return tell(&told, sizeof told, room, to, size_to);                                                            \
    } while (0)

API cl_int clGetPlatformIDs(cl_uint room, cl_platform_id *to, cl_uint *count) {
    if (to && room) *to = &platform;
    if (count) *count = getenv("FAKE_NO_PLATFORM") ? 0 : 1;
    return getenv("FAKE_NO_PLATFORM") ? -1001 : 0;
}

API cl_int clGetPlatformInfo(cl_platform_id p, cl_uint what, size_t room, void *to, size_t *size_to) {
    (void)p;
    if (what == CL_PLATFORM_NAME) TELL_TEXT("Fake");
    if (what == CL_PLATFORM_VERSION) TELL_TEXT("OpenCL 1.2 fake");
    return -30;
}

API cl_int clGetDeviceIDs(cl_platform_id p, cl_bitfield type, cl_uint room, cl_device_id *to, cl_uint *count) {
    (void)p, (void)type;
    if (to && room) *to = &device;
    if (count) *count = 1;
    return 0;
}

API cl_int clGetDeviceInfo(cl_device_id d, cl_uint what, size_t room, void *to, size_t *size_to) {
    (void)d;
    static const size_t items[3] = {WORK_GROUP, WORK_GROUP, 64};
    switch (what) {
    case CL_DEVICE_NAME: TELL_TEXT("Paper GPU ");
    case CL_DEVICE_VENDOR: TELL_TEXT("Nobody");
    case CL_DEVICE_VERSION: TELL_TEXT("OpenCL 1.2 fake");
    case CL_DRIVER_VERSION: TELL_TEXT("1");
    case CL_DEVICE_OPENCL_C_VERSION: TELL_TEXT("OpenCL C 1.2 fake");
    case CL_DEVICE_EXTENSIONS: TELL_TEXT("cl_khr_fp16 cl_khr_image2d_from_buffer");
    case CL_DEVICE_TYPE: TELL(cl_ulong, CL_DEVICE_TYPE_GPU);
    case CL_DEVICE_MAX_WORK_ITEM_SIZES: return tell(items, sizeof items, room, to, size_to);
    case CL_DEVICE_MAX_WORK_GROUP_SIZE: TELL(size_t, WORK_GROUP);
    case CL_DEVICE_MAX_MEM_ALLOC_SIZE: TELL(cl_ulong, MAX_ALLOC);
    case CL_DEVICE_GLOBAL_MEM_SIZE: TELL(cl_ulong, (cl_ulong)4 * MAX_ALLOC);
    case CL_DEVICE_LOCAL_MEM_SIZE: TELL(cl_ulong, 32768);
    case CL_DEVICE_IMAGE2D_MAX_WIDTH:
    case CL_DEVICE_IMAGE2D_MAX_HEIGHT: TELL(size_t, 8192);
    case CL_DEVICE_IMAGE_PITCH_ALIGNMENT:
    case CL_DEVICE_IMAGE_BASE_ADDRESS_ALIGNMENT: TELL(cl_uint, 1);
    case CL_DEVICE_MEM_BASE_ADDR_ALIGN: TELL(cl_uint, 1024);
    case CL_DEVICE_PROFILING_TIMER_RESOLUTION: TELL(size_t, 1);
    case CL_DEVICE_MAX_COMPUTE_UNITS: TELL(cl_uint, 2);
    case CL_DEVICE_IMAGE_SUPPORT:
    case CL_DEVICE_MAX_CLOCK_FREQUENCY: TELL(cl_uint, 1);
    case CL_DEVICE_GLOBAL_MEM_CACHE_SIZE: TELL(cl_ulong, 1 << 20);
    default: return -30;
    }
}

static void *object(size_t size) {
    struct object *made = calloc(1, size);
    if (made) made->table = table;
    return made;
}

API cl_context clCreateContext(const intptr_t *p, cl_uint n, const cl_device_id *d, cl_notify f, void *arg,
                               cl_int *status_to) {
    (void)n, (void)d, (void)f, (void)arg;
    if (p) GIVE(-64, NULL); // it takes no hint
    GIVE(0, object(sizeof(struct _cl_context)));
}

API cl_command_queue clCreateCommandQueue(cl_context c, cl_device_id d, cl_bitfield p, cl_int *status_to) {
    (void)c, (void)d, (void)p;
    const char *most = getenv("FAKE_LAUNCHES");
    launches_left = most ? atol(most) : -1;
    GIVE(0, object(sizeof(struct _cl_command_queue)));
}

static cl_int release(void *made) {
    free(made);
    return 0;
}
API cl_int clReleaseContext(cl_context c) { return release(c); }
API cl_int clReleaseCommandQueue(cl_command_queue q) { return release(q); }
API cl_int clReleaseKernel(cl_kernel k) { return release(k); }
API cl_int clReleaseEvent(cl_event e) { return release(e); }

API cl_mem clCreateBuffer(cl_context c, cl_bitfield flags, size_t size, void *host, cl_int *status_to) {
    (void)c, (void)flags, (void)host;
    if (size == 0 || size > MAX_ALLOC) GIVE(CL_INVALID_BUFFER_SIZE, NULL);
    cl_mem made = object(sizeof *made);
    if (made) made->data = malloc(size);
    if (!made || !made->data) GIVE(CL_MEM_OBJECT_ALLOCATION_FAILURE, (free(made), NULL));
    made->size = size;
    GIVE(0, made);
}

API cl_mem clCreateSubBuffer(cl_mem of, cl_bitfield flags, cl_uint type, const void *info, cl_int *status_to) {
    (void)flags, (void)type;
    const struct _cl_buffer_region *part = info;
    if (part->size == 0 || part->origin > of->size || part->size > of->size - part->origin) GIVE(-30, NULL);
    if (part->origin % 128) GIVE(-13, NULL);
    cl_mem made = object(sizeof *made);
    made->data = of->data + part->origin;
    made->size = part->size;
    made->parent = of;
    GIVE(0, made);
}

API cl_mem clCreateImage(cl_context c, cl_bitfield flags, const struct _cl_image_format *form,
                         const struct _cl_image_desc *desc, void *host, cl_int *status_to) {
    (void)c, (void)flags, (void)form, (void)host;
    if (desc->image_width > 8192 || desc->image_height > 8192) GIVE(CL_INVALID_IMAGE_SIZE, NULL);
    if (desc->image_row_pitch * desc->image_height > desc->buffer->size) GIVE(CL_INVALID_IMAGE_DESCRIPTOR, NULL);
    cl_mem made = object(sizeof *made);
    *made = (struct _cl_mem){made->object,      desc->buffer->data, desc->image_row_pitch * desc->image_height,
                             desc->image_width, desc->image_height, desc->buffer};
    GIVE(0, made);
}

API cl_int clReleaseMemObject(cl_mem mem) {
    if (!mem->parent) free(mem->data);
    return release(mem);
}

API cl_program clCreateProgramWithSource(cl_context c, cl_uint n, const char **texts, const size_t *sizes,
                                         cl_int *status_to) {
    (void)c, (void)n;
    cl_program made = object(sizeof *made);
    size_t size = sizes && sizes[0] ? sizes[0] : strlen(texts[0]);
    made->source = calloc(size + 1, 1);
    memcpy(made->source, texts[0], size);
    GIVE(0, made);
}

API cl_int clReleaseProgram(cl_program p) {
    free(p->source);
    return release(p);
}

API cl_int clBuildProgram(cl_program p, cl_uint n, const cl_device_id *d, const char *options, cl_built f, void *arg) {
    (void)n, (void)d, (void)options, (void)f, (void)arg;
    if (MISBEHAVES && strstr(p->source, "crash the compiler")) {
        fputs("LLVM ERROR: no such thing\n", stderr);
        raise(SIGSEGV);
    }
    while (MISBEHAVES && strstr(p->source, "hang the compiler")) pause();
    int open = 0;
    for (const char *at = p->source; *at; at++) open += *at == '{' ? 1 : *at == '}' ? -1 : 0;
    return open ? CL_BUILD_PROGRAM_FAILURE : 0;
}

API cl_int clGetProgramBuildInfo(cl_program p, cl_device_id d, cl_uint what, size_t room, void *to, size_t *size_to) {
    (void)p, (void)d, (void)what;
    TELL_TEXT(" a log of nobody\n");
}

// The n-th kernel of a source; false where there are fewer. Its arguments are counted by their commas.
static bool nth_kernel(const char *source, cl_uint n, char name[64], cl_uint *count) {
    const char *at = source;
    for (cl_uint i = 0; i <= n; i++, at += 8)
        if (!(at = strstr(at, "__kernel"))) return false;
    at = strstr(at, "void");
    if (!at) return false;
    at += 4;
    while (isspace((unsigned char)*at)) at++;
    size_t size = 0;
    while (size < 63 && (isalnum((unsigned char)at[size]) || at[size] == '_')) size++;
    memcpy(name, at, size);
    name[size] = '\0';
    at += size;
    *count = 0;
    if (*at == '(' && at[1] != ')')
        for (*count = 1; *at && *at != ')'; at++) *count += *at == ',';
    return size > 0 && *count <= ARGS;
}

static cl_kernel make_kernel(cl_program p, cl_uint n) {
    cl_kernel made = object(sizeof *made);
    nth_kernel(p->source, n, made->name, &made->count);
    return made;
}

API cl_int clCreateKernelsInProgram(cl_program p, cl_uint room, cl_kernel *to, cl_uint *count) {
    char name[64];
    cl_uint found = 0, args = 0;
    while (nth_kernel(p->source, found, name, &args)) found++;
    for (cl_uint i = 0; to && i < found && i < room; i++) to[i] = make_kernel(p, i);
    if (count) *count = found;
    return 0;
}

API cl_kernel clCreateKernel(cl_program p, const char *wanted, cl_int *status_to) {
    char name[64];
    cl_uint args = 0;
    for (cl_uint i = 0; nth_kernel(p->source, i, name, &args); i++)
        if (strcmp(name, wanted) == 0) GIVE(0, make_kernel(p, i));
    GIVE(-46, NULL);
}

API cl_int clGetKernelInfo(cl_kernel k, cl_uint what, size_t room, void *to, size_t *size_to) {
    if (what == CL_KERNEL_FUNCTION_NAME) TELL_TEXT(k->name);
    TELL(cl_uint, k->count);
}

API cl_int clGetKernelWorkGroupInfo(cl_kernel k, cl_device_id d, cl_uint what, size_t room, void *to, size_t *size_to) {
    (void)k, (void)d;
    if (what == CL_KERNEL_WORK_GROUP_SIZE) TELL(size_t, WORK_GROUP);
    if (what == CL_KERNEL_PREFERRED_WORK_GROUP_SIZE_MULTIPLE) TELL(size_t, 64);
    TELL(cl_ulong, 0);
}

API cl_int clSetKernelArg(cl_kernel k, cl_uint index, size_t size, const void *value) {
    if (index >= k->count) return -49;
    if (size > sizeof k->args[0]) return -51;
    memcpy(k->args[index], value, size);
    k->sizes[index] = size;
    return 0;
}

static int32_t *ints(cl_kernel k, cl_uint index, size_t count) { // a buffer argument that holds so many, or NULL
    cl_mem mem = NULL;
    if (index >= k->count || k->sizes[index] != sizeof mem) return NULL;
    memcpy(&mem, k->args[index], sizeof mem);
    return mem->size / 4 >= count ? (int32_t *)(void *)mem->data : NULL;
}

static bool count_reset(void) {
    const char *path = getenv("FAKE_RESETS");
    int count = 0;
    FILE *file = path ? fopen(path, "r+") : NULL;
    if (!file || fscanf(file, "%d", &count) != 1) return false;
    rewind(file);
    fprintf(file, "%d\n", count + 1);
    return fclose(file) == 0;
}

static bool execute(cl_kernel k, size_t count) {
    int32_t b = 0;
    float c = 0;
    int32_t *x = ints(k, 0, count), *y = ints(k, 1, count);
    if (MISBEHAVES && strcmp(k->name, "crash") == 0) raise(SIGSEGV);
    while (MISBEHAVES && strcmp(k->name, "hang") == 0) pause();
    if (MISBEHAVES && strcmp(k->name, "reset") == 0) return count_reset();
    if (strcmp(k->name, "talk") == 0) return puts("the driver says hello") >= 0 && fflush(stdout) == 0;
    if (strcmp(k->name, "add") == 0 && k->count == 4 && k->sizes[2] == 4 && k->sizes[3] == 4) {
        memcpy(&b, k->args[2], 4);
        memcpy(&c, k->args[3], 4);
        if (!x || !y || !(c > -1e6f && c < 1e6f)) return false;
        for (size_t i = 0; i < count; i++) y[i] = (int32_t)((uint32_t)x[i] + (uint32_t)b + (uint32_t)(int32_t)c);
    } else if (strcmp(k->name, "count") == 0 && k->count == 2 && k->sizes[1] == 4) {
        memcpy(&b, k->args[1], 4);
        for (size_t i = 0; x && i < count; i++) x[i] = (int32_t)((uint32_t)x[i] + (uint32_t)b);
        return x != NULL;
    } else if (strcmp(k->name, "twice") == 0 && k->count == 1) {
        for (size_t i = 0; x && i < count; i++) x[i] = (int32_t)((uint32_t)x[i] * 2);
        return x != NULL;
    } else if (strcmp(k->name, "texels") == 0 && k->count == 2) { // RGBA of uint32, which is what its test gives
        int32_t *from = ints(k, 0, 4 * count), *to = ints(k, 1, 4 * count);
        if (!from || !to) return false;
        memcpy(to, from, 16 * count);
    }
    return true;
}

static cl_event event_at(cl_ulong at) {
    cl_event made = object(sizeof *made);
    if (made) made->at = at;
    return made;
}

API cl_int clEnqueueNDRangeKernel(cl_command_queue q, cl_kernel k, cl_uint dims, const size_t *offset,
                                  const size_t *global, const size_t *local, cl_uint n, const cl_event *waits,
                                  cl_event *event) {
    (void)q, (void)offset, (void)n, (void)waits;
    size_t count = 1, group = 1;
    for (cl_uint i = 0; i < dims; i++) {
        if (global[i] == 0 || global[i] > (size_t)1 << 20) return -63;
        if (local && (local[i] == 0 || local[i] > WORK_GROUP || global[i] % local[i])) return -54;
        count *= global[i];
        group *= local ? local[i] : 1;
    }
    if (group > WORK_GROUP) return -54;
    if (launches_left == 0) return CL_OUT_OF_RESOURCES;
    if (launches_left > 0) launches_left--;
    if (!execute(k, count)) return -52;
    clock_ns += 1000;
    if (event) *event = event_at(clock_ns);
    return 0;
}

API cl_event clCreateUserEvent(cl_context c, cl_int *status_to) {
    (void)c;
    GIVE(0, event_at(0));
}

API cl_int clSetUserEventStatus(cl_event e, cl_int status) {
    (void)e, (void)status;
    return 0;
}

API cl_int clGetEventProfilingInfo(cl_event e, cl_uint what, size_t room, void *to, size_t *size_to) {
    TELL(cl_ulong, e->at + 100 * (what - CL_PROFILING_COMMAND_QUEUED));
}

API cl_int clFinish(cl_command_queue q) {
    (void)q;
    return 0;
}

static bool outside(cl_mem mem, size_t at, size_t size) { return size == 0 || at > mem->size || size > mem->size - at; }

API cl_int clEnqueueReadBuffer(cl_command_queue q, cl_mem m, cl_uint b, size_t at, size_t size, void *to, cl_uint n,
                               const cl_event *w, cl_event *e) {
    (void)q, (void)b, (void)n, (void)w, (void)e;
    if (outside(m, at, size)) return -30;
    memcpy(to, m->data + at, size);
    return 0;
}

API cl_int clEnqueueWriteBuffer(cl_command_queue q, cl_mem m, cl_uint b, size_t at, size_t size, const void *from,
                                cl_uint n, const cl_event *w, cl_event *e) {
    (void)q, (void)b, (void)n, (void)w, (void)e;
    if (outside(m, at, size)) return -30;
    memcpy(m->data + at, from, size);
    return 0;
}

API cl_int clEnqueueCopyBuffer(cl_command_queue q, cl_mem from, cl_mem to, size_t x, size_t y, size_t size, cl_uint n,
                               const cl_event *w, cl_event *e) {
    (void)q, (void)n, (void)w, (void)e;
    if (outside(from, x, size) || outside(to, y, size)) return -30;
    memmove(to->data + y, from->data + x, size);
    return 0;
}

API cl_int clEnqueueFillBuffer(cl_command_queue q, cl_mem m, const void *pattern, size_t length, size_t at, size_t size,
                               cl_uint n, const cl_event *w, cl_event *e) {
    (void)q, (void)n, (void)w, (void)e;
    if (outside(m, at, size) || length == 0 || size % length) return -30;
    for (size_t i = 0; i < size; i += length) memcpy(m->data + at + i, pattern, length);
    return 0;
}

static void absent(void) { abort(); } // what is not in the table is not to be called

// The order of the table is the test of the runner's: each function goes to the place that cl_icd.h gives it.
__attribute__((constructor)) static void fill_table(void) {
    void (*none)(void) = absent;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) memcpy(&table[i], &none, sizeof none);
#define PUT(place, type, name, params)                                                                                 \
    {                                                                                                                  \
        type(*function) params = cl##name;                                                                             \
        memcpy(&table[place], &function, sizeof function);                                                             \
    }
#define NEEDED(place, type, name, params) PUT(place, type, name, params)
#define OPTIONAL(place, type, name, params)                                                                            \
    if (place < 123) PUT(place, type, name, params)
    cl_command_queue (*clCreateCommandQueueWithProperties)(cl_context, cl_device_id, const cl_bitfield *, cl_int *) =
        NULL;
    cl_int (*clGetKernelSubGroupInfo)(cl_kernel, cl_device_id, cl_uint, size_t, const void *, size_t, void *,
                                      size_t *) = NULL;
#include "../../harness/runner/native/opencl.def"
}

#ifdef FAKE_ICD
void *clGetExtensionFunctionAddress(const char *name) {
    cl_int (*ids)(cl_uint, cl_platform_id *, cl_uint *) = clGetPlatformIDs;
    void *address = NULL;
    if (strcmp(name, "clIcdGetPlatformIDsKHR") == 0) memcpy(&address, &ids, sizeof ids);
    return address;
}
#endif

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

static char *trimmed(char *text) {
    size_t from = 0, end = strlen(text);
    while (isspace((unsigned char)text[from])) from++;
    while (end > from && isspace((unsigned char)text[end - 1])) end--;
    memmove(text, text + from, end - from);
    text[end - from] = '\0';
    return text;
}

char *device_string(cl_device_id device, cl_uint what) {
    size_t size = 0;
    if (cl.GetDeviceInfo(device, what, 0, NULL, &size) != CL_SUCCESS) size = 0;
    char *text = calloc(size + 1, 1);
    if (text && size && cl.GetDeviceInfo(device, what, size, text, NULL) != CL_SUCCESS) text[0] = '\0';
    return text ? trimmed(text) : NULL;
}

char *platform_string(cl_platform_id platform, cl_uint what) {
    size_t size = 0;
    if (cl.GetPlatformInfo(platform, what, 0, NULL, &size) != CL_SUCCESS) size = 0;
    char *text = calloc(size + 1, 1);
    if (text && size && cl.GetPlatformInfo(platform, what, size, text, NULL) != CL_SUCCESS) text[0] = '\0';
    return text ? trimmed(text) : NULL;
}

// A number of a device, 0 where the driver does not know the question. Drivers answer in 1, 4 or 8 bytes.
static unsigned long long number(cl_device_id device, cl_uint what) {
    unsigned char raw[8] = {0};
    size_t size = 0;
    if (cl.GetDeviceInfo(device, what, sizeof raw, raw, &size) != CL_SUCCESS || size > sizeof raw) return 0;
    uint64_t wide = 0;
    uint32_t narrow = 0;
    memcpy(&wide, raw, sizeof wide);
    memcpy(&narrow, raw, sizeof narrow);
    return size == 8 ? wide : narrow;
}

static void member(struct bytes *out, const char *name, char *text) {
    bytes_printf(out, "\"%s\":", name);
    json_text(out, text ? text : "");
    bytes_text(out, ",");
    free(text);
}

static void sizes(struct bytes *out, cl_device_id device, cl_uint what) {
    size_t list[64], size = 0;
    if (cl.GetDeviceInfo(device, what, sizeof list, list, &size) != CL_SUCCESS || size > sizeof list) size = 0;
    bytes_text(out, "[");
    for (size_t i = 0; i < size / sizeof *list; i++) bytes_printf(out, "%s%zu", i ? "," : "", list[i]);
    bytes_text(out, "],");
}

bool device_has(cl_device_id device, const char *extension) {
    char *all = device_string(device, CL_DEVICE_EXTENSIONS), *left = NULL;
    bool has = false;
    for (char *word = all ? strtok_r(all, " ", &left) : NULL; word && !has; word = strtok_r(NULL, " ", &left))
        has = strcmp(word, extension) == 0;
    free(all);
    return has;
}

static void extensions(struct bytes *out, cl_device_id device) {
    char *all = device_string(device, CL_DEVICE_EXTENSIONS), *left = NULL;
    const char *comma = "";
    bytes_text(out, "\"extensions\":[");
    for (char *word = all ? strtok_r(all, " ", &left) : NULL; word; word = strtok_r(NULL, " ", &left), comma = ",") {
        bytes_text(out, comma);
        json_text(out, word);
    }
    bytes_text(out, "],");
    free(all);
}

// The size that a plain kernel's subgroups get: what a compiler says of one that it has built, 0 where it does not.
static size_t built_subgroup(cl_device_id device) {
    const char *source = "__kernel void one(__global int *a) { a[get_global_id(0)] = 1; }";
    size_t size = 0, most = (size_t)number(device, CL_DEVICE_MAX_WORK_GROUP_SIZE), local = most < 128 ? most : 128;
    cl_int status = CL_SUCCESS;
    cl_context context = cl.CreateContext(NULL, 1, &device, NULL, NULL, &status);
    if (status != CL_SUCCESS) return 0;
    cl_program program = cl.CreateProgramWithSource(context, 1, &source, NULL, &status);
    if (status == CL_SUCCESS) {
        if (cl.BuildProgram(program, 1, &device, "", NULL, NULL) == CL_SUCCESS) {
            cl_kernel kernel = cl.CreateKernel(program, "one", &status);
            if (status == CL_SUCCESS) {
                if (cl.GetKernelSubGroupInfo(kernel, device, CL_KERNEL_MAX_SUB_GROUP_SIZE_FOR_NDRANGE, sizeof local,
                                             &local, sizeof size, &size, NULL) != CL_SUCCESS)
                    size = 0;
                cl.ReleaseKernel(kernel);
            }
        }
        cl.ReleaseProgram(program);
    }
    cl.ReleaseContext(context);
    return size;
}

static void subgroups(struct bytes *out, cl_device_id device) {
    bytes_text(out, "\"subgroup_sizes\":");
    if (device_has(device, "cl_intel_required_subgroup_size")) {
        sizes(out, device, CL_DEVICE_SUB_GROUP_SIZES_INTEL);
        return;
    }
    bool some = device_has(device, "cl_khr_subgroups") || number(device, CL_DEVICE_MAX_NUM_SUB_GROUPS) > 0;
    size_t size = some && cl.GetKernelSubGroupInfo ? built_subgroup(device) : 0;
    if (size) {
        bytes_printf(out, "[%zu],", size);
    } else {
        bytes_text(out, "[],");
    }
}

static void count(struct bytes *out, const char *name, unsigned long long value) {
    bytes_printf(out, "\"%s\":%llu,", name, value);
}

void describe(cl_platform_id platform, cl_device_id device, struct bytes *out) {
    unsigned long long type = number(device, CL_DEVICE_TYPE);
    bool cpu = !(type & CL_DEVICE_TYPE_GPU) && (type & CL_DEVICE_TYPE_CPU);
    bool images = number(device, CL_DEVICE_IMAGE_SUPPORT) != 0;
    bool views = images && device_has(device, "cl_khr_image2d_from_buffer");
    member(out, "name", device_string(device, CL_DEVICE_NAME));
    member(out, "vendor", device_string(device, CL_DEVICE_VENDOR));
    member(out, "version", device_string(device, CL_DEVICE_VERSION));
    member(out, "opencl_c_version", device_string(device, CL_DEVICE_OPENCL_C_VERSION));
    member(out, "driver_version", device_string(device, CL_DRIVER_VERSION));
    member(out, "platform_name", platform_string(platform, CL_PLATFORM_NAME));
    member(out, "platform_version", platform_string(platform, CL_PLATFORM_VERSION));
    bytes_printf(out, "\"type\":\"%s\",", type & CL_DEVICE_TYPE_GPU ? "gpu" : cpu ? "cpu" : "other");
    extensions(out, device);
    count(out, "max_work_group_size", number(device, CL_DEVICE_MAX_WORK_GROUP_SIZE));
    bytes_text(out, "\"max_work_item_sizes\":");
    sizes(out, device, CL_DEVICE_MAX_WORK_ITEM_SIZES);
    count(out, "local_mem_size", number(device, CL_DEVICE_LOCAL_MEM_SIZE));
    count(out, "max_mem_alloc_size", number(device, CL_DEVICE_MAX_MEM_ALLOC_SIZE));
    count(out, "global_mem_size", number(device, CL_DEVICE_GLOBAL_MEM_SIZE));
    count(out, "global_mem_cache_size", number(device, CL_DEVICE_GLOBAL_MEM_CACHE_SIZE));
    count(out, "last_level_cache_bytes", cpu ? (unsigned long long)cpu_cache_bytes() : 0);
    count(out, "compute_units", number(device, CL_DEVICE_MAX_COMPUTE_UNITS));
    int floats = (int)number(device, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT);
    count(out, "vector_floats", cpu ? (unsigned long long)cpu_vector_floats(floats) : 0);
    count(out, "max_clock_mhz", number(device, CL_DEVICE_MAX_CLOCK_FREQUENCY));
    count(out, "image2d_max_width", images ? number(device, CL_DEVICE_IMAGE2D_MAX_WIDTH) : 0);
    count(out, "image2d_max_height", images ? number(device, CL_DEVICE_IMAGE2D_MAX_HEIGHT) : 0);
    count(out, "image_pitch_alignment", views ? number(device, CL_DEVICE_IMAGE_PITCH_ALIGNMENT) : 0);
    count(out, "image_base_address_alignment", views ? number(device, CL_DEVICE_IMAGE_BASE_ADDRESS_ALIGNMENT) : 0);
    subgroups(out, device);
    count(out, "mem_base_addr_align_bytes", number(device, CL_DEVICE_MEM_BASE_ADDR_ALIGN) / 8); // OpenCL tells bits
    bytes_printf(out, "\"profiling_timer_resolution_ns\":%llu", number(device, CL_DEVICE_PROFILING_TIMER_RESOLUTION));
}

#include "opencl.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pocl.h"

struct opencl cl;

typedef cl_int (*platform_ids)(cl_uint, cl_platform_id *, cl_uint *);
typedef void *(*extension_address)(const char *);

// ISO C has no conversion from dlsym's pointer to a function's; POSIX says that they have the same form.
#define FUNCTION(target, pointer) memcpy(&(target), &(void *){pointer}, sizeof(void *))

static bool ask_platforms(struct library *library, platform_ids ids, cl_int *status) {
    *status = ids(sizeof library->platforms / sizeof *library->platforms, library->platforms, &library->count);
    if (*status != CL_SUCCESS) library->count = 0;
    if (library->count > sizeof library->platforms / sizeof *library->platforms)
        library->count = sizeof library->platforms / sizeof *library->platforms;
    return library->count > 0;
}

bool library_open(struct library *library, const char *path, char *why, size_t size) {
    *library = (struct library){.path = path};
    library->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library->handle) {
        const char *said = dlerror();
        snprintf(why, size, "%s", said ? said : "dlopen says nothing");
        return false;
    }
    library->note = pocl_repair(library->handle);
    platform_ids ids = NULL;
    cl_int status = CL_SUCCESS;
    FUNCTION(ids, dlsym(library->handle, "clGetPlatformIDs"));
    library->direct = ids != NULL;
    if (ids && ask_platforms(library, ids, &status)) return true;
    // An ICD driver, which exports nothing but the way to its tables.
    extension_address address = NULL;
    platform_ids icd = NULL;
    FUNCTION(icd, dlsym(library->handle, "clIcdGetPlatformIDsKHR"));
    FUNCTION(address, dlsym(library->handle, "clGetExtensionFunctionAddress"));
    if (!icd && address) FUNCTION(icd, address("clIcdGetPlatformIDsKHR"));
    if (icd && ask_platforms(library, icd, &status)) {
        library->direct = false;
        return true;
    }
    if (!ids && !icd) {
        snprintf(why, size, "%s is no OpenCL library: it has neither clGetPlatformIDs nor clIcdGetPlatformIDsKHR",
                 path);
    } else {
        snprintf(why, size, "%s is there but shows no platform: %s", path, cl_error(status));
    }
    return false;
}

static void *entry(const struct library *library, cl_platform_id platform, int place, const char *name) {
    if (library->direct) return dlsym(library->handle, name);
    void **table;
    memcpy(&table, platform, sizeof table); // cl_khr_icd: an object's first member points to its functions
    return table[place];
}

// The major and minor version of a platform as 10 × major + minor; tables of older drivers are shorter.
static int version(cl_platform_id platform) {
    char text[128] = "";
    int major = 0, minor = 0;
    if (cl.GetPlatformInfo(platform, CL_PLATFORM_VERSION, sizeof text - 1, text, NULL) != CL_SUCCESS) return 0;
    return sscanf(text, "OpenCL %d.%d", &major, &minor) == 2 ? 10 * major + minor : 0;
}

bool library_use(const struct library *library, cl_platform_id platform, char *why, size_t size) {
    memset(&cl, 0, sizeof cl);
#define NEEDED(place, type, name, params)                                                                              \
    FUNCTION(cl.name, entry(library, platform, place, "cl" #name));                                                    \
    if (!cl.name) {                                                                                                    \
        snprintf(why, size, "%s has no cl" #name ", which OpenCL 1.1 promises", library->path);                        \
        return false;                                                                                                  \
    }
#include "opencl.def"
    int has = library->direct ? 30 : version(platform);
    // Places from 96 on came with OpenCL 1.2, from 123 with 2.0, from 136 with 2.1.
#define OPTIONAL(place, type, name, params)                                                                            \
    if (has >= (place < 123 ? 12 : place < 136 ? 20 : 21))                                                             \
        FUNCTION(cl.name, entry(library, platform, place, "cl" #name));
#include "opencl.def"
    return true;
}

const char *cl_error(cl_int status) {
    static const struct {
        cl_int status;
        const char *name;
    } names[] = {
        {0, "CL_SUCCESS"},
        {-1, "CL_DEVICE_NOT_FOUND"},
        {-2, "CL_DEVICE_NOT_AVAILABLE"},
        {-3, "CL_COMPILER_NOT_AVAILABLE"},
        {-4, "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
        {-5, "CL_OUT_OF_RESOURCES"},
        {-6, "CL_OUT_OF_HOST_MEMORY"},
        {-7, "CL_PROFILING_INFO_NOT_AVAILABLE"},
        {-10, "CL_IMAGE_FORMAT_NOT_SUPPORTED"},
        {-11, "CL_BUILD_PROGRAM_FAILURE"},
        {-13, "CL_MISALIGNED_SUB_BUFFER_OFFSET"},
        {-14, "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST"},
        {-30, "CL_INVALID_VALUE"},
        {-34, "CL_INVALID_CONTEXT"},
        {-36, "CL_INVALID_COMMAND_QUEUE"},
        {-38, "CL_INVALID_MEM_OBJECT"},
        {-39, "CL_INVALID_IMAGE_FORMAT_DESCRIPTOR"},
        {-40, "CL_INVALID_IMAGE_SIZE"},
        {-43, "CL_INVALID_BUILD_OPTIONS"},
        {-44, "CL_INVALID_PROGRAM"},
        {-45, "CL_INVALID_PROGRAM_EXECUTABLE"},
        {-46, "CL_INVALID_KERNEL_NAME"},
        {-48, "CL_INVALID_KERNEL"},
        {-49, "CL_INVALID_ARG_INDEX"},
        {-50, "CL_INVALID_ARG_VALUE"},
        {-51, "CL_INVALID_ARG_SIZE"},
        {-52, "CL_INVALID_KERNEL_ARGS"},
        {-53, "CL_INVALID_WORK_DIMENSION"},
        {-54, "CL_INVALID_WORK_GROUP_SIZE"},
        {-55, "CL_INVALID_WORK_ITEM_SIZE"},
        {-56, "CL_INVALID_GLOBAL_OFFSET"},
        {-58, "CL_INVALID_EVENT"},
        {-59, "CL_INVALID_OPERATION"},
        {-61, "CL_INVALID_BUFFER_SIZE"},
        {-63, "CL_INVALID_GLOBAL_WORK_SIZE"},
        {-64, "CL_INVALID_PROPERTY"},
        {-65, "CL_INVALID_IMAGE_DESCRIPTOR"},
        {-1001, "CL_PLATFORM_NOT_FOUND_KHR"},
    };
    static char text[64];
    const char *name = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].status == status) name = names[i].name;
    if (name) {
        snprintf(text, sizeof text, "%s (%d)", name, (int)status);
    } else {
        snprintf(text, sizeof text, "OpenCL error %d", (int)status);
    }
    return text;
}

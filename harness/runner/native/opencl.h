// OpenCL without its headers and without linking to it: types, constants and a table of functions filled by dlopen.
#ifndef KILN_OPENCL_H
#define KILN_OPENCL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef KILN_KHRONOS_HEADERS // tests/native/headers.c brings these from CL/cl.h
typedef int32_t cl_int;
typedef uint32_t cl_uint;
typedef uint64_t cl_ulong;
typedef cl_ulong cl_bitfield;
typedef struct _cl_platform_id *cl_platform_id;
typedef struct _cl_device_id *cl_device_id;
typedef struct _cl_context *cl_context;
typedef struct _cl_command_queue *cl_command_queue;
typedef struct _cl_mem *cl_mem;
typedef struct _cl_program *cl_program;
typedef struct _cl_kernel *cl_kernel;
typedef struct _cl_event *cl_event;

#define CONSTANT(name, value) name = (value),
enum {
#include "opencl.def"
};
#define CL_DEVICE_TYPE_ALL 0xFFFFFFFF

struct _cl_image_format {
    cl_uint image_channel_order;
    cl_uint image_channel_data_type;
};
struct _cl_image_desc {
    cl_uint image_type;
    size_t image_width, image_height, image_depth, image_array_size, image_row_pitch, image_slice_pitch;
    cl_uint num_mip_levels, num_samples;
    cl_mem buffer; // OpenCL 2.0 calls it mem_object too
};
struct _cl_buffer_region {
    size_t origin, size;
};
#endif

typedef void (*cl_notify)(const char *, const void *, size_t, void *);
typedef void (*cl_built)(cl_program, void *);

struct opencl {
#define NEEDED(place, type, name, params) type(*name) params;
#define OPTIONAL(place, type, name, params) type(*name) params;
#include "opencl.def"
};

// The functions of the library that is in use. One library a process: the worker has chosen its device for good.
extern struct opencl cl;

// A library that was opened, and its platforms. `direct` = its functions are its own exported ones or a loader's, else
// those of each platform's ICD table.
struct library {
    const char *path;
    void *handle;
    bool direct;
    cl_uint count;
    cl_platform_id platforms[16];
    const char *note; // what was mended in it, or NULL
};

// Open a library and find its platforms. False with a sentence in `why` (of `size` bytes).
bool library_open(struct library *library, const char *path, char *why, size_t size);
// Have `cl` hold the functions for objects of this platform. False with a sentence where one is missing.
bool library_use(const struct library *library, cl_platform_id platform, char *why, size_t size);

// A name for a status, as in "CL_OUT_OF_RESOURCES (-5)": of those that a host or its reader meets.
const char *cl_error(cl_int status);

#endif

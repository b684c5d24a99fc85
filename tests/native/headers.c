// Compiles if what harness/runner/native declares of OpenCL is what Khronos's own headers say. Nothing here is run.
#define CL_TARGET_OPENCL_VERSION 300
#define CL_USE_DEPRECATED_OPENCL_1_2_APIS
#include <CL/cl.h>
#include <CL/cl_ext.h>
#include <CL/cl_icd.h>
#include <stddef.h>
#include <stdint.h>

#define KILN_KHRONOS_HEADERS
#include "../../harness/runner/native/opencl.h"

#define CONSTANT(name, value) _Static_assert((name) == (value), #name);
#include "../../harness/runner/native/opencl.def"

#define NEEDED(place, type, name, params)                                                                              \
    _Static_assert(offsetof(cl_icd_dispatch, cl##name) == (place) * sizeof(void *), #name);                            \
    type(*const check_##name) params = cl##name;
#define OPTIONAL(place, type, name, params) NEEDED(place, type, name, params)
#include "../../harness/runner/native/opencl.def"

_Static_assert(CL_DEVICE_TYPE_ALL == 0xFFFFFFFF, "CL_DEVICE_TYPE_ALL");

// The structures, member by member.
struct image_desc {
    cl_uint image_type;
    size_t image_width, image_height, image_depth, image_array_size, image_row_pitch, image_slice_pitch;
    cl_uint num_mip_levels, num_samples;
    cl_mem buffer;
};
#define SAME(member) _Static_assert(offsetof(struct image_desc, member) == offsetof(cl_image_desc, member), #member)
SAME(image_type);
SAME(image_width);
SAME(image_height);
SAME(image_row_pitch);
SAME(num_samples);
SAME(buffer);
_Static_assert(sizeof(struct image_desc) == sizeof(cl_image_desc), "cl_image_desc");
_Static_assert(offsetof(cl_image_format, image_channel_order) == 0 &&
                   offsetof(cl_image_format, image_channel_data_type) == 4,
               "cl_image_format");
_Static_assert(offsetof(cl_buffer_region, origin) == 0 && offsetof(cl_buffer_region, size) == sizeof(size_t),
               "cl_buffer_region");

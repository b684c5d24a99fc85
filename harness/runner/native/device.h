// Finding libraries and choosing a device: `--library`, `--device`, `--list`.
#ifndef KILN_DEVICE_H
#define KILN_DEVICE_H

#include <stdbool.h>

#include "bytes.h"
#include "opencl.h"

enum { MAX_LIBRARIES = 32 };

struct choice {
    const char *libraries[MAX_LIBRARIES]; // of --library; none = the usual places
    int count;
    const char *device; // a number, a selector or a part of "platform / device"; NULL = the first
};

// Open the first library that has the device, and have `cl` hold its functions. False with what was tried in `why`.
bool device_choose(const struct choice *choice, cl_platform_id *platform, cl_device_id *device, struct bytes *why);
// The libraries to try, in their order; of the usual places those that are files or bare names.
int device_libraries(const struct choice *choice, const char *to[MAX_LIBRARIES]);
// Call `visit` for each device of an open library until it returns true. `seen` collects the selectors, NUL by NUL.
typedef bool (*device_visitor)(void *arg, cl_platform_id platform, cl_device_id device, const char *selector);
bool device_each(const struct library *library, struct bytes *seen, device_visitor visit, void *arg, struct bytes *why);

// list.c: print all devices of all libraries as `python -m harness.runner --list` does; false where stdout takes
// nothing.
bool device_list(const struct choice *choice, int out);

// What a device says of itself, as the members of the protocol's "device" without their braces
// (harness/runner/describe.py documents each).
void describe(cl_platform_id platform, cl_device_id device, struct bytes *out);
bool device_has(cl_device_id device, const char *extension);
// A string of a device or platform, without the spaces around it; to be freed; never NULL unless out of memory.
char *device_string(cl_device_id device, cl_uint what);
char *platform_string(cl_platform_id platform, cl_uint what);

// Of this machine's processor (Linux): bytes of its last-level caches, and floats of its widest vector registers.
long long cpu_cache_bytes(void);
int cpu_vector_floats(int reported);

#endif

#include "device.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Where OpenCL lives. Android first: these paths exist nowhere else, and a phone has no ICD loader.
static const char *const PLACES[] = {
    "/vendor/lib64/libOpenCL.so", // Qualcomm Adreno, most others
    "/vendor/lib64/libOpenCL_adreno.so",
    "/system/vendor/lib64/libOpenCL.so",
    "/vendor/lib64/egl/libGLES_mali.so", // Arm Mali: OpenCL is in the one big library
    "/system/vendor/lib64/egl/libGLES_mali.so",
    "/vendor/lib64/libPVROCL.so", // Imagination
    "/system/lib64/libOpenCL.so",
    "libOpenCL.so.1", // an ICD loader, by the dynamic linker's own search
    "libOpenCL.so",
    "/usr/lib/aarch64-linux-gnu/libmali.so.1", // boards: Rockchip, Amlogic, Odroid
    "/usr/lib/aarch64-linux-gnu/libmali.so",
    "/usr/lib/libmali.so",
    "/usr/lib/aarch64-linux-gnu/libpocl.so.2", // Debian's PoCL, where no loader is installed
    "/usr/lib/x86_64-linux-gnu/libpocl.so.2",
};
static const char ENVIRONMENT[] = "KILN_OPENCL_LIBRARIES"; // set by harness/child.py: what PyPI brought

int device_libraries(const struct choice *choice, const char *to[MAX_LIBRARIES]) {
    int count = 0;
    for (int i = 0; i < choice->count && count < MAX_LIBRARIES; i++) to[count++] = choice->libraries[i];
    if (count) return count;
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++)
        if (PLACES[i][0] != '/' || access(PLACES[i], F_OK) == 0) to[count++] = PLACES[i];
    const char *more = getenv(ENVIRONMENT);
    char *list = more ? strdup(more) : NULL, *left = NULL; // kept: the paths point into it
    for (char *path = list ? strtok_r(list, ":", &left) : NULL; path && count < MAX_LIBRARIES;
         path = strtok_r(NULL, ":", &left))
        to[count++] = path;
    return count;
}

// "platform|device", with "|2" behind the second of two with one name; NULL where memory ends.
static char *selector_of(cl_platform_id platform, cl_device_id device, const struct bytes *before) {
    char *of = platform_string(platform, CL_PLATFORM_NAME), *name = device_string(device, CL_DEVICE_NAME);
    struct bytes text = {0};
    for (int count = 1; of && name; count++) {
        text.size = 0;
        bytes_printf(&text, "%s|%s", of, name);
        if (count > 1) bytes_printf(&text, "|%d", count);
        bool taken = false;
        for (size_t at = 0; at < before->size && !taken; at += strlen(before->data + at) + 1)
            taken = strcmp(before->data + at, text.data ? text.data : "") == 0;
        if (!taken) break;
    }
    free(of);
    free(name);
    return text.data;
}

static bool contains(const char *text, const char *part) {
    size_t size = strlen(part);
    for (; *text; text++) {
        size_t i = 0;
        while (i < size && text[i] && tolower((unsigned char)text[i]) == tolower((unsigned char)part[i])) i++;
        if (i == size) return true;
    }
    return size == 0;
}

static bool means(const char *wanted, int number, const char *selector) {
    if (!wanted) return number == 0;
    if (*wanted && strspn(wanted, "0123456789") == strlen(wanted)) return atoi(wanted) == number;
    char shown[512]; // as --device ocl:SUBSTRING has it: "platform / device"
    const char *bar = strchr(selector, '|');
    snprintf(shown, sizeof shown, "%.*s / %s", (int)(bar - selector), selector, bar + 1);
    return strcmp(wanted, selector) == 0 || contains(shown, wanted);
}

bool device_each(const struct library *library, struct bytes *seen, device_visitor visit, void *arg,
                 struct bytes *why) {
    for (cl_uint p = 0; p < library->count; p++) {
        cl_platform_id platform = library->platforms[p];
        char said[300];
        if (!library_use(library, platform, said, sizeof said)) {
            bytes_printf(why, "%s; ", said);
            continue;
        }
        cl_device_id devices[64];
        cl_uint count = 0;
        cl_int status = cl.GetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 64, devices, &count);
        if (status != CL_SUCCESS) {
            bytes_printf(why, "%s shows no device: %s; ", library->path, cl_error(status));
            continue;
        }
        for (cl_uint d = 0; d < count && d < 64; d++) {
            char *selector = selector_of(platform, devices[d], seen);
            if (!selector) continue;
            bytes_append(seen, selector, strlen(selector) + 1);
            bool found = visit(arg, platform, devices[d], selector);
            free(selector);
            if (found) return true;
        }
    }
    return false;
}

struct search {
    const char *wanted;
    int number;
    cl_platform_id platform;
    cl_device_id device;
    struct bytes *why;
};

static bool look(void *arg, cl_platform_id platform, cl_device_id device, const char *selector) {
    struct search *search = arg;
    search->platform = platform;
    search->device = device;
    if (means(search->wanted, search->number++, selector)) return true;
    bytes_printf(search->why, "%s is here; ", selector);
    return false;
}

bool device_choose(const struct choice *choice, cl_platform_id *platform, cl_device_id *device, struct bytes *why) {
    const char *paths[MAX_LIBRARIES];
    int count = device_libraries(choice, paths);
    struct search search = {.wanted = choice->device, .why = why};
    struct bytes seen = {0};
    bool found = false;
    for (int i = 0; i < count && !found; i++) {
        struct library library;
        char said[600];
        if (!library_open(&library, paths[i], said, sizeof said)) {
            bytes_printf(why, "%s; ", said);
        } else {
            found = device_each(&library, &seen, look, &search, why);
        }
    }
    bytes_free(&seen);
    if (why->size > 2) why->size -= 2; // the last "; "
    bytes_append(why, "", 1);
    *platform = search.platform;
    *device = search.device;
    return found;
}

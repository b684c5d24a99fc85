#include "device.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "frame.h"

// Where OpenCL lives. Android first: these paths exist nowhere else, and a phone has no ICD loader.
static const char *const PLACES[] = {
    "/vendor/lib64/libOpenCL.so",              // Qualcomm Adreno, most others
    "/vendor/lib64/libOpenCL_adreno.so",
    "/system/vendor/lib64/libOpenCL.so",
    "/vendor/lib64/egl/libGLES_mali.so",       // Arm Mali: OpenCL is in the one big library
    "/system/vendor/lib64/egl/libGLES_mali.so",
    "/vendor/lib64/libPVROCL.so",              // Imagination
    "/system/lib64/libOpenCL.so",
    "libOpenCL.so.1",                          // an ICD loader, by the dynamic linker's own search
    "libOpenCL.so",
    "/usr/lib/aarch64-linux-gnu/libmali.so.1", // boards: Rockchip, Amlogic, Odroid
    "/usr/lib/aarch64-linux-gnu/libmali.so",
    "/usr/lib/libmali.so",
    "/usr/lib/aarch64-linux-gnu/libpocl.so.2", // Debian's PoCL, where no loader is installed
    "/usr/lib/x86_64-linux-gnu/libpocl.so.2",
};
static const char ENVIRONMENT[] = "KILN_OPENCL_LIBRARIES"; // set by harness/child.py: what PyPI brought

// The libraries to try, in their order; of the usual places those that are files or bare names.
static int candidates(const struct choice *choice, const char *to[MAX_LIBRARIES]) {
    int count = 0;
    for (int i = 0; i < choice->count && count < MAX_LIBRARIES; i++) to[count++] = choice->libraries[i];
    if (count) return count;
    for (size_t i = 0; i < sizeof PLACES / sizeof *PLACES; i++)
        if (PLACES[i][0] != '/' || access(PLACES[i], F_OK) == 0) to[count++] = PLACES[i];
    const char *more = getenv(ENVIRONMENT);
    char *list = more ? strdup(more) : NULL, *left = NULL; // kept: the paths point into it
    for (char *path = list ? strtok_r(list, ":", &left) : NULL; path && count < MAX_LIBRARIES; path = strtok_r(NULL, ":", &left))
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

typedef bool (*visitor)(void *arg, cl_platform_id platform, cl_device_id device, const char *selector);

// Call `visit` for each device of an open library until it returns true. `seen` collects the selectors, NUL by NUL.
static bool each_device(const struct library *library, struct bytes *seen, visitor visit, void *arg, struct bytes *why) {
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
    int count = candidates(choice, paths);
    struct search search = {.wanted = choice->device, .why = why};
    struct bytes seen = {0};
    bool found = false;
    for (int i = 0; i < count && !found; i++) {
        struct library library;
        char said[600];
        if (!library_open(&library, paths[i], said, sizeof said)) {
            bytes_printf(why, "%s; ", said);
        } else {
            found = each_device(&library, &seen, look, &search, why);
        }
    }
    bytes_free(&seen);
    if (why->size > 2) why->size -= 2; // the last "; "
    bytes_append(why, "", 1);
    *platform = search.platform;
    *device = search.device;
    return found;
}

// ---------------------------------------------------------------- --list

static bool print(void *arg, cl_platform_id platform, cl_device_id device, const char *selector) {
    struct bytes *out = arg;
    bytes_text(out, out->size ? ",{\"selector\":" : "{\"selector\":");
    json_text(out, selector);
    bytes_text(out, ",");
    describe(platform, device, out);
    bytes_text(out, "}");
    return false;
}

static void missing(struct bytes *out, const char *what) {
    bytes_text(out, out->size ? ",{\"what\":" : "{\"what\":");
    json_text(out, what);
    bytes_text(out, ",\"remedy\":");
    json_text(out, "give the path of the device's OpenCL library with --library, or install its driver");
    bytes_text(out, "}");
}

// In a process of its own, since a driver may crash already here. Two bytes runs, each with its length before it.
static void list_one(const char *path, int out) {
    struct library library;
    struct bytes devices = {0}, seen = {0}, why = {0};
    char said[600];
    if (library_open(&library, path, said, sizeof said)) {
        each_device(&library, &seen, print, &devices, &why);
    } else {
        bytes_text(&why, said);
    }
    bytes_append(&why, "", 1);
    struct bytes note = {0};
    bytes_text(&note, library.note ? library.note : "");
    struct bytes *parts[] = {&devices, &seen, &why, &note};
    for (int i = 0; i < 4; i++)
        if (!write_all(out, &parts[i]->size, sizeof parts[i]->size) || !write_all(out, parts[i]->data, parts[i]->size))
            break;
}

static bool receive(int fd, struct bytes parts[4]) {
    struct source *source = calloc(1, sizeof *source);
    bool all = source != NULL;
    if (source) source->fd = fd;
    for (int i = 0; i < 4 && all; i++) {
        size_t size = 0;
        all = source_read(source, &size, sizeof size);
        char *room = all ? bytes_reserve(&parts[i], size + 1) : NULL;
        all = room && source_read(source, room, size);
        if (all) room[size] = '\0';
        if (all) parts[i].size = size;
    }
    free(source);
    return all;
}

static void file_stem(const char *path, char *stem, size_t size) {
    const char *base = strrchr(path, '/');
    snprintf(stem, size, "%s", base ? base + 1 : path);
    if (strncmp(stem, "lib", 3) == 0) memmove(stem, stem + 3, strlen(stem) - 2);
    stem[strcspn(stem, ".-_")] = '\0';
}

static void add_driver(struct bytes *out, const char *path, const char *note) {
    char stem[64];
    file_stem(path, stem, sizeof stem);
    bytes_text(out, out->size ? ",{\"name\":" : "{\"name\":");
    json_text(out, stem);
    bytes_text(out, ",\"library\":");
    json_text(out, path);
    bytes_text(out, ",\"origin\":");
    json_text(out, path);
    bytes_text(out, ",\"note\":");
    json_text(out, note);
    bytes_text(out, "}");
}

// Whether all the devices of a library were seen before: a loader shows what its drivers show by themselves.
static bool news(const struct bytes *seen, const struct bytes *all) {
    for (size_t at = 0; at < seen->size; at += strlen(seen->data + at) + 1) {
        bool known = false;
        for (size_t i = 0; i < all->size && !known; i += strlen(all->data + i) + 1)
            known = strcmp(all->data + i, seen->data + at) == 0;
        if (!known) return true;
    }
    return false;
}

bool device_list(const struct choice *choice, int out) {
    const char *paths[MAX_LIBRARIES];
    int count = candidates(choice, paths);
    struct bytes drivers = {0}, absent = {0}, devices = {0}, all = {0}, line = {0};
    for (int i = 0; i < count; i++) {
        int ends[2];
        if (pipe(ends) != 0) return false;
        pid_t child = fork();
        if (child == 0) {
            close(ends[0]);
            list_one(paths[i], ends[1]);
            _exit(0);
        }
        close(ends[1]);
        struct bytes parts[4] = {{0}, {0}, {0}, {0}};
        bool heard = child > 0 && receive(ends[0], parts);
        close(ends[0]);
        int status = 0;
        while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
        if (!heard) {
            char what[600];
            snprintf(what, sizeof what, "%s ended its process when its devices were listed (%s)", paths[i],
                     WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "no signal");
            missing(&absent, what);
        } else if (parts[0].size == 0) {
            missing(&absent, parts[2].size > 1 ? parts[2].data : "a library without devices");
        } else if (news(&parts[1], &all)) {
            add_driver(&drivers, paths[i], parts[3].data);
            if (devices.size) bytes_text(&devices, ",");
            bytes_append(&devices, parts[0].data, parts[0].size);
            bytes_append(&all, parts[1].data, parts[1].size);
        }
        for (int k = 0; k < 4; k++) bytes_free(&parts[k]);
    }
    struct bytes *parts[] = {&drivers, &absent, &devices};
    static const char *const before[] = {"{\"runtimes\":{\"drivers\":[", "],\"missing\":[", "]},\"devices\":["};
    for (int i = 0; i < 3; i++) {
        bytes_text(&line, before[i]);
        bytes_append(&line, parts[i]->data, parts[i]->size);
    }
    bytes_text(&line, "]}\n");
    bool written = !line.failed && write_all(out, line.data, line.size);
    bytes_free(&drivers);
    bytes_free(&absent);
    bytes_free(&devices);
    bytes_free(&all);
    bytes_free(&line);
    return written;
}

// `--list`: every device of every library, each library in a process of its own.
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device.h"
#include "frame.h"

enum { LIST_S = 30 };  // for one library; the host waits a minute for them all

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
        device_each(&library, &seen, print, &devices, &why);
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
    int count = device_libraries(choice, paths);
    struct bytes drivers = {0}, absent = {0}, devices = {0}, all = {0}, line = {0};
    for (int i = 0; i < count; i++) {
        int ends[2];
        if (pipe(ends) != 0) return false;
        pid_t child = fork();
        if (child == 0) {
            // Nobody waits for a driver that hangs: the parent may be gone, its link cut, before it is done.
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            alarm(LIST_S);
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

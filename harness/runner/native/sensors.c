#include "sensors.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The names in a folder, one a line, sorted.
static int list_folder(const char *path, struct bytes *text, size_t limit) {
    struct dirent **names = NULL;
    int count = scandir(path, &names, NULL, alphasort);
    if (count < 0) return errno;
    for (int i = 0; i < count; i++) {
        bool own = strcmp(names[i]->d_name, ".") == 0 || strcmp(names[i]->d_name, "..") == 0;
        if (!own && text->size + strlen(names[i]->d_name) < limit) bytes_printf(text, "%s\n", names[i]->d_name);
        free(names[i]);
    }
    free(names);
    return 0;
}

int read_text(const char *path, struct bytes *text, size_t limit) {
    if (*path && path[strlen(path) - 1] == '/') return list_folder(path, text, limit);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), wrong = 0;
    if (fd < 0) return errno;
    while (text->size < limit && !wrong) {
        size_t want = limit - text->size < 4096 ? limit - text->size : 4096;
        char *end = bytes_reserve(text, want);
        ssize_t count = end ? read(fd, end, want) : -1;
        if (count > 0) text->size += (size_t)count;
        if (count == 0) break;
        if (count < 0 && (!end || errno != EINTR)) wrong = end ? errno : ENOMEM;
    }
    close(fd);
    return wrong;
}

// Files that a pattern below `root` matches, in glob's order, which is sorted by name; to be freed with globfree.
static size_t find(const char *root, const char *pattern, glob_t *found) {
    char path[512];
    snprintf(path, sizeof path, "%s%s", root, pattern);
    if (glob(path, 0, NULL, found) == 0) return found->gl_pathc;
    memset(found, 0, sizeof *found);
    return 0;
}

static int read_number(const char *path, double *value) {
    struct bytes text = {0};
    int wrong = read_text(path, &text, 64);
    bytes_append(&text, "", 1);
    char *end = text.data;
    if (!wrong && text.data) *value = strtod(text.data, &end);
    if (!wrong && end == text.data) wrong = EINVAL;
    bytes_free(&text);
    return wrong;
}

// The mean of numbers in the files of a pattern, scaled; false with a reason.
static bool mean(const char *root, const char *pattern, double scale, bool sum, double *value, char *why,
                 const char *absent) {
    glob_t found;
    size_t count = find(root, pattern, &found), read = 0;
    double all = 0;
    int wrong = 0;
    for (size_t i = 0; i < count && !wrong; i++) {
        double one = 0;
        wrong = read_number(found.gl_pathv[i], &one);
        if (wrong) snprintf(why, 160, "%s: %s", found.gl_pathv[i], strerror(wrong));
        all += one;
        read++;
    }
    globfree(&found);
    if (count == 0) snprintf(why, 160, "%s", absent);
    *value = read ? all * scale / (sum ? 1.0 : (double)read) : 0;
    return count > 0 && !wrong;
}

// Lines of a file below root that begin with `prefix`: the mean of the numbers behind it and a colon.
static bool line_number(const char *root, const char *file, const char *prefix, double scale, double *value,
                        char *why) {
    char path[512];
    struct bytes text = {0};
    snprintf(path, sizeof path, "%s%s", root, file);
    int wrong = read_text(path, &text, 4 << 20);
    bytes_append(&text, "", 1);
    double all = 0;
    int count = 0;
    for (char *left = NULL, *line = wrong ? NULL : strtok_r(text.data, "\n", &left); line;
         line = strtok_r(NULL, "\n", &left)) {
        const char *colon = strncmp(line, prefix, strlen(prefix)) == 0 ? strchr(line, ':') : NULL;
        if (!colon) continue;
        all += strtod(colon + 1, NULL);
        count++;
    }
    bytes_free(&text);
    if (wrong) {
        snprintf(why, 160, "%s: %s", file, strerror(wrong));
    } else if (!count) {
        snprintf(why, 160, "%s has no %s", file, prefix);
    }
    *value = count ? all / count * scale : 0;
    return count > 0;
}

static bool cpu_clock(const char *root, double *value, char *why) {
    char none[] = "";
    if (mean(root, "/sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq", 1e-3, false, value, why, none))
        return true;
    if (why[0]) return false; // there, and unreadable
    if (line_number(root, "/proc/cpuinfo", "cpu MHz", 1, value, why)) return true;
    snprintf(why, 160, "neither cpufreq nor /proc/cpuinfo tells the clock");
    return false;
}

static bool cpu_temperature(const char *root, double *value, char *why) {
    static const char *const begins[] = {"x86_pkg_temp", "cpu", "k10temp", "soc"};
    glob_t found;
    size_t count = find(root, "/sys/class/thermal/thermal_zone*", &found);
    char path[512];
    path[0] = '\0';
    for (size_t i = 0; i < count && !path[0]; i++) {
        struct bytes type = {0};
        snprintf(path, sizeof path, "%s/type", found.gl_pathv[i]);
        bool ours = false;
        if (read_text(path, &type, 100) == 0) {
            bytes_append(&type, "", 1);
            for (char *c = type.data; c && *c; c++) *c = (char)tolower((unsigned char)*c);
            for (int k = 0; k < 4; k++)
                ours = ours || (type.data && strncmp(type.data, begins[k], strlen(begins[k])) == 0);
        }
        bytes_free(&type);
        path[0] = '\0';
        if (ours) snprintf(path, sizeof path, "%s/temp", found.gl_pathv[i]);
    }
    globfree(&found);
    if (!path[0]) {
        snprintf(why, 160, "no thermal zone of the processor in /sys/class/thermal");
        return false;
    }
    int wrong = read_number(path, value);
    if (wrong) snprintf(why, 160, "%.100s: %s", path, strerror(wrong));
    *value /= 1000;
    return !wrong;
}

static bool cpu_energy(const char *root, double *value, char *why) {
    return mean(root, "/sys/class/powercap/intel-rapl:[0-9]/energy_uj", 1e-6, true, value, why,
                "no energy counter (RAPL) in /sys/class/powercap");
}

static bool rss(const char *root, double *value, char *why) {
    (void)root; // the process's own
    return line_number("", "/proc/self/status", "VmRSS:", 1024, value, why);
}

static const char KGSL[] = "/sys/class/kgsl/kgsl-3d0/";

static bool gpu_clock(const char *root, double *value, char *why) {
    char none[] = "";
    if (mean(root, "/sys/class/kgsl/kgsl-3d0/gpuclk", 1e-6, false, value, why, none)) return true;
    if (why[0]) return false;
    return mean(root, "/sys/class/misc/mali0/device/devfreq/*/cur_freq", 1e-6, false, value, why,
                "neither kgsl (Adreno) nor mali0 (Mali) tells a GPU's clock");
}

static bool gpu_temperature(const char *root, double *value, char *why) {
    return mean(root, "/sys/class/kgsl/kgsl-3d0/temp", 1e-3, false, value, why,
                "no kgsl (Adreno) tells a GPU's temperature");
}

const char *const SENSOR_NAMES[] = {
    "cpu_clock_mhz", "cpu_temperature_c", "cpu_energy_j", "rss_bytes", "gpu_clock_mhz", "gpu_temperature_c", NULL};
static bool (*const SENSORS[])(const char *, double *, char *) = {cpu_clock, cpu_temperature, cpu_energy,
                                                                  rss,       gpu_clock,       gpu_temperature};

void sensors_read(const char *root, struct readings *readings) {
    memset(readings, 0, sizeof *readings);
    for (int i = 0; SENSOR_NAMES[i]; i++) {
        bool there = SENSORS[i](root, &readings->values[i], readings->why[i]);
        if (there) readings->why[i][0] = '\0';
        if (there && readings->values[i] == 0) snprintf(readings->why[i], 160, "it reads 0");
    }
}

void sensors_write(const struct readings *readings, struct answer *answer) {
    struct bytes *out = &answer->fields;
    for (int part = 0; part < 2; part++) {
        const char *comma = "";
        bytes_text(out, part ? ",\"why\":{" : ",\"values\":{");
        for (int i = 0; SENSOR_NAMES[i]; i++) {
            bool absent = readings->why[i][0] != '\0';
            if (part && !absent) continue;
            bytes_printf(out, "%s\"%s\":", comma, SENSOR_NAMES[i]);
            comma = ",";
            if (part) {
                json_text(out, readings->why[i]);
            } else if (absent) {
                bytes_text(out, "null");
            } else {
                json_number(out, readings->values[i]);
            }
        }
        bytes_text(out, "}");
    }
}

long long gpu_resets(const char *root) {
    char path[512];
    double value = -1;
    snprintf(path, sizeof path, "%s%sreset_count", root, KGSL);
    return read_number(path, &value) == 0 && value >= 0 && value < 1e15 ? (long long)value : -1;
}

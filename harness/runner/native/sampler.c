// Files of the host's choice (sysfs, mostly), read at once or by a thread of its own at a period each. What they mean
// is the host's business. The thread keeps to the slowest core where cores differ, so that it costs the driver nothing.
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sensors.h"
#include "worker.h"

enum {
    TEXT_BYTES = 64 << 10, // of one file
    MAX_FILES = 512,
    HELD_BYTES = 8 << 20, // of samples not yet fetched; beyond it the oldest go
    HELD_SAMPLES = 1 << 16,
};

struct sample {
    struct sample *next;
    uint64_t at_ns;
    int file;
    bool read;
    size_t size;
    char text[];
};

struct watched {
    char *path;
    uint64_t period_ns, next_ns;
    int wrong; // the errno of the last reading that failed
};

static struct {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool running, stop;
    struct watched files[MAX_FILES];
    int count;
    struct sample *first, *last;
    size_t bytes, samples;
    uint64_t dropped, cpu_ns; // CPU time of the thread since `watch`
} sampler = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void why_text(struct bytes *out, int wrong) {
    const char *name = wrong == EACCES   ? "EACCES"
                       : wrong == ENOENT ? "ENOENT"
                       : wrong == EPERM  ? "EPERM"
                       : wrong == EISDIR ? "EISDIR"
                       : wrong == ENODEV ? "ENODEV"
                       : wrong == EINVAL ? "EINVAL"
                       : wrong == EAGAIN ? "EAGAIN"
                                         : "";
    char text[200];
    snprintf(text, sizeof text, "%s%s%s", name, *name ? ": " : "", strerror(wrong));
    json_text(out, text);
}

static const char *path_of(const struct json *value) {
    return value && value->type == JSON_STRING && value->size && !memchr(value->text, '\0', value->size) ? value->text
                                                                                                         : NULL;
}

bool op_read(const struct frame *frame, struct answer *answer) {
    const struct json *paths = json_get(&frame->document, frame->object, "paths");
    if (!paths || paths->type != JSON_ARRAY || paths->count > 4096)
        return refuse(answer, BAD_REQUEST, "read needs paths, a list of at most 4096");
    struct bytes why = {0};
    bytes_text(&answer->fields, ",\"texts\":[");
    const char *comma = "";
    for (const struct json *at = json_first(&frame->document, paths); at;
         at = json_next(&frame->document, at), comma = ",") {
        struct bytes text = {0};
        const char *path = path_of(at);
        int wrong = path ? read_text(path, &text, TEXT_BYTES) : EINVAL;
        bytes_text(&answer->fields, comma);
        bytes_text(&why, comma);
        if (wrong) {
            bytes_text(&answer->fields, "null");
            why_text(&why, wrong);
        } else {
            json_string(&answer->fields, text.data, text.size);
            bytes_text(&why, "null");
        }
        bytes_free(&text);
    }
    bytes_text(&answer->fields, "],\"why\":[");
    bytes_append(&answer->fields, why.data, why.size);
    bytes_text(&answer->fields, "]");
    bytes_free(&why);
    return true;
}

// ---------------------------------------------------------------- the thread

static void keep_to_a_little_core(void) {
    long slowest = 0, fastest = 0;
    cpu_set_t all, little;
    CPU_ZERO(&all);
    CPU_ZERO(&little);
    if (sched_getaffinity(0, sizeof all, &all) != 0) return;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        char path[128];
        struct bytes text = {0};
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cpufreq/cpuinfo_max_freq", cpu);
        if (!CPU_ISSET(cpu, &all) || read_text(path, &text, 32) != 0) continue;
        bytes_append(&text, "", 1);
        long clock = text.data ? atol(text.data) : 0;
        bytes_free(&text);
        if (clock > fastest) fastest = clock;
        if (slowest == 0 || clock < slowest) {
            slowest = clock;
            CPU_ZERO(&little);
        }
        if (clock == slowest) CPU_SET(cpu, &little);
    }
    if (slowest < fastest) sched_setaffinity(0, sizeof little, &little); // of this thread alone
}

static void keep(struct sample *sample) { // the lock is held
    sample->next = NULL;
    if (sampler.last) {
        sampler.last->next = sample;
    } else {
        sampler.first = sample;
    }
    sampler.last = sample;
    sampler.bytes += sizeof *sample + sample->size;
    sampler.samples++;
    while (sampler.bytes > HELD_BYTES || sampler.samples > HELD_SAMPLES) {
        struct sample *oldest = sampler.first;
        sampler.first = oldest->next;
        if (!sampler.first) sampler.last = NULL;
        sampler.bytes -= sizeof *oldest + oldest->size;
        sampler.samples--;
        sampler.dropped++;
        free(oldest);
    }
}

static void take(int file) { // the lock is held, and given up while the file is read
    struct bytes text = {0};
    char *path = strdup(sampler.files[file].path);
    pthread_mutex_unlock(&sampler.lock);
    int wrong = path ? read_text(path, &text, TEXT_BYTES) : ENOMEM;
    uint64_t at = now_ns();
    free(path);
    pthread_mutex_lock(&sampler.lock);
    struct sample *sample = sampler.stop ? NULL : malloc(sizeof *sample + text.size);
    if (sample) {
        *sample = (struct sample){.at_ns = at, .file = file, .read = !wrong, .size = wrong ? 0 : text.size};
        if (sample->size) memcpy(sample->text, text.data, sample->size);
        keep(sample);
        sampler.files[file].wrong = wrong;
    }
    bytes_free(&text);
    struct timespec spent;
    if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent) == 0)
        sampler.cpu_ns = (uint64_t)spent.tv_sec * 1000000000u + (uint64_t)spent.tv_nsec;
}

static void *run(void *arg) {
    (void)arg;
    keep_to_a_little_core();
    pthread_mutex_lock(&sampler.lock);
    while (!sampler.stop) {
        uint64_t now = now_ns(), next = UINT64_MAX;
        for (int i = 0; i < sampler.count && !sampler.stop; i++) {
            struct watched *file = &sampler.files[i];
            if (file->next_ns <= now) {
                take(i);
                file->next_ns += file->period_ns;
                if (file->next_ns <= now) file->next_ns = now + file->period_ns; // it was late by more than a period
            }
            if (file->next_ns < next) next = file->next_ns;
        }
        struct timespec until = {(time_t)(next / 1000000000u), (long)(next % 1000000000u)};
        while (!sampler.stop && now_ns() < next && pthread_cond_timedwait(&sampler.changed, &sampler.lock, &until) == 0)
            continue;
    }
    pthread_mutex_unlock(&sampler.lock);
    return NULL;
}

static void stop(void) {
    if (sampler.running) {
        pthread_mutex_lock(&sampler.lock);
        sampler.stop = true;
        pthread_cond_signal(&sampler.changed);
        pthread_mutex_unlock(&sampler.lock);
        pthread_join(sampler.thread, NULL);
        pthread_cond_destroy(&sampler.changed);
    }
    sampler.running = sampler.stop = false;
    for (int i = 0; i < sampler.count; i++) free(sampler.files[i].path);
    sampler.count = 0;
    for (struct sample *at = sampler.first, *next; at; at = next) {
        next = at->next;
        free(at);
    }
    sampler.first = sampler.last = NULL;
    sampler.bytes = sampler.samples = 0;
    sampler.dropped = sampler.cpu_ns = 0;
}

static bool start(void) {
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&sampler.changed, &clock);
    pthread_condattr_destroy(&clock);
    sampler.running = pthread_create(&sampler.thread, NULL, run, NULL) == 0;
    if (!sampler.running) pthread_cond_destroy(&sampler.changed);
    return sampler.running;
}

bool op_watch(const struct frame *frame, struct answer *answer) {
    const struct json *files = json_get(&frame->document, frame->object, "files");
    if (!files || files->type != JSON_ARRAY || files->count > MAX_FILES)
        return refuse(answer, BAD_REQUEST, "watch needs files, a list of at most %d", MAX_FILES);
    stop();
    uint64_t now = now_ns();
    for (const struct json *at = json_first(&frame->document, files); at; at = json_next(&frame->document, at)) {
        const char *path = path_of(json_get(&frame->document, at, "path"));
        const struct json *period = json_get(&frame->document, at, "period_ms");
        bool good = path && period && period->type == JSON_NUMBER && period->number >= 1 && period->number <= 3600e3;
        char *kept = good ? strdup(path) : NULL;
        if (!kept) {
            stop();
            return refuse(answer, BAD_REQUEST, "a file to watch has a path and a period_ms of 1 to 3600000");
        }
        sampler.files[sampler.count++] = (struct watched){kept, (uint64_t)(period->number * 1e6), now, 0};
    }
    if (sampler.count && !start()) return refuse(answer, OUT_OF_RESOURCES, "no thread can be started");
    bytes_printf(&answer->fields, ",\"clock_ns\":%" PRIu64, now);
    return true;
}

bool op_watched(struct answer *answer) {
    pthread_mutex_lock(&sampler.lock);
    struct sample *samples = sampler.first;
    uint64_t dropped = sampler.dropped;
    sampler.first = sampler.last = NULL;
    sampler.bytes = sampler.samples = 0;
    sampler.dropped = 0;
    struct bytes *out = &answer->fields;
    const char *comma = "";
    bytes_printf(out, ",\"clock_ns\":%" PRIu64 ",\"why\":{", now_ns());
    for (int i = 0; i < sampler.count; i++) {
        if (!sampler.files[i].wrong) continue;
        bytes_printf(out, "%s\"%d\":", comma, i);
        why_text(out, sampler.files[i].wrong);
        comma = ",";
    }
    uint64_t cpu_ns = sampler.cpu_ns;
    pthread_mutex_unlock(&sampler.lock);
    bytes_printf(out, "},\"dropped\":%" PRIu64 ",\"cpu_ns\":%" PRIu64 ",\"samples\":[", dropped, cpu_ns);
    comma = "";
    for (struct sample *at = samples, *next; at; at = next, comma = ",") {
        next = at->next;
        bytes_printf(out, "%s[%" PRIu64 ",%d,", comma, at->at_ns, at->file);
        if (at->read) {
            json_string(out, at->text, at->size);
        } else {
            bytes_text(out, "null");
        }
        bytes_text(out, "]");
        free(at);
    }
    bytes_text(out, "]");
    return true;
}

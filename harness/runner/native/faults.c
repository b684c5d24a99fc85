#include "faults.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const double CREEP = 0.05; // of a sample's time that each sample under `drift` is longer than the one before
static const double CLOCK_MHZ = 3000;
static const char *const FAULTS[] = {
    "exit",      "segfault", "abort",    "hang", "garbage", "truncate",         "wrong_result", "nan",
    "backwards", "drift",    "throttle", "leak", "leave",   "out_of_resources", "poisoned",     NULL};

bool op_inject(struct faults *faults, struct request *request, struct answer *answer) {
    const struct frame *frame = request->frame;
    const struct json *fault = json_get(&frame->document, frame->object, "fault");
    const struct json *on = json_get(&frame->document, frame->object, "on");
    const struct json *lasting = json_get(&frame->document, frame->object, "lasting");
    const char *name = "";
    for (int i = 0; fault && FAULTS[i]; i++)
        if (json_is(fault, FAULTS[i])) name = FAULTS[i];
    if (fault && !*name)
        return refuse(answer, BAD_REQUEST, "unknown fault %s", fault->text ? fault->text : "of another type");
    int64_t after = 1;
    if (!frame_integer(frame, frame->object, "after", 1, &after))
        return refuse(answer, BAD_REQUEST, "after is a whole number");
    faults->left = after ? after : 1;
    faults->lasting = lasting && lasting->type == JSON_BOOL && lasting->truth;
    faults->slower = 1;
    snprintf(faults->fault, sizeof faults->fault, "%s", name);
    snprintf(faults->on, sizeof faults->on, "%s", on && on->type == JSON_STRING && on->size ? on->text : "run");
    return true;
}

const char *fault_due(struct faults *faults, const char *op, char due[24]) {
    due[0] = '\0';
    bool here = strcmp(op, faults->on) == 0 || (strcmp(faults->fault, "throttle") == 0 && strcmp(op, "sensors") == 0);
    if (!faults->fault[0] || !here || --faults->left > 0) return due;
    memcpy(due, faults->fault, sizeof faults->fault);
    if (!faults->lasting) faults->fault[0] = '\0';
    return due;
}

bool fault_before(const char *fault, int to, struct answer *answer) {
    if (strcmp(fault, "exit") == 0) _exit(7);
    if (strcmp(fault, "segfault") == 0) {
        // A driver's handler shrugs off one that raise() sends, and a sanitizer would report it instead.
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
    if (strcmp(fault, "abort") == 0) {
        static const char words[] = "LLVM ERROR: injected\n";
        write_all(2, words, sizeof words - 1);
        abort();
    }
    while (strcmp(fault, "hang") == 0) pause();
    if (strcmp(fault, "garbage") == 0) write_all(to, "\x00\xffnot a frame, and long enough\n", 31);
    if (strcmp(fault, "truncate") == 0) {
        write_all(to, "NLIK\0", 5);
        _exit(0);
    }
    if (strcmp(fault, "out_of_resources") == 0) return refuse(answer, OUT_OF_RESOURCES, "injected");
    if (strcmp(fault, "poisoned") == 0) {
        refuse(answer, LAUNCH_FAILED, "injected");
        answer->fatal = true;
        return false;
    }
    return true;
}

// A number or two are wrong (fp16 or fp32, whatever fits), where the margins of a guarded buffer are not.
void fault_blob(const char *fault, struct answer *answer) {
    bool nan = strcmp(fault, "nan") == 0;
    if (!answer->blob || (!nan && strcmp(fault, "wrong_result") != 0)) return;
    size_t at = answer->blob_size / 2 & ~(size_t)3, width = answer->blob_size % 4 ? 2 : 4;
    for (size_t i = at; i < at + width && i < answer->blob_size; i++)
        answer->blob[i] = nan ? (char)((i - at) % 2 ? 0x7f : 0xff) : (char)~answer->blob[i];
}

void fault_times(struct faults *faults, const char *fault, struct times *times) {
    bool backwards = strcmp(fault, "backwards") == 0;
    if (!times->profile || (!backwards && strcmp(fault, "drift") != 0 && strcmp(fault, "throttle") != 0)) return;
    for (uint32_t i = 0; i < times->samples; i++) {
        uint64_t *sample = &times->stamps[4 * (size_t)i * times->launches], begin = times->launches ? sample[2] : 0;
        for (uint32_t k = 0; k < times->launches; k++) {
            uint64_t *stamps = &sample[4 * k];
            if (backwards) {
                const uint64_t old[4] = {stamps[3], stamps[2], stamps[1], stamps[0]};
                memcpy(stamps, old, sizeof old);
                continue;
            }
            for (int s = 2; s < 4; s++) stamps[s] = begin + (uint64_t)(faults->slower * (double)(stamps[s] - begin));
        }
        if (!backwards) faults->slower += CREEP;
    }
}

void fault_readings(struct faults *faults, const char *fault, struct readings *readings) {
    bool leak = strcmp(fault, "leak") == 0, throttle = strcmp(fault, "throttle") == 0;
    if (leak) faults->leaked += 1 << 30;
    for (int i = 0; SENSOR_NAMES[i]; i++) {
        if (leak && strcmp(SENSOR_NAMES[i], "rss_bytes") == 0) readings->values[i] += faults->leaked;
        if (throttle && strcmp(SENSOR_NAMES[i], "cpu_clock_mhz") == 0) {
            readings->values[i] = CLOCK_MHZ / faults->slower;
            readings->why[i][0] = '\0';
        }
    }
}

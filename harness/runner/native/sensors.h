// Sensors of the machine that the runner is on, and files of the host's choice read now or by and by.
#ifndef KILN_SENSORS_H
#define KILN_SENSORS_H

#include "answer.h"
#include "frame.h"

// Numbers below `root` ("" = the machine's own), each or the reason why there is none (never 0).
struct readings {
    double values[8];
    char why[8][160]; // "" = there is a value
};
extern const char *const SENSOR_NAMES[]; // ends with NULL; at most 8
void sensors_read(const char *root, struct readings *readings);
void sensors_write(const struct readings *readings, struct answer *answer);
// How often the GPU was reset (Adreno's kgsl counts it); -1 where nothing tells.
long long gpu_resets(const char *root);

// sampler.c: `read`, `watch` and `watched` of the protocol.
bool op_read(const struct frame *frame, struct answer *answer);
bool op_watch(const struct frame *frame, struct answer *answer);
bool op_watched(struct answer *answer);

// A small text file, at most `limit` bytes, or the names in a folder (a path that ends in /); 0, or the errno why not.
int read_text(const char *path, struct bytes *text, size_t limit);

#endif

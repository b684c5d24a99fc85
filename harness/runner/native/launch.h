// Launches of a run with every argument made, once per turn of the rotation.
#ifndef KILN_LAUNCH_H
#define KILN_LAUNCH_H

#include "worker.h"

// Stands in for an image where buffers cannot be seen as images (see harness/runner/texels.py for the form).
struct texels {
    cl_mem source, made;
    size_t width, height;
    int channels;
    cl_uint type; // CL_UNSIGNED_INT32, …
};

struct part { // an argument in one turn
    cl_mem mem;
    bool owned;            // a region, an image or texels: released after the run
    struct texels *texels; // or NULL
    cl_mem region;         // what an image or texels look at, where that is not the whole buffer
};

struct argument {
    bool plain; // an int or a float, the same in each turn
    unsigned char value[4];
    struct part *parts; // per turn
};

struct launch {
    struct kernel *kernel;
    cl_uint dims;
    bool has_local, shared; // another launch uses the same kernel object
    size_t global[3], local[3];
    cl_uint count;
    struct argument *args;
};

struct sequence {
    struct device *device;
    uint32_t count;
    int turns;
    uint64_t parts; // arguments times turns, all launches together
    struct launch *launches;
    bool texels; // some launch has them
    const char **rotated;
    int rotated_count;
};

// Read and make all of a request's launches. False with a refusal; to be freed either way.
bool sequence_bind(struct sequence *sequence, struct request *request, struct answer *answer);
void sequence_free(struct sequence *sequence);
// Set the arguments that turn `turn` needs, and make its texels; then enqueue.
bool launch_enqueue(const struct sequence *sequence, const struct launch *launch, int turn, cl_command_queue queue,
                    const cl_event *gate, cl_event *event, uint64_t *host, struct answer *answer);

// images.c: a view of a buffer as an image or texels, in one turn.
bool image_make(struct device *device, struct request *request, const struct json *view, struct resident *buffer,
                cl_mem copy, struct part *part, struct answer *answer);
bool region_make(struct resident *buffer, cl_mem copy, int64_t offset, int64_t size, cl_mem *region,
                 struct answer *answer);
bool texels_make(const struct texels *texels, cl_command_queue queue, struct answer *answer);

#endif

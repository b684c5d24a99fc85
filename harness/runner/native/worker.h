// The process that touches the driver: one device, what is resident on it, and the protocol's operations.
#ifndef KILN_WORKER_H
#define KILN_WORKER_H

#include <stdbool.h>
#include <stdint.h>

#include "answer.h"
#include "device.h"
#include "frame.h"
#include "opencl.h"

struct options {
    struct choice choice;
    const char *priority, *performance; // hints: low, normal, high, or NULL
    bool inject;                        // accept requests for faults
    const char *sys;                    // sensors are read below this folder; "" = where they are
};

// A request at work: its frame, and its first blob as far as it has been taken.
struct request {
    const struct frame *frame;
    struct source *source;
    bool has_blob;
    uint64_t blob_size; // of the first blob
    uint64_t taken;     // bytes of all blobs; the rest is skipped before the answer
    bool broken;        // the input ended in the middle of a blob: nobody waits for an answer
};

// The next bytes of the first blob, which the caller knows to be there. False where the input ended.
bool blob_read(struct request *request, void *to, size_t size);

struct device {
    cl_platform_id platform;
    cl_device_id id;
    cl_context context;
    cl_command_queue timed, plain; // one that profiles and one that does not
    bool views;                    // cl_khr_image2d_from_buffer
    struct bytes hints;            // what came of each that was asked for, as members of JSON
    struct resident *buffers;
    struct program *programs;
};

// hints.c: the context and its queues.
bool device_open(struct device *device, const struct options *options, char *why, size_t size);
void device_close(struct device *device);

// buffers.c. Names are the host's; copy 0 of a buffer is the buffer itself, the others are those of rotations.
struct resident {
    struct resident *next;
    char *name;
    size_t size;
    int count;
    cl_mem *copies;
};
struct resident *buffer_find(struct device *device, const char *name);
bool buffer_duplicate(struct device *device, struct resident *buffer, int copies, struct answer *answer);
bool op_put(struct device *device, struct request *request, struct answer *answer);
bool op_get(struct device *device, struct request *request, struct answer *answer);
void drop_buffer(struct device *device, const char *name);

// programs.c
struct kernel {
    char name[128];
    cl_kernel handle;
    cl_uint args;
};
struct program {
    struct program *next;
    char *name;
    cl_program handle;
    cl_uint count;
    struct kernel *kernels;
    struct bytes fields; // the answer that its build got
};
struct program *program_find(struct device *device, const char *name);
bool op_build(struct device *device, struct request *request, struct answer *answer);
void drop_program(struct device *device, const char *name);

// run.c
struct times {          // of a run, before they are written out
    uint64_t *stamps;   // [sample][launch][4]: queued, submit, start, end
    uint64_t *host;     // [sample][launch][2]: before and after its enqueue; NULL unless asked for
    uint64_t *finished; // [sample]; NULL unless asked for
    uint64_t *wall;     // [sample]
    uint32_t samples, launches;
    bool profile, aborted;
};
bool op_run(struct device *device, struct request *request, struct answer *answer, struct times *times);
void times_write(const struct times *times, struct answer *answer);
void times_free(struct times *times);

// A text field of a request; NULL, and a refusal, where it is none or holds a NUL.
const char *need_text(struct request *request, struct answer *answer, const char *name);
uint64_t now_ns(void); // CLOCK_MONOTONIC

struct faults;
// Answer the next request; false where it was the last.
bool answer_one(struct device *device, const struct options *options, struct source *source, struct frame *frame,
                struct faults *faults, int to);
// Answer requests from `from` on `to` until the input ends or `bye`; the process's exit code (3: no device).
int worker(const struct options *options, int from, int to);

// Before each answer on the supervisor's pipe; `line_size` 0 says that the device is open.
struct envelope {
    uint32_t magic, ready;
    uint64_t line_size, blob_size;
};
enum { ENVELOPE = 0x4b494c4e };

#endif

// What a request gets: fields and perhaps a blob, or a refusal of one of protocol.py's kinds.
#ifndef KILN_ANSWER_H
#define KILN_ANSWER_H

#include <stdbool.h>
#include <stdint.h>

#include "bytes.h"
#include "opencl.h"

enum kind {
    BAD_REQUEST,
    BUILD_FAILED,
    LAUNCH_FAILED,
    OUT_OF_RESOURCES,
    UNSUPPORTED,
    INTERNAL,
    CRASHED, // of the worker, said by the supervisor
    TIMEOUT,
};

struct answer {
    struct bytes fields; // each as `,"name":value`
    char *blob;          // freed with the answer
    size_t blob_size;
    bool refused, fatal;
    enum kind kind;
    struct bytes message;
};

// Refuse; always false, so that an operation can `return refuse(…)`.
bool refuse(struct answer *answer, enum kind kind, const char *format, ...) KILN_PRINTF(3, 4);

// Whether `status` is success; else refuse with the kind that it says by itself, or `otherwise`. What fails after it
// was enqueued (a bad access on a GPU) poisons the context and all it holds, so clFinish and the reading of events
// refuse fatally; and so does whatever makes a plain copy fail.
bool done(struct answer *answer, cl_int status, enum kind otherwise, const char *routine);

// The line of a frame, newline included.
void answer_line(const struct answer *answer, const char *id, struct bytes *line);
void answer_free(struct answer *answer);

#endif

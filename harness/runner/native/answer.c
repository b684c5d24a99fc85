#include "answer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const KINDS[] = {"bad_request", "build_failed", "launch_failed", "out_of_resources",
                                    "unsupported", "internal",     "crashed",       "timeout"};

enum { MOST_MESSAGE = 1 << 20 };  // of a compiler's log: escaped, more of it may be no line any more

bool refuse(struct answer *answer, enum kind kind, const char *format, ...) {
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (answer->refused) return false; // the first reason is the reason
    answer->refused = true;
    answer->kind = kind;
    bytes_text(&answer->message, text);
    return false;
}

bool done(struct answer *answer, cl_int status, enum kind otherwise, const char *routine) {
    enum kind kind = otherwise;
    switch (status) {
    case CL_SUCCESS: return true;
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_OUT_OF_RESOURCES:
    case CL_OUT_OF_HOST_MEMORY:
    case CL_INVALID_BUFFER_SIZE: kind = OUT_OF_RESOURCES; break;
    case CL_IMAGE_FORMAT_NOT_SUPPORTED:
    case CL_INVALID_IMAGE_SIZE:
    case CL_INVALID_IMAGE_DESCRIPTOR:
    case CL_INVALID_IMAGE_FORMAT_DESCRIPTOR: kind = UNSUPPORTED; break;
    default: break;
    }
    bool late = strcmp(routine, "clFinish") == 0 || strcmp(routine, "clGetEventProfilingInfo") == 0;
    if (!answer->refused) answer->fatal = kind == INTERNAL || late;
    return refuse(answer, kind, "%s failed: %s", routine, cl_error(status));
}

void answer_line(const struct answer *answer, const char *id, struct bytes *line) {
    bytes_printf(line, "{\"id\":%s,\"ok\":%s", id, answer->refused ? "false" : "true");
    if (answer->refused) {
        bytes_printf(line, ",\"error\":{\"kind\":\"%s\",\"message\":", KINDS[answer->kind]);
        size_t size = answer->message.size;
        json_string(line, answer->message.data, size > MOST_MESSAGE ? MOST_MESSAGE : size);
        bytes_printf(line, ",\"fatal\":%s}", answer->fatal ? "true" : "false");
    } else {
        bytes_append(line, answer->fields.data, answer->fields.size);
        if (answer->blob) bytes_printf(line, ",\"blobs\":[%zu]", answer->blob_size);
    }
    bytes_text(line, "}\n");
}

void answer_free(struct answer *answer) {
    bytes_free(&answer->fields);
    bytes_free(&answer->message);
    free(answer->blob);
    *answer = (struct answer){0};
}

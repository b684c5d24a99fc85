// The process that the host talks to. It never touches OpenCL: it passes requests on to a worker, which it replaces.
//
// What the driver does to the worker becomes an answer. The host owns deadlines: a request may carry `limit_ms`, after
// which the worker is killed and the answer says so; and when the host closes or loses its end of the pipe, the worker
// is killed with what it is at, and this process ends, so that nothing is left behind on a board or a phone.
#ifndef KILN_SUPERVISOR_H
#define KILN_SUPERVISOR_H

#include "worker.h"

// Serve requests from `in` on `out`; the process's exit code.
int supervise(const struct options *options, int in, int out);

#endif

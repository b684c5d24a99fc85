// A worker as its supervisor sees it: a process, three pipes, its last words, and how it ended.
#ifndef KILN_CHILD_H
#define KILN_CHILD_H

#include <sys/types.h>

#include "worker.h"

struct child {
    pid_t pid;          // 0 = there is none
    int to, from, err;  // this side's ends, non-blocking; -1 = closed
    bool lost;          // it ended by itself, and nobody has been told
    int status;         // its exit status, -1 where a signal ended it
    char how[80];       // "was killed by SIGSEGV", "ended with exit status 7"
    struct bytes words; // its last words, as "; it said last:\n…"; empty where it said nothing
    char said[4096];    // what it wrote to stdout and stderr of late
    size_t said_size;
};

// Fork a worker, which closes the two descriptors `host`. False where there is no process or pipe to be had.
bool child_start(struct child *child, const struct options *options, const int host[2]);
// Take what it wrote to stderr, and pass it on to ours.
void child_listen(struct child *child);
// Notice whether it has ended.
void child_look(struct child *child);
// Wait so long for its end, then kill it. A driver can hold its process against any signal: then it is given up.
void child_end(struct child *child, int patience_ms);

#endif

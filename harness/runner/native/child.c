#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KILL_MS = 2000, PIPE_BYTES = 1 << 20, LAST_LINES = 30 };

static void shut(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

static void make_room(int fd) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
#ifdef F_SETPIPE_SZ
    fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);
#endif
}

// In the forked process: private pipes, and whatever a driver prints goes to the supervisor's ear.
static void become_worker(const struct options *options, int from, int to, int err) {
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (nothing >= 0) dup2(nothing, 0);
    dup2(err, 1);
    dup2(err, 2);
    int code = worker(options, from, to);
    fflush(stderr);
    _exit(code); // without the driver's own exit handlers, some of which hang
}

bool child_start(struct child *child, const struct options *options, const int host[2]) {
    int to[2] = {-1, -1}, from[2] = {-1, -1}, err[2] = {-1, -1};
    child->status = -1;
    child->lost = false;
    child->words.size = child->said_size = 0;
    snprintf(child->how, sizeof child->how, "did not start");
    bool piped = pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0 && pipe2(err, O_CLOEXEC) == 0;
    pid_t parent = getpid();
    child->pid = piped ? fork() : -1;
    if (child->pid == 0) {
        close(host[0]);
        close(host[1]);
        close(to[1]);
        close(from[0]);
        close(err[0]);
        prctl(PR_SET_PDEATHSIG, SIGKILL); // a supervisor that is killed takes its worker along
        if (getppid() == parent) become_worker(options, to[0], from[1], err[1]);
        _exit(0);
    }
    shut(&to[0]);
    shut(&from[1]);
    shut(&err[1]);
    child->to = to[1];
    child->from = from[0];
    child->err = err[0];
    if (child->pid < 0) {
        child->pid = 0;
        snprintf(child->how, sizeof child->how, "could not be started: %s", strerror(errno));
        shut(&child->to);
        shut(&child->from);
        shut(&child->err);
        return false;
    }
    make_room(child->to);
    make_room(child->from);
    make_room(child->err);
    return true;
}

static void keep(struct child *child, const char *text, size_t size) {
    if (size > sizeof child->said) {
        text += size - sizeof child->said;
        size = sizeof child->said;
    }
    size_t over = child->said_size + size > sizeof child->said ? child->said_size + size - sizeof child->said : 0;
    memmove(child->said, child->said + over, child->said_size - over);
    child->said_size -= over;
    memcpy(child->said + child->said_size, text, size);
    child->said_size += size;
}

void child_listen(struct child *child) {
    char text[4096];
    for (;;) {
        ssize_t count = child->err >= 0 ? read(child->err, text, sizeof text) : -1;
        if (count < 0 && errno == EINTR) continue;
        if (count == 0) shut(&child->err);
        if (count <= 0) return;
        keep(child, text, (size_t)count);
        struct pollfd ours = {2, POLLOUT, 0}; // who does not read our words shall not stop us
        if (poll(&ours, 1, 0) == 1 && (ours.revents & POLLOUT) && !write_all(2, text, (size_t)count)) continue;
    }
}

static void describe_end(struct child *child, int status) {
    static const struct {
        int number;
        const char *name;
    } names[] = {{SIGSEGV, "SIGSEGV"}, {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},   {SIGILL, "SIGILL"},
                 {SIGFPE, "SIGFPE"},   {SIGKILL, "SIGKILL"}, {SIGTERM, "SIGTERM"}, {SIGSYS, "SIGSYS"},
                 {SIGTRAP, "SIGTRAP"}, {SIGPIPE, "SIGPIPE"}};
    if (WIFSIGNALED(status)) {
        char name[24];
        snprintf(name, sizeof name, "signal %d", WTERMSIG(status));
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (names[i].number == WTERMSIG(status)) snprintf(name, sizeof name, "%s", names[i].name);
        snprintf(child->how, sizeof child->how, "was killed by %s%s", name,
                 WTERMSIG(status) == SIGKILL ? " (out of memory?)" : "");
        child->status = -1;
    } else {
        child->status = WEXITSTATUS(status);
        snprintf(child->how, sizeof child->how, "ended with exit status %d", child->status);
    }
}

// After its end: the last lines of what it said, and no pipe left open.
static void bury(struct child *child) {
    child_listen(child);
    shut(&child->to);
    shut(&child->from);
    shut(&child->err);
    size_t from = child->said_size;
    while (from > 0 && (child->said[from - 1] == '\n' || child->said[from - 1] == '\0')) from--;
    size_t end = from;
    for (int lines = 0; from > 0; from--)
        if (child->said[from - 1] == '\n' && ++lines == LAST_LINES) break;
    child->words.size = 0;
    if (end > from) {
        bytes_text(&child->words, "; it said last:\n");
        bytes_append(&child->words, child->said + from, end - from);
    }
    child->said_size = 0;
    child->pid = 0;
}

static bool ended(struct child *child) {
    int status = 0;
    pid_t found = waitpid(child->pid, &status, WNOHANG);
    if (found == child->pid) describe_end(child, status);
    return found == child->pid || (found < 0 && errno == ECHILD);
}

void child_look(struct child *child) {
    if (child->pid > 0 && ended(child)) {
        bury(child);
        child->lost = true;
    }
}

static bool wait_for(struct child *child, int patience_ms) {
    const struct timespec moment = {0, 1000000};
    uint64_t until = now_ns() + (uint64_t)patience_ms * 1000000;
    for (;;) {
        if (ended(child)) return true;
        if (now_ns() >= until) return false;
        child_listen(child); // it may be writing its last words, and wait for room
        nanosleep(&moment, NULL);
    }
}

void child_end(struct child *child, int patience_ms) {
    if (child->pid <= 0) return;
    if (!wait_for(child, patience_ms)) {
        kill(child->pid, SIGKILL);
        if (!wait_for(child, KILL_MS))
            snprintf(child->how, sizeof child->how, "cannot be killed: the kernel's driver holds it");
    }
    bury(child);
}

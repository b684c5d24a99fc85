#include "supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "child.h"

enum {
    GRACE_MS = 2000,  // for a request whose host has gone: a script may have closed its end after its last request
    GOODBYE_MS = 500, // for a worker to end after `bye`: some drivers take long to let go
    LINE_BYTES = 65 << 20,
    PIECE_BYTES = 1 << 20, // of a blob on its way: what a pipe of Linux's largest size takes at once
};

enum outcome { FINE, GONE, LATE, GARBAGE, HUNG_UP };

struct supervisor {
    const struct options *options;
    int in, out;
    struct child child;
    struct source host, answers;
    uint64_t deadline_ns; // of the present request, 0 = none
    uint64_t hung_up_ns;  // since when the host is known to be gone, in the present request; 0 = it is there
    uint64_t sent;        // bytes of the present request that went to the worker
    enum outcome outcome; // of the last wait
    char piece[PIECE_BYTES];
};

static int left_ms(uint64_t until_ns, uint64_t now) {
    uint64_t left = until_ns > now ? (until_ns - now) / 1000000 + 1 : 0;
    return left > 1000000 ? 1000000 : (int)left;
}

// Wait until `fd` is ready for `events`. Meanwhile the worker's words are passed on, and the host is looked after.
static enum outcome await(struct supervisor *s, int fd, short events) {
    for (;;) {
        uint64_t now = now_ns();
        bool host = fd == s->in;
        if (!host && s->deadline_ns && now >= s->deadline_ns) return LATE;
        if (!host && s->hung_up_ns && now >= s->hung_up_ns + (uint64_t)GRACE_MS * 1000000) return HUNG_UP;
        int timeout = -1;
        if (!host && s->deadline_ns) timeout = left_ms(s->deadline_ns, now);
        if (!host && s->hung_up_ns) {
            int grace = left_ms(s->hung_up_ns + (uint64_t)GRACE_MS * 1000000, now);
            timeout = timeout < 0 || grace < timeout ? grace : timeout;
        }
        struct pollfd polled[] = {{fd, events, 0},
                                  {s->child.err, POLLIN, 0}, // -1 is passed over
                                  {host || s->hung_up_ns ? -1 : s->in, POLLRDHUP, 0},
                                  {s->hung_up_ns ? -1 : s->out, 0, 0}};
        if (poll(polled, 4, timeout) < 0 && errno != EINTR) return HUNG_UP;
        if (polled[1].revents) child_listen(&s->child);
        if ((polled[2].revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) ||
            (polled[3].revents & (POLLERR | POLLNVAL)))
            s->hung_up_ns = now;
        if (host && s->hung_up_ns && (polled[3].revents & POLLERR)) return HUNG_UP;
        if (polled[0].revents) return FINE;
    }
}

static bool await_host(void *arg) {
    struct supervisor *s = arg;
    s->outcome = await(s, s->in, POLLIN);
    return s->outcome == FINE;
}

static bool await_worker(void *arg) {
    struct supervisor *s = arg;
    s->outcome = await(s, s->child.from, POLLIN);
    return s->outcome == FINE;
}

static enum outcome to_worker(struct supervisor *s, const void *data, size_t size) {
    for (const char *at = data; size > 0;) {
        enum outcome outcome = await(s, s->child.to, POLLOUT);
        if (outcome != FINE) return outcome;
        ssize_t count = write(s->child.to, at, size);
        if (count < 0 && errno != EINTR && errno != EAGAIN) return GONE;
        if (count <= 0) continue;
        at += count;
        size -= (size_t)count;
        s->sent += (uint64_t)count;
    }
    return FINE;
}

static enum outcome from_worker(struct supervisor *s, void *to, size_t size) {
    s->outcome = FINE;
    if (source_read(&s->answers, to, size)) return FINE;
    return s->outcome == FINE ? GONE : s->outcome; // its end of the pipe is closed, or the wait said why
}

// ---------------------------------------------------------------- the worker's life

static void forget_answers(struct supervisor *s) { s->answers.at = s->answers.end = 0; }

// Start a worker and wait until its device is open. Otherwise how it ended is in `s->child.how`.
static enum outcome start(struct supervisor *s) {
    int host[2] = {s->in, s->out};
    if (!child_start(&s->child, s->options, host)) return GONE;
    s->answers.fd = s->child.from;
    forget_answers(s);
    struct envelope envelope = {0};
    enum outcome outcome = from_worker(s, &envelope, sizeof envelope);
    if (outcome == FINE && (envelope.magic != ENVELOPE || !envelope.ready)) outcome = GARBAGE;
    if (outcome != FINE) child_end(&s->child, outcome == GONE ? GOODBYE_MS : 0);
    return outcome;
}

static bool tell(struct supervisor *s, const struct answer *answer, const char *id) {
    struct bytes line = {0};
    answer_line(answer, id, &line);
    bool told = !line.failed && write_all(s->out, line.data, line.size);
    bytes_free(&line);
    return told;
}

// Answer in the place of a worker that is gone, and skip what the request still has in the pipe.
static bool tell_loss(struct supervisor *s, const struct frame *frame, enum kind kind, const char *what,
                      uint64_t unread) {
    char nowhere[1 << 14];
    while (unread > 0) {
        size_t count = source_some(&s->host, nowhere, unread < sizeof nowhere ? (size_t)unread : sizeof nowhere);
        if (count == 0) return false;
        unread -= count;
    }
    struct answer answer = {0};
    refuse(&answer, kind, "%s", what);
    answer.fatal = true;
    bytes_append(&answer.message, s->child.words.data, s->child.words.size);
    bool told = tell(s, &answer, frame->id.data);
    answer_free(&answer);
    return told;
}

// Whether the worker has read something of the present request, which may then be what it died of.
static bool had_read(struct supervisor *s) {
    int unread = 0;
    return ioctl(s->child.to, FIONREAD, &unread) != 0 || (uint64_t)unread < s->sent;
}

static bool lose(struct supervisor *s, const struct frame *frame, enum outcome outcome, uint64_t unread) {
    char what[400];
    bool read = had_read(s), late = outcome == LATE, garbage = outcome == GARBAGE;
    child_end(&s->child, outcome == GONE ? GOODBYE_MS : 0);
    if (late) {
        snprintf(what, sizeof what, "the worker did not answer in time during %s and was killed", frame->op);
    } else if (garbage) {
        snprintf(what, sizeof what, "the worker sent something else than an answer during %s (not a frame)", frame->op);
    } else {
        snprintf(what, sizeof what, "the worker %s %s%s", s->child.how, read ? "during " : "before it read ",
                 frame->op);
    }
    return tell_loss(s, frame, late ? TIMEOUT : garbage || !read ? INTERNAL : CRASHED, what, unread);
}

// ---------------------------------------------------------------- one request

static enum outcome pass_on(struct supervisor *s, const struct frame *frame, uint64_t *unread) {
    enum outcome outcome = to_worker(s, frame->line.data, frame->line.size);
    if (outcome == FINE) outcome = to_worker(s, "\n", 1);
    while (outcome == FINE && *unread > 0) {
        size_t count = source_some(&s->host, s->piece, *unread < PIECE_BYTES ? (size_t)*unread : PIECE_BYTES);
        if (count == 0) return HUNG_UP;
        *unread -= count;
        outcome = to_worker(s, s->piece, count);
    }
    return outcome;
}

// The worker's answer: its line is held until it is whole, its blob goes through.
static enum outcome bring_back(struct supervisor *s, bool *begun) {
    struct envelope envelope = {0};
    enum outcome outcome = from_worker(s, &envelope, sizeof envelope);
    if (outcome != FINE) return outcome;
    if (envelope.magic != ENVELOPE || envelope.ready || envelope.line_size == 0 || envelope.line_size > LINE_BYTES)
        return GARBAGE;
    struct bytes line = {0};
    char *room = bytes_reserve(&line, (size_t)envelope.line_size);
    outcome = room ? from_worker(s, room, (size_t)envelope.line_size) : GONE;
    if (outcome == FINE) {
        *begun = true;
        if (!write_all(s->out, room, (size_t)envelope.line_size)) outcome = HUNG_UP;
    }
    bytes_free(&line);
    for (uint64_t left = envelope.blob_size; outcome == FINE && left > 0;) {
        s->outcome = FINE;
        size_t count = source_some(&s->answers, s->piece, left < PIECE_BYTES ? (size_t)left : PIECE_BYTES);
        if (count == 0) return s->outcome == FINE ? GONE : s->outcome;
        left -= count;
        if (!write_all(s->out, s->piece, count)) outcome = HUNG_UP;
    }
    return outcome;
}

static uint64_t deadline_of(const struct frame *frame) {
    const struct json *limit = json_get(&frame->document, frame->object, "limit_ms");
    bool good = limit && limit->type == JSON_NUMBER && limit->number > 0 && limit->number < 1e12;
    return good ? now_ns() + (uint64_t)(limit->number * 1e6) : 0;
}

// Serve one request. False where the host has gone, or an answer was broken off, which nothing can mend.
static bool serve(struct supervisor *s, const struct frame *frame, int *code) {
    if (!frame->object) {
        struct answer answer = {0};
        refuse(&answer, BAD_REQUEST, "not a frame: %s", frame->document.wrong);
        bool told = tell(s, &answer, "null");
        answer_free(&answer);
        return told;
    }
    uint64_t unread = frame->blob_bytes;
    s->deadline_ns = deadline_of(frame);
    s->hung_up_ns = 0;
    s->sent = 0;
    child_look(&s->child); // one that ended since its last answer took all buffers with it
    if (s->child.lost && strcmp(frame->op, "hello") != 0) {
        char what[400];
        snprintf(what, sizeof what, "the worker %s since its last answer", s->child.how);
        s->child.lost = false;
        return tell_loss(s, frame, INTERNAL, what, unread);
    }
    s->child.lost = false;
    if (s->child.pid <= 0) {
        enum outcome outcome = start(s);
        if (outcome == HUNG_UP) return false;
        if (outcome != FINE) {
            char what[400];
            snprintf(what, sizeof what, "the worker %s when it opened the device",
                     outcome == LATE ? "took too long" : s->child.how);
            return tell_loss(s, frame, outcome == LATE ? TIMEOUT : CRASHED, what, unread);
        }
    }
    bool begun = false;
    enum outcome outcome = pass_on(s, frame, &unread);
    if (outcome == FINE) outcome = bring_back(s, &begun);
    if (outcome == FINE) return true;
    if (outcome == HUNG_UP || begun) {
        *code = begun ? 1 : 0;
        return false;
    }
    return lose(s, frame, outcome, unread);
}

int supervise(const struct options *options, int in, int out) {
    struct supervisor *s = calloc(1, sizeof *s);
    struct frame frame = {0};
    int code = 0;
    if (!s) return 1;
    s->options = options;
    s->in = in;
    s->out = out;
    s->child = (struct child){.to = -1, .from = -1, .err = -1};
    s->host = (struct source){.fd = in, .wait = await_host, .arg = s};
    s->answers = (struct source){.fd = -1, .wait = await_worker, .arg = s};
    signal(SIGPIPE, SIG_IGN);
    enum outcome outcome = start(s);
    if (outcome == GONE && s->child.status == 3) {
        code = 3; // there is no such device: the worker has said so
    } else if (outcome != HUNG_UP) {
        bool more = true;
        while (more && frame_read(&s->host, &frame)) {
            more = serve(s, &frame, &code);
            if (strcmp(frame.op, "bye") == 0) break;
        }
    }
    bool polite = strcmp(frame.op, "bye") == 0;
    child_end(&s->child, polite ? GOODBYE_MS : 0);
    frame_free(&frame);
    bytes_free(&frame.line);
    bytes_free(&frame.text);
    bytes_free(&frame.id);
    bytes_free(&s->child.words);
    free(s);
    return code;
}

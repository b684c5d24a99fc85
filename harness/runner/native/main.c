// kiln-runner: one OpenCL device at the other end of stdin and stdout (harness/runner/protocol.py).
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "supervisor.h"

static const char USAGE[] =
    "usage: kiln-runner [--library PATH]... [--device N|NAME] [--priority LEVEL] [--performance LEVEL]   serve one "
    "device\n"
    "       kiln-runner [--library PATH]... --list                                    the devices, as a line of JSON\n"
    "       kiln-runner --version\n"
    "NAME is a selector of --list or a part of \"platform / device\"; LEVEL is low, normal or high.\n"
    "For tests: --inject accepts faults, --sys DIR reads sensors below DIR.\n";

static bool is_level(const char *text) {
    return strcmp(text, "low") == 0 || strcmp(text, "normal") == 0 || strcmp(text, "high") == 0;
}

static int misused(const char *what, const char *which) {
    fprintf(stderr, "kiln-runner: %s%s\n%s", what, which, USAGE);
    return 2;
}

// Move the protocol to private descriptors: what drivers print to stdout goes to stderr from here on.
static bool take_pipe(int *in, int *out) {
    *in = fcntl(0, F_DUPFD_CLOEXEC, 10);
    *out = fcntl(1, F_DUPFD_CLOEXEC, 10);
    int nothing = open("/dev/null", O_RDONLY);
    bool taken = *in >= 0 && *out >= 0 && nothing >= 0 && dup2(nothing, 0) == 0 && dup2(2, 1) == 1;
    if (nothing > 0) close(nothing);
    return taken;
}

int main(int argc, char **argv) {
    struct options options = {.sys = ""};
    bool list = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
        const char **to = NULL;
        if (strcmp(word, "--version") == 0) return printf("kiln-runner 1 protocol %d\n", PROTOCOL) < 0;
        if (strcmp(word, "--help") == 0) return fputs(USAGE, stdout) < 0;
        if (strcmp(word, "--list") == 0) {
            list = true;
            continue;
        }
        if (strcmp(word, "--inject") == 0) {
            options.inject = true;
            continue;
        }
        if (strcmp(word, "--library") == 0 && options.choice.count < MAX_LIBRARIES)
            to = &options.choice.libraries[options.choice.count];
        if (strcmp(word, "--device") == 0) to = &options.choice.device;
        if (strcmp(word, "--priority") == 0) to = &options.priority;
        if (strcmp(word, "--performance") == 0) to = &options.performance;
        if (strcmp(word, "--sys") == 0) to = &options.sys;
        if (!to) return misused("unknown option ", word);
        if (!value) return misused("a value is missing after ", word);
        if ((to == &options.priority || to == &options.performance) && !is_level(value))
            return misused("no level: ", value);
        if (strcmp(word, "--library") == 0) options.choice.count++;
        *to = value;
        i++;
    }
    int in = -1, out = -1;
    if (!take_pipe(&in, &out)) {
        fprintf(stderr, "kiln-runner: stdin, stdout and stderr must be open\n");
        return 1;
    }
    if (list) return device_list(&options.choice, out) ? 0 : 1;
    return supervise(&options, in, out);
}

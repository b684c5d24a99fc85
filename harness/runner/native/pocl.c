#include "pocl.h"

#include <stdbool.h>
#include <stddef.h>

#if defined(__x86_64__) && defined(__linux__) && !defined(__ANDROID__)
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char *const AVX512[] = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd", NULL};
static const char *const AVX2[] = {"avx2", "fma", "f16c", "bmi1", "bmi2", NULL};
static const char *const KNOWN_WITH_AVX512[] = { // LLVM 14's names of CPUs that have it
    "skylake-avx512", "cascadelake", "cooperlake", "cannonlake",     "icelake-client",
    "icelake-server", "rocketlake",  "tigerlake",  "sapphirerapids", NULL};
static const char *told; // the name that PoCL is given

static char *answer(void) { return strdup(told); } // the caller frees it

static bool lists(const char *flags, const char *const *names) {
    for (; *names; names++) {
        size_t size = strlen(*names);
        const char *at = flags;
        while ((at = strstr(at, *names)) && ((at > flags && at[-1] != ' ') || (at[size] != ' ' && at[size] != '\n')))
            at += size;
        if (!at) return false;
    }
    return true;
}

// The newest CPU of LLVM 14 whose features this machine has, or NULL.
static const char *cpu_name(void) {
    const char *name = NULL;
    char *line = NULL;
    size_t room = 0;
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && getline(&line, &room, file) > 0) {
        if (strncmp(line, "flags", 5) != 0) continue;
        if (lists(line, AVX2)) name = lists(line, AVX512) ? "skylake-avx512" : "haswell";
        break;
    }
    if (file) fclose(file);
    free(line);
    return name;
}

static bool fits(const char *own, const char *name) {
    if (strcmp(own, "generic") == 0) return false;
    if (name && strcmp(name, "skylake-avx512") == 0) {
        for (const char *const *known = KNOWN_WITH_AVX512; *known; known++)
            if (strcmp(own, *known) == 0) return true;
        return false;
    }
    return !name || strcmp(name, "haswell") != 0 || strncmp(own, "znver", 5) != 0;
}

// Put a jump to `answer` at the function's address: the library is linked so that no other symbol can come before its.
static bool overwrite(void *function) {
    unsigned char code[12] = {0x48, 0xb8, [10] = 0xff, [11] = 0xe0}; // mov rax, answer; jmp rax
    char *(*to)(void) = answer;
    memcpy(code + 2, &to, sizeof to);
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)function & ~(page - 1);
    size_t length = (uintptr_t)function + sizeof code - at;
    if (mprotect((void *)at, length, PROT_READ | PROT_WRITE | PROT_EXEC)) return false;
    memcpy(function, code, sizeof code);
    mprotect((void *)at, length, PROT_READ | PROT_EXEC);
    return true;
}

const char *pocl_repair(void *library) {
    static char note[200];
    void *symbol = dlsym(library, "pocl_get_llvm_cpu_name");
    if (!symbol) return NULL;
    char *(*ask)(void);
    memcpy(&ask, &symbol, sizeof ask);
    char *own = ask();
    const char *name = cpu_name();
    if (!own || fits(own, name)) {
        free(own);
        return NULL;
    }
    told = name;
    if (name && overwrite(symbol)) {
        snprintf(note, sizeof note, "PoCL took this CPU for %s and was told %s (pocl issue 1049)", own, name);
    } else {
        snprintf(note, sizeof note, "PoCL takes this CPU for %s and could not be told better: its builds may fail",
                 own);
    }
    free(own);
    return note;
}
#else
const char *pocl_repair(void *library) {
    (void)library;
    return NULL;
}
#endif

// What Linux says of this machine's processor; harness/runner/describe.py says why it is asked rather than the driver.
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

static bool read_word(const char *path, char *word, size_t size) {
    FILE *file = fopen(path, "r");
    if (!file) return false;
    bool read = fgets(word, (int)size, file) != NULL;
    fclose(file);
    if (read) word[strcspn(word, "\n")] = '\0';
    return read;
}

static long long bytes_of(const char *text) {
    char unit = '\0';
    long long number = 0;
    int fields = sscanf(text, "%lld%c", &number, &unit);
    if (fields < 1 || number < 0) return 0;
    int shift = fields < 2 ? 0 : unit == 'K' ? 10 : unit == 'M' ? 20 : unit == 'G' ? 30 : -1;
    return shift < 0 || number >> 30 ? 0 : number << shift;
}

// The caches of the last level that this process may use, each once however many cores share it. 0 = unknown.
long long cpu_cache_bytes(void) {
    struct cache {
        int level;
        char shared[128];
        long long bytes;
    } *found = NULL;
    int count = 0, room = 0, last = 0;
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        for (int index = 0; CPU_ISSET(cpu, &allowed) && index < 8; index++) {
            char path[128], level[16], size[32];
            struct cache cache = {0};
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index%d/level", cpu, index);
            if (!read_word(path, level, sizeof level)) continue;
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index%d/shared_cpu_list", cpu, index);
            if (!read_word(path, cache.shared, sizeof cache.shared)) continue;
            snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%zu/cache/index%d/size", cpu, index);
            if (!read_word(path, size, sizeof size)) continue;
            cache.level = atoi(level);
            cache.bytes = bytes_of(size);
            bool known = false;
            for (int i = 0; i < count && !known; i++)
                known = found[i].level == cache.level && strcmp(found[i].shared, cache.shared) == 0;
            if (known) continue;
            if (count == room) {
                struct cache *more = realloc(found, (size_t)(room += 64) * sizeof *found);
                if (!more) break;
                found = more;
            }
            found[count++] = cache;
            if (cache.level > last) last = cache.level;
        }
    }
    long long sum = 0;
    for (int i = 0; i < count; i++)
        if (found[i].level == last) sum += found[i].bytes;
    free(found);
    return sum;
}

int cpu_vector_floats(int reported) {
    int floats = reported;
    char *line = NULL;
    size_t room = 0;
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && getline(&line, &room, file) > 0) {
        if (strncmp(line, "flags", 5) != 0) continue;
        if (strstr(line, " avx512f ") || strstr(line, " avx512f\n")) {
            floats = 16;
        } else if (strstr(line, " avx ") || strstr(line, " avx\n")) {
            floats = 8;
        }
        break;
    }
    if (file) fclose(file);
    free(line);
    return floats;
}

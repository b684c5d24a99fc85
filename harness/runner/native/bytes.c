#include "bytes.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

char *bytes_reserve(struct bytes *bytes, size_t size) {
    if (bytes->failed) return NULL;
    if (size > SIZE_MAX / 2 - bytes->size || (bytes->limit && bytes->size + size > bytes->limit)) {
        bytes->failed = true;
        return NULL;
    }
    if (bytes->size + size > bytes->room || !bytes->data) { // never NULL, even for nothing
        size_t room = bytes->room ? bytes->room : 256;
        while (room < bytes->size + size) room *= 2;
        char *data = realloc(bytes->data, room);
        if (!data) {
            bytes->failed = true;
            return NULL;
        }
        bytes->data = data;
        bytes->room = room;
    }
    return bytes->data + bytes->size;
}

void bytes_append(struct bytes *bytes, const void *data, size_t size) {
    char *end = bytes_reserve(bytes, size);
    if (!end || !size) return;
    memcpy(end, data, size);
    bytes->size += size;
}

void bytes_text(struct bytes *bytes, const char *text) { bytes_append(bytes, text, strlen(text)); }

void bytes_printf(struct bytes *bytes, const char *format, ...) {
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    int size = vsnprintf(NULL, 0, format, list);
    va_end(list);
    char *end = size < 0 ? NULL : bytes_reserve(bytes, (size_t)size + 1);
    if (end) {
        vsnprintf(end, (size_t)size + 1, format, again);
        bytes->size += (size_t)size;
    }
    va_end(again);
}

void bytes_free(struct bytes *bytes) {
    free(bytes->data);
    *bytes = (struct bytes){.limit = bytes->limit};
}

void json_string(struct bytes *out, const char *text, size_t size) {
    bytes_append(out, "\"", 1);
    for (size_t i = 0; i < size;) {
        unsigned char c = (unsigned char)text[i];
        size_t length = utf8_length((const unsigned char *)text + i, size - i);
        if (length == 0) {
            bytes_text(out, "\\ufffd");
            i++;
        } else if (c == '"' || c == '\\') {
            bytes_printf(out, "\\%c", c);
            i++;
        } else if (c < 0x20 || c == 0x7f) {
            bytes_printf(out, "\\u%04x", c);
            i++;
        } else {
            size_t run = length; // as much as goes out unchanged, at once
            while (i + run < size) {
                unsigned char next = (unsigned char)text[i + run];
                if (next < 0x20 || next >= 0x7f || next == '"' || next == '\\') break;
                run++;
            }
            bytes_append(out, text + i, run);
            i += run;
        }
    }
    bytes_append(out, "\"", 1);
}

void json_text(struct bytes *out, const char *text) { json_string(out, text, strlen(text)); }

void json_number(struct bytes *out, double value) {
    if (!isfinite(value)) {
        bytes_text(out, "null");
    } else {
        bytes_printf(out, "%.17g", value);
    }
}

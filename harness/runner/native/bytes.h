// A growable run of bytes with a bound, and text appended to it.  Once it has failed (out of memory, or beyond its
// bound) it stays failed and ignores what is appended, so that one look at the end is enough.
#ifndef KILN_BYTES_H
#define KILN_BYTES_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __GNUC__
#define KILN_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define KILN_PRINTF(text, first)
#endif

struct bytes {
    char *data;
    size_t size, room;
    size_t limit; // 0 = none
    bool failed;
};

void bytes_append(struct bytes *bytes, const void *data, size_t size);
void bytes_text(struct bytes *bytes, const char *text);
void bytes_printf(struct bytes *bytes, const char *format, ...) KILN_PRINTF(2, 3);
// Room for `size` more bytes at the end, not yet counted in `size`; NULL where there is none.
char *bytes_reserve(struct bytes *bytes, size_t size);
void bytes_free(struct bytes *bytes);

// What is written in JSON. Bytes that are no UTF-8 become U+FFFD: drivers' logs are in whatever encoding they like.
void json_string(struct bytes *out, const char *text, size_t size);
void json_text(struct bytes *out, const char *text); // the same, up to its NUL
void json_number(struct bytes *out, double value);   // null where it is not finite

#endif

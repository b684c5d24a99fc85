// The length of the UTF-8 sequence that begins here, or 0 where none does (RFC 3629: no surrogates, none overlong).
#ifndef KILN_UTF8_H
#define KILN_UTF8_H

#include <stddef.h>

static inline size_t utf8_length(const unsigned char *at, size_t left) {
    if (left == 0) return 0;
    unsigned char c = at[0];
    if (c < 0x80) return 1;
    size_t length = c >= 0xc2 && c <= 0xdf ? 2 : c >= 0xe0 && c <= 0xef ? 3 : c >= 0xf0 && c <= 0xf4 ? 4 : 0;
    if (length == 0 || length > left) return 0;
    for (size_t i = 1; i < length; i++)
        if ((at[i] & 0xc0) != 0x80) return 0;
    if ((c == 0xe0 && at[1] < 0xa0) || (c == 0xed && at[1] > 0x9f)) return 0;
    if ((c == 0xf0 && at[1] < 0x90) || (c == 0xf4 && at[1] > 0x8f)) return 0;
    return length;
}

#endif

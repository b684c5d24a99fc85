// A strict JSON reader (RFC 8259) for one line.
//
// Written here rather than taken from a library: the runner is built offline with nothing but an NDK, and of the
// libraries that Debian has, cJSON comes as a shared one, jsmn accepts what is not JSON, and yyjson is 10,000 lines to
// carry for a frame of a dozen fields. What a hostile line can cost is bounded: depth by JSON_DEPTH, values by
// JSON_VALUES, and bytes by the line's own length, since strings are decoded in place.
#ifndef KILN_JSON_H
#define KILN_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_DEPTH = 32, JSON_VALUES = 1 << 20 };
enum json_type { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
    enum json_type type;
    bool whole;     // a number without fraction or exponent that fits `integer`
    bool truth;     // of JSON_BOOL
    uint32_t next;  // the index of the next element or member, 0 = this is the last
    uint32_t first; // of JSON_ARRAY and JSON_OBJECT: the index of the first child, 0 = empty
    uint32_t count; // of children
    char *text;     // of JSON_STRING: decoded, NUL behind it, and it may hold NULs
    char *name;     // of an object's member: its decoded name
    size_t size;    // of `text`, bytes
    size_t name_size;
    double number;
    int64_t integer;
};

// The values of a line; value 0 is the line's own. To be freed with json_free, and not after the line's buffer.
struct document {
    struct json *values;
    uint32_t count, room;
    const char *wrong; // why there is no document, or NULL
};

// Read `line` (`size` bytes, changed in place). False with `wrong` where it is not exactly one JSON value.
bool json_read(struct document *document, char *line, size_t size);
void json_free(struct document *document);

// The last member of this name (as Python's json takes the last of doubles), NULL where there is none, or it is null.
const struct json *json_get(const struct document *document, const struct json *object, const char *name);
const struct json *json_first(const struct document *document, const struct json *value);
const struct json *json_next(const struct document *document, const struct json *value);
bool json_is(const struct json *value, const char *text); // a string of these characters

#endif

#include "json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "utf8.h"

struct reader {
    struct document *document;
    char *at, *end;
};

static bool fail(struct reader *r, const char *wrong) {
    if (!r->document->wrong) r->document->wrong = wrong;
    return false;
}

static void skip_space(struct reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r')) r->at++;
}

// A new value's index, 0 where there is no room: index 0 is the document's own value, which nothing points to.
static uint32_t add(struct reader *r) {
    struct document *d = r->document;
    if (d->count == JSON_VALUES) return fail(r, "too many values");
    if (d->count == d->room) {
        uint32_t room = d->room ? 2 * d->room : 64;
        struct json *values = realloc(d->values, room * sizeof *values);
        if (!values) return fail(r, "out of memory");
        d->values = values;
        d->room = room;
    }
    d->values[d->count] = (struct json){.type = JSON_NULL};
    return d->count++;
}

static int hex4(const char *at) {
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

static char *put_utf8(char *out, uint32_t point) {
    if (point < 0x80) {
        *out++ = (char)point;
    } else if (point < 0x800) {
        *out++ = (char)(0xc0 | point >> 6);
        *out++ = (char)(0x80 | (point & 0x3f));
    } else {
        if (point < 0x10000) {
            *out++ = (char)(0xe0 | point >> 12);
        } else {
            *out++ = (char)(0xf0 | point >> 18);
            *out++ = (char)(0x80 | (point >> 12 & 0x3f));
        }
        *out++ = (char)(0x80 | (point >> 6 & 0x3f));
        *out++ = (char)(0x80 | (point & 0x3f));
    }
    return out;
}

// The escape after a backslash; r->at is behind the backslash. A surrogate without its other half is U+FFFD.
static char *read_escape(struct reader *r, char *out) {
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (r->at == r->end) return NULL;
    char c = *r->at++;
    if (c != 'u') {
        const char *found = c ? strchr(from, c) : NULL;
        if (!found) return NULL;
        *out++ = to[found - from];
        return out;
    }
    int unit = r->end - r->at >= 4 ? hex4(r->at) : -1;
    if (unit < 0) return NULL;
    r->at += 4;
    uint32_t point = (uint32_t)unit;
    if (point >= 0xd800 && point < 0xe000) {
        int low = r->end - r->at >= 6 && r->at[0] == '\\' && r->at[1] == 'u' ? hex4(r->at + 2) : -1;
        if (point < 0xdc00 && low >= 0xdc00 && low < 0xe000) {
            r->at += 6;
            point = 0x10000 + ((point - 0xd800) << 10) + ((uint32_t)low - 0xdc00);
        } else {
            point = 0xfffd;
        }
    }
    return put_utf8(out, point); // at most 4 bytes where 6 or 12 were read
}

static bool read_string(struct reader *r, char **text, size_t *size) {
    char *out = *text = ++r->at; // behind the quote; what is decoded is never longer than what was read
    while (r->at < r->end && *r->at != '"') {
        unsigned char c = (unsigned char)*r->at;
        if (c < 0x20) return fail(r, "a control character in a string");
        if (c == '\\') {
            r->at++;
            out = read_escape(r, out);
            if (!out) return fail(r, "a malformed escape in a string");
            continue;
        }
        size_t length = utf8_length((unsigned char *)r->at, (size_t)(r->end - r->at));
        if (length == 0) return fail(r, "a string that is not UTF-8");
        while (length--) *out++ = *r->at++;
    }
    if (r->at == r->end) return fail(r, "a string without an end");
    r->at++;
    *size = (size_t)(out - *text);
    *out = '\0'; // at the closing quote or before it
    return true;
}

static size_t skip_digits(struct reader *r) {
    char *from = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9') r->at++;
    return (size_t)(r->at - from);
}

static bool read_number(struct reader *r, struct json *value) {
    char *from = r->at;
    bool negative = *r->at == '-', whole = true;
    if (negative) r->at++;
    char *digits = r->at;
    size_t count = skip_digits(r);
    if (count == 0 || (count > 1 && *digits == '0')) return fail(r, "a malformed number");
    char *integer_end = r->at;
    if (r->at < r->end && *r->at == '.') {
        r->at++;
        whole = false;
        if (!skip_digits(r)) return fail(r, "a malformed number");
    }
    if (r->at < r->end && (*r->at == 'e' || *r->at == 'E')) {
        r->at++;
        whole = false;
        if (r->at < r->end && (*r->at == '+' || *r->at == '-')) r->at++;
        if (!skip_digits(r)) return fail(r, "a malformed number");
    }
    char text[400]; // strtod needs an end; a number this long is none that anybody means
    size_t size = (size_t)(r->at - from);
    if (size >= sizeof text) return fail(r, "a number of more than 399 characters");
    memcpy(text, from, size);
    text[size] = '\0';
    value->type = JSON_NUMBER;
    value->number = strtod(text, NULL);
    if (!isfinite(value->number)) return fail(r, "a number that is not finite");
    uint64_t magnitude = 0;
    for (char *at = digits; whole && at < integer_end; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        whole = magnitude <= ((uint64_t)INT64_MAX - digit) / 10; // the most negative integer is left out: nobody's
        if (whole) magnitude = magnitude * 10 + digit;
    }
    value->whole = whole;
    if (whole) value->integer = negative ? -(int64_t)magnitude : (int64_t)magnitude;
    return true;
}

static bool read_word(struct reader *r, const char *word, struct json *value, enum json_type type) {
    size_t size = strlen(word);
    if ((size_t)(r->end - r->at) < size || memcmp(r->at, word, size) != 0) return fail(r, "a malformed value");
    r->at += size;
    value->type = type;
    value->truth = *word == 't';
    return true;
}

static bool read_value(struct reader *r, uint32_t index, int depth);

// What is between the brackets. Children are linked by index, since the array of values moves as it grows.
static bool read_children(struct reader *r, uint32_t index, int depth, char close, bool named) {
    if (depth == JSON_DEPTH) return fail(r, "too deep");
    r->document->values[index].type = named ? JSON_OBJECT : JSON_ARRAY;
    r->at++;
    skip_space(r);
    if (r->at < r->end && *r->at == close) {
        r->at++;
        return true;
    }
    for (uint32_t last = 0;;) {
        char *name = NULL;
        size_t name_size = 0;
        skip_space(r);
        if (named) {
            if (r->at == r->end || *r->at != '"') return fail(r, "an object's member without a name");
            if (!read_string(r, &name, &name_size)) return false;
            skip_space(r);
            if (r->at == r->end || *r->at != ':') return fail(r, "a name without a value");
            r->at++;
        }
        uint32_t child = add(r);
        if (!child || !read_value(r, child, depth + 1)) return false;
        struct json *values = r->document->values;
        values[child].name = name;
        values[child].name_size = name_size;
        if (last) {
            values[last].next = child;
        } else {
            values[index].first = child;
        }
        values[index].count++;
        last = child;
        skip_space(r);
        if (r->at == r->end) return fail(r, "no end");
        char c = *r->at++;
        if (c == close) return true;
        if (c != ',') return fail(r, "something else than a comma");
    }
}

static bool read_value(struct reader *r, uint32_t index, int depth) {
    skip_space(r);
    if (r->at == r->end) return fail(r, "no value");
    struct json *value = &r->document->values[index];
    switch (*r->at) {
    case '{': return read_children(r, index, depth, '}', true);
    case '[': return read_children(r, index, depth, ']', false);
    case '"': value->type = JSON_STRING; return read_string(r, &value->text, &value->size);
    case 't': return read_word(r, "true", value, JSON_BOOL);
    case 'f': return read_word(r, "false", value, JSON_BOOL);
    case 'n': return read_word(r, "null", value, JSON_NULL);
    default:
        if (*r->at == '-' || (*r->at >= '0' && *r->at <= '9')) return read_number(r, value);
        return fail(r, "a malformed value");
    }
}

bool json_read(struct document *document, char *line, size_t size) {
    *document = (struct document){0};
    struct reader r = {document, line, line + size};
    add(&r);
    if (!document->wrong && read_value(&r, 0, 0)) {
        skip_space(&r);
        if (r.at != r.end) fail(&r, "more than one value");
    }
    if (document->wrong) json_free(document);
    return !document->wrong;
}

void json_free(struct document *document) {
    free(document->values);
    *document = (struct document){.wrong = document->wrong};
}

const struct json *json_first(const struct document *document, const struct json *value) {
    return value && value->first ? &document->values[value->first] : NULL;
}

const struct json *json_next(const struct document *document, const struct json *value) {
    return value->next ? &document->values[value->next] : NULL;
}

const struct json *json_get(const struct document *document, const struct json *object, const char *name) {
    if (!object || object->type != JSON_OBJECT) return NULL;
    const struct json *found = NULL;
    size_t size = strlen(name);
    for (const struct json *m = json_first(document, object); m; m = json_next(document, m))
        if (m->name_size == size && memcmp(m->name, name, size) == 0) found = m;
    return found && found->type != JSON_NULL ? found : NULL;
}

bool json_is(const struct json *value, const char *text) {
    return value && value->type == JSON_STRING && value->size == strlen(text) &&
           memcmp(value->text, text, value->size) == 0;
}

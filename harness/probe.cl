// What a device can do at most: read memory, copy it, multiply and add, start a kernel.
//
// No kernel here is one answer: harness/probe.py builds them at several widths and unrolls, launches them with several
// ways to share the work, and keeps the best median. Every result is a known number, which the host checks, so that
// a compiler that removed the work is found out.

#ifndef WIDTH
#define WIDTH 4        // elements of a vector: 1, 2, 4, 8, 16
#endif
#ifndef UNROLL
#define UNROLL 4       // independent accumulators: 4, 8, 16
#endif
#ifndef PREFETCH
#define PREFETCH 0     // bytes ahead that a stretch of one's own asks for, 0 = leave it to the hardware; CPUs with clang
#endif
#ifndef HALF
#define HALF 0         // 1: arithmetic in half (cl_khr_fp16)
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#if HALF
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#define REAL half
#else
#define REAL float
#endif

// Lanes start apart, lest a compiler prove them equal and compute one.
#define LANES1 0
#define LANES2 LANES1, 1
#define LANES4 LANES2, 2, 3
#define LANES8 LANES4, 4, 5, 6, 7
#define LANES16 LANES8, 8, 9, 10, 11, 12, 13, 14, 15

#if WIDTH == 1
#define VEC float
#define RVEC REAL
#define PUT(x, at, to) (to)[at] = (x)
#else
#define VEC JOIN(float, WIDTH)
#define RVEC JOIN(REAL, WIDTH)
#define PUT(x, at, to) JOIN(vstore, WIDTH)(x, at, to)
#endif

// One request per 64-byte line, for the j-th of vectors in a row. The cast by way of an integer hides the address space,
// which the built-in does not take.
#if PREFETCH
#define AHEAD(p, j) if ((j) * WIDTH % 16 == 0) __builtin_prefetch((const __private void *)(ulong)((p) + (j)) + PREFETCH)
#else
#define AHEAD(p, j)
#endif

// Sums the vectors at a[0], a[stride], … a[(steps-1)*stride]; steps is a multiple of 4. Four sums run side by side,
// since loads that wait for one chain of additions would measure the adder.
inline VEC sum(__global const VEC *a, int stride, int steps) {
    VEC s0 = (VEC)(0), s1 = (VEC)(0), s2 = (VEC)(0), s3 = (VEC)(0);
    for (int i = 0; i < steps; i += 4) {
        AHEAD(a, 0);
        AHEAD(a, 1);
        AHEAD(a, 2);
        AHEAD(a, 3);
        s0 += a[0];
        s1 += a[stride];
        s2 += a[2 * stride];
        s3 += a[3 * stride];
        a += 4 * stride;
    }
    return (s0 + s1) + (s2 + s3);
}

// Each work-item reads one stretch of its own: what CPUs like.
__kernel void read_own(__global const VEC *a, __global float *out, int steps) {
    const int g = get_global_id(0);
    PUT(sum(a + g * steps, 1, steps), g, out);
}

// Neighbouring work-items read neighbouring vectors: what GPUs like.
__kernel void read_across(__global const VEC *a, __global float *out, int steps) {
    const int g = get_global_id(0);
    PUT(sum(a + g, get_global_size(0), steps), g, out);
}

__kernel void copy_own(__global const VEC *a, __global VEC *to, int steps) {
    const int first = get_global_id(0) * steps;
    for (int i = first; i < first + steps; i += 4) {
        AHEAD(a + i, 0);
        AHEAD(a + i, 1);
        AHEAD(a + i, 2);
        AHEAD(a + i, 3);
        for (int j = i; j < i + 4; ++j) to[j] = a[j];
    }
}

__kernel void copy_across(__global const VEC *a, __global VEC *to, int steps) {
    const int g = get_global_id(0), size = get_global_size(0);
    for (int i = 0; i < steps; ++i) to[g + i * size] = a[g + i * size];
}

#define ROUND4(n) x##n##0 = x##n##0 * a + b; x##n##1 = x##n##1 * a + b; x##n##2 = x##n##2 * a + b; x##n##3 = x##n##3 * a + b;
#define START4(n) RVEC x##n##0 = start, x##n##1 = start + (REAL)1, x##n##2 = start + (REAL)2, x##n##3 = start + (REAL)3;
#define TOTAL4(n) ((x##n##0 + x##n##1) + (x##n##2 + x##n##3))

// UNROLL chains of x = x*a + b per work-item. With a = b = 1/2 each chain comes to 1, so every lane of out is UNROLL.
// Written as a product and a sum: the built-ins fma and mad are many times slower on PoCL and on some Adreno drivers.
__kernel void madd(__global REAL *out, float af, float bf, int rounds) {
    const RVEC a = (RVEC)((REAL)af), b = (RVEC)((REAL)bf), start = (RVEC)(JOIN(LANES, WIDTH)) + (REAL)(int)(get_local_id(0) & 7);
    START4(0)
#if UNROLL >= 8
    START4(1)
#endif
#if UNROLL >= 16
    START4(2)
    START4(3)
#endif
    for (int i = 0; i < rounds; ++i) {
        ROUND4(0)
#if UNROLL >= 8
        ROUND4(1)
#endif
#if UNROLL >= 16
        ROUND4(2)
        ROUND4(3)
#endif
    }
    RVEC total = TOTAL4(0);
#if UNROLL >= 8
    total += TOTAL4(1);
#endif
#if UNROLL >= 16
    total += TOTAL4(2) + TOTAL4(3);
#endif
    PUT(total, get_global_id(0), out);
}

__kernel void nothing(int unused) {}

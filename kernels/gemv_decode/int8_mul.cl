// y[m][n] = sum over k of x[m][k] * w[n][k] with x quantised to int8 and 32-bit multiplications, two 4-bit codes each.
//
// For CPUs (VEC = P = 16 and PREFETCH) and for GPUs without a dot product of bytes.
#ifndef PREFETCH
#define PREFETCH 0 // words along K to fetch ahead, 0 = leave it to the hardware: 0, 32 ... 256 (CPU compilers of clang)
#endif
#define PACKED_DOT 0
#include "int8.clh"

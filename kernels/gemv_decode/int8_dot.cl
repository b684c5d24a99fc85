// y[m][n] = sum over k of x[m][k] * w[n][k] with x quantised to int8 and cl_khr_integer_dot_product.
//
// For GPUs whose hardware has it: VEC 1 to 4, P of 64 or more on Adreno (one coalesced load per wave), VEC = P = 4 on
// Mali (16-byte loads).
#define PACKED_DOT 1
#include "int8.clh"

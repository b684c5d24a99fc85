// y = epilogue(x * w^T) with x quantised to int8 and 32-bit multiplications, two 4-bit codes each: for CPUs, and for
// GPUs without a dot product of bytes.
#define PACKED_DOT 0
#include "int8.clh"

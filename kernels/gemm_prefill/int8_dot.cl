// y = epilogue(x * w^T) with x quantised to int8 and cl_khr_integer_dot_product, for GPUs whose hardware has it.
#define PACKED_DOT 1
#include "int8.clh"

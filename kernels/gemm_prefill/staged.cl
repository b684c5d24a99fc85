// y = epilogue(x * w^T), activations staged in local memory: KS inputs of all tokens of a work-group, converted once
// and read by each of its work-items along the outputs. For Adreno.
#ifndef KS
#define KS 32      // inputs staged at a time, a part of the group: 32, 64
#endif
#define X_LOCAL
#include "tiles.clh"

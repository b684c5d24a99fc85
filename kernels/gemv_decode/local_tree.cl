// y[m][n] = sum over k of x[m][k] * w[n][k], lanes along K, reduced by a tree over local memory.
//
// For any device without subgroups, and for long K with small N: a team is as wide as the work-group allows.
#define SUBGROUPS 0
#include "lanes_k.clh"

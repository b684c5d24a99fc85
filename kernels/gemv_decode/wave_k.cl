// y[m][n] = sum over k of x[m][k] * w[n][k], a work-group's waves side by side along K.
//
// For Adreno: one wave of 64 lanes reads 64 neighbouring words (P >= 64: one coalesced load), four waves split K to
// keep enough loads in flight where N alone does not fill the device; one local reduction at the end.
#include "waves.clh"

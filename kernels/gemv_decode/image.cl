// y[m][n] = sum over k of x[m][k] * w[n][k], weights through the texture cache.
//
// The packed weights seen as a 2D image of RGBA uint32 texels, four outputs each: row n / P, column
// (k / CODES) * (P / 4) + n % P / 4. For Adreno, where image reads have about twice a buffer's bandwidth; the work-group
// is that of wave_k.
#define WEIGHTS_IMAGE
#include "waves.clh"

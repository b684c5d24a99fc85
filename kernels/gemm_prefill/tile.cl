// y = epilogue(x * w^T), a tile of sums in registers and no local memory: for Mali and whatever else caches well.
#include "tiles.clh"

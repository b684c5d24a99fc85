// A work-group per range of keys, kv head and queries: maxima and sums by a tree over local memory, on any device.
#define SUBGROUPS 0
#include "team.clh"

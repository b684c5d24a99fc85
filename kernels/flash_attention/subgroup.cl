// A subgroup per range of keys, kv head and queries: maxima and sums by subgroup reductions.
//
// For Mali, whose subgroups are sixteen wide, and Adreno (64 or 128). LANES is the subgroup's size.
#define SUBGROUPS 1
#include "team.clh"

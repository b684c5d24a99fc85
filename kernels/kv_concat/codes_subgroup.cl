// Head rows as codes, a team being a subgroup: for Mali, which keeps local memory in DRAM. LANES is the subgroup size
// that is asked for where the device lets one ask; any other gives the same result. On a device without subgroups, or
// with EMULATE_SUBGROUPS defined, a tree over local memory takes the reduction's place.
#define SUBGROUPS 1
#include "codes.clh"

// RMSNorm and LayerNorm, one row per subgroup.
//
// For Mali: loads of 16 bytes, a subgroup reduction, no local memory (which Mali keeps in DRAM). LANES is the subgroup
// size that is asked for where the device lets one ask; any other gives the same result. On a device without subgroups,
// or with EMULATE_SUBGROUPS defined, a tree over local memory takes the reduction's place.
#define SUBGROUPS 1
#include "team_rows.clh"

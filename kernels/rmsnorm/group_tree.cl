// RMSNorm and LayerNorm, rows shared out over work-items that join their sums by a tree over local memory.
//
// For Adreno: neighbouring lanes read neighbouring vectors, and a row is read from memory once. LANES = WG is one row
// per work-group; fewer lanes are several short rows in one.
#define SUBGROUPS 0
#include "team_rows.clh"

// Head rows as codes, a team reducing by a tree over local memory: for any device, and for Adreno, where it is quick.
#define SUBGROUPS 0
#include "codes.clh"

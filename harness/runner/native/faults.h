// Faults that a test asks a runner for (harness/runner/faults.py). Only there with --inject.
#ifndef KILN_FAULTS_H
#define KILN_FAULTS_H

#include "sensors.h"
#include "worker.h"

struct faults {
    char fault[24]; // "" = none
    char on[24];
    int64_t left;
    bool lasting;
    double slower; // times that drift has reached
    double leaked; // bytes
};

bool op_inject(struct faults *faults, struct request *request, struct answer *answer);
// The fault that strikes this operation now, or "".
const char *fault_due(struct faults *faults, const char *op, char due[24]);
// Before the operation: what ends the process, hangs, writes garbage or refuses. False where the operation is not to
// be.
bool fault_before(const char *fault, int to, struct answer *answer);
// After it: what changes its answer.
void fault_blob(const char *fault, struct answer *answer);
void fault_times(struct faults *faults, const char *fault, struct times *times);
void fault_readings(struct faults *faults, const char *fault, struct readings *readings);

#endif

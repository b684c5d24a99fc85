// PyPI's PoCL on a CPU that its LLVM does not know. See harness/pocl_repair.py for the why; the rule here is the same.
#ifndef KILN_POCL_H
#define KILN_POCL_H

// Mend a loaded libpocl if it needs it. What was done, in words, or NULL where the library is another or is well.
const char *pocl_repair(void *library);

#endif

/* The filter of hvx-stub.  See seal.c. */
#ifndef HVX_STUB_SEAL_H
#define HVX_STUB_SEAL_H

#include "common/sandbox.h"

extern const struct sandbox_table stub_seal;

#endif

/*
 * System calls of hvx-memsvc.  See seal.c.
 */
#ifndef HVX_MEMSVC_SEAL_H
#define HVX_MEMSVC_SEAL_H

#include "common/sandbox.h"

extern const struct sandbox_table memsvc_seal;

#endif

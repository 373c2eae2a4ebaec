/*
 * The filter of hvx-switch.  See switch_seal.c.
 */
#ifndef HVX_NET_SWITCH_SEAL_H
#define HVX_NET_SWITCH_SEAL_H

#include "common/sandbox.h"

extern const struct sandbox_table switch_seal;

#endif

/*
 * The filter of hvx-net.  See seal.c.
 */
#ifndef HVX_NET_SEAL_H
#define HVX_NET_SEAL_H

#include "common/sandbox.h"

extern const struct sandbox_table net_seal;

#endif

/*
 * What hvx-blk may ask of the kernel.
 */
#ifndef HVX_BLK_SEAL_H
#define HVX_BLK_SEAL_H

#include "common/sandbox.h"

extern const struct sandbox_table blk_seal;

#endif

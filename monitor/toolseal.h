/*
 * The filters of programs that are not ours.  See toolseal.c.
 */
#ifndef HVX_MONITOR_TOOLSEAL_H
#define HVX_MONITOR_TOOLSEAL_H

#include "common/sandbox.h"

extern const struct sandbox_table nbd_seal;          /* qemu-nbd */
extern const struct sandbox_table nbd_readonly_seal; /* which opens nothing for writing */
extern const struct sandbox_table passt_seal;
extern const struct sandbox_table seed_seal; /* genisoimage */

#endif

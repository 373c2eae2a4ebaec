/* Offsets of struct vcpu's fields for assembly; offsets.c asserts them. */
#ifndef HVX_OFFSETS_H
#define HVX_OFFSETS_H

#define V_HOST_REGS  0
#define V_IP_PAGE    128
#define V_ENGINE_SP  136
#define V_SELF       144
#define V_RESUME     200
#define V_SITE       208
#define V_PENDING    836
#define V_KICK       212
#define V_HOST_FLAGS 220
#define V_REGS       640
#define V_RIP        768
#define V_FLAGS      832
#define V_DF         834
#define V_IFLAG      835

#define V_FAULT_AGAIN 1 /* what bt_c_fault() returns: BT_FAULT_AGAIN */

#endif

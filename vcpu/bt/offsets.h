/* Offsets of struct vcpu's fields for assembly; offsets.c asserts them. */
#ifndef HVX_OFFSETS_H
#define HVX_OFFSETS_H

#define V_REGS       0
#define V_HOST_REGS  128
#define V_RIP        256
#define V_IP_PAGE    264
#define V_ENGINE_SP  272
#define V_SELF       280
#define V_RESUME     384
#define V_SITE       408
#define V_FLAGS      412
#define V_DF         414
#define V_IFLAG      415
#define V_PENDING    416
#define V_KICK       420
#define V_HOST_FLAGS 428

#endif

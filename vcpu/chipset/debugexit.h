/*
 * Test devices that bare-metal suites use: exit port 0xf4, debug console 0xe9.
 * Present with --debug-exit only.  Called under the platform's lock.
 */
#ifndef HVX_DEBUGEXIT_H
#define HVX_DEBUGEXIT_H

#include <stdint.h>

#include "vcpu/chipset/bus.h"

#define DEBUGEXIT_PORT    0xf4
#define DEBUGCON_PORT     0xe9
#define FIRMWARE_LOG_PORT 0x402

struct debugexit {
	void (*exit)(void *ctx, int status); /* (value << 1) | 1 */
	void (*putc)(void *ctx, uint8_t byte);
	void *ctx;
};

extern const struct bus_ops debugexit_ops, debugcon_ops;

#endif

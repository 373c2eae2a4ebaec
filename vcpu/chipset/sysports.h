/*
 * Small ports of a PC: 0x80 (POST code, used as a delay) and 0x92 (A20, fast
 * reset).  Called under the platform's lock.
 */
#ifndef HVX_SYSPORTS_H
#define HVX_SYSPORTS_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"

struct sysports {
	uint8_t post, port92;
	void (*reset)(void *ctx);
	void (*a20)(void *ctx, bool on);
	void *ctx;
};

extern const struct bus_ops sysports_post_ops, sysports_92_ops;

void sysports_reset(struct sysports *s);

#endif

/*
 * The flash that firmware and its variables lie in: Intel's command set on 8-bit parts (CFI command set 0001h; Intel
 * application note 646), and the ROM above it, which takes no commands.  Called under the platform's lock.
 */
#ifndef HVX_PFLASH_H
#define HVX_PFLASH_H

#include <stdbool.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"

#define PFLASH_BLOCK  4096u /* erased as a whole */
#define PFLASH_BUFFER 256u  /* bytes of a buffered program */

struct pflash {
	uint64_t size;   /* bytes of ROM and flash */
	uint64_t bank;   /* bytes of it, from its start, that can be programmed; 0: none */
	uint8_t command; /* the first cycle of what goes on; READ_ARRAY: nothing does */
	uint8_t status;  /* status register */
	uint8_t cycle;   /* of the command */
	uint16_t left;   /* bytes of a buffered program that are to come */
	uint32_t block;  /* where that goes to */
	/* Byte of the array; may be NULL where no memory is behind it. */
	uint8_t *(*at)(void *ctx, uint64_t off, bool write);
	/* Reads of the bank are answered by the chip, or by the array: memory that may be read past us. */
	void (*mode)(void *ctx, bool chip);
	/* [off, off+len) of the array was changed. */
	void (*changed)(void *ctx, uint64_t off, uint64_t len);
	void *ctx;
};

void pflash_init(struct pflash *f, uint64_t size, uint64_t bank);
void pflash_reset(struct pflash *f);

bool pflash_answers(const struct pflash *f); /* as mode() was told last */

extern const struct bus_ops pflash_ops;

#endif

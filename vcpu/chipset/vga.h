/*
 * The registers of a VGA (IBM PS/2 hardware interface, video subsystem), as boot loaders and a video BIOS use them in text
 * modes.  Its memory, 0xa0000-0xbffff, is plain RAM: text modes read and write it as such.  Called under the platform's lock.
 */
#ifndef HVX_VGA_H
#define HVX_VGA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vcpu/chipset/bus.h"
#include "vcpu/chipset/clock.h"

#define VGA_PORT 0x3b0
#define VGA_LEN  0x30
#define VGA_TEXT 0xb8000u /* 32 KiB of characters and attributes */

struct vga {
	uint8_t misc, feature;
	uint8_t seq_index, seq[8];
	uint8_t gfx_index, gfx[16];
	uint8_t crtc_index, crtc[32];
	uint8_t attr_index, attr[32];
	bool attr_data; /* the next write to the attribute port is data */
	uint8_t dac_mask, dac_read, dac_write, dac_part, dac_state, dac[768];
	struct hclock *clock;
};

/* What is to be seen: none of it where ->graphics. */
struct vga_screen {
	bool graphics;
	unsigned columns, rows; /* at most VGA_COLUMNS, VGA_ROWS */
	unsigned start;         /* byte offset in text memory of the first character; it wraps at 32 KiB */
	unsigned pitch;         /* bytes of a line */
};
#define VGA_COLUMNS 132u
#define VGA_ROWS    60u

void vga_init(struct vga *v, struct hclock *clock);
void vga_reset(struct vga *v);
void vga_screen(const struct vga *v, struct vga_screen *s);

extern const struct bus_ops vga_ops;

#endif

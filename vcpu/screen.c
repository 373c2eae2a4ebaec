/*
 * Text of the display, out of guest memory.  Invariant: what leaves here is printable ASCII, whatever the guest wrote.
 */
#include "vcpu/screen.h"

#include <stdbool.h>
#include <string.h>

#include "common/gmem.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/chipset/vga.h"
#include "vcpu/vm.h"

#define TEXT_LEN 0x8000u

/* Code page 437: lines, corners and shades as something like them, the rest as dots. */
static uint8_t printable(uint8_t c)
{
	static const char lines[] = "###||||++||+++++++--+-+||++--=-+----++++++++##|#"; /* b0h to dfh */

	if (c >= ' ' && c <= '~')
		return c;
	if (c >= 0xb0 && c <= 0xdf)
		return (uint8_t)lines[c - 0xb0];
	switch (c) {
	case 0x00:
	case 0xff: return ' ';
	case 0x10:
	case 0x1a: return '>';
	case 0x11:
	case 0x1b: return '<';
	case 0x18:
	case 0x1e: return '^';
	case 0x19:
	case 0x1f: return 'v';
	case 0xfe: return '#';
	default: return '.';
	}
}

static uint8_t character(const struct gmem *g, const struct vga_screen *s, unsigned row, unsigned column)
{
	uint8_t c = ' ';

	gmem_read(g, VGA_TEXT + (s->start + row * s->pitch + column * 2) % TEXT_LEN, &c, 1);
	return printable(c);
}

void screen_read(struct vm *vm, struct msg_screen *m)
{
	struct vga_screen s;

	memset(m, 0, sizeof *m);
	if (!vm->plat || !platform_screen(vm->plat, &s))
		return;
	m->graphics = s.graphics;
	if (s.graphics)
		return;
	m->columns = s.columns;
	m->rows = s.rows;
	unsigned in = gmem_enter(vm->mem, SHM_SLOT_MAIN);
	for (unsigned row = 0; row < s.rows; row++)
		for (unsigned column = 0; column < s.columns; column++)
			m->text[m->len++] = character(vm->mem, &s, row, column);
	gmem_leave(vm->mem, SHM_SLOT_MAIN, in);
}

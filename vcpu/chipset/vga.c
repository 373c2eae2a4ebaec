/*
 * VGA registers.
 *
 * Invariant: every index stays within its array, whatever was written to the index register.
 */
#include "vcpu/chipset/vga.h"

#include "vcpu/chipset/savechips.h"

#define MISC_COLOR     0x01 /* CRTC at 3d4h, else at 3b4h */
#define ATTR_ON        0x20 /* palette address source: the display is on */
#define CRTC_PROTECT   0x80 /* of register 11h: registers 0 to 7 are not written */
#define STATUS_RETRACE 0x08
#define STATUS_BLANK   0x01
#define FRAME_NS       16683350u /* 59.94 Hz */
#define RETRACE_NS     63556u    /* two lines */
#define LINE_NS        31778u
#define BLANK_NS       6356u

/* port offsets from 3b0h */
enum {
	ATTR = 0x10,
	ATTR_READ = 0x11,
	MISC_WRITE = 0x12, /* read: input status 0 */
	SEQ = 0x14,
	DAC_MASK = 0x16,
	DAC_READ = 0x17,
	DAC_WRITE = 0x18,
	DAC_DATA = 0x19,
	FEATURE_READ = 0x1a,
	MISC_READ = 0x1c,
	GFX = 0x1e,
	MONO = 0x04, /* CRTC and status 1 of monochrome modes: 3b4h, 3b5h, 3bah */
	COLOR = 0x24 /* 3d4h, 3d5h, 3dah */
};

static uint8_t status(const struct vga *v)
{
	uint64_t t = hclock_now(v->clock) % FRAME_NS;

	if (t < RETRACE_NS)
		return STATUS_RETRACE | STATUS_BLANK;
	return t % LINE_NS < BLANK_NS ? STATUS_BLANK : 0;
}

/* ---- CRTC ---- */

static unsigned crtc_base(const struct vga *v)
{
	return v->misc & MISC_COLOR ? COLOR : MONO;
}

static uint8_t crtc_read(struct vga *v, unsigned reg)
{
	switch (reg) {
	case 0: return v->crtc_index;
	case 1: return v->crtc[v->crtc_index & 31];
	case 6: v->attr_data = false; return status(v);
	default: return 0xff;
	}
}

static void crtc_write(struct vga *v, unsigned reg, uint8_t val)
{
	unsigned i = v->crtc_index & 31;

	switch (reg) {
	case 0: v->crtc_index = val & 0x3f; break;
	case 1:
		if (i < 8 && (v->crtc[0x11] & CRTC_PROTECT))
			val = i == 7 ? (uint8_t)((v->crtc[7] & ~0x10) | (val & 0x10)) : v->crtc[i];
		v->crtc[i] = val;
		break;
	case 6: v->feature = val; break;
	default: break;
	}
}

/* ---- palette ---- */

static uint8_t dac_data(struct vga *v)
{
	uint8_t val = v->dac[(v->dac_read * 3 + v->dac_part) % sizeof v->dac];

	if (++v->dac_part == 3) {
		v->dac_part = 0;
		v->dac_read++;
	}
	return val;
}

static void dac_store(struct vga *v, uint8_t val)
{
	v->dac[(v->dac_write * 3 + v->dac_part) % sizeof v->dac] = val & 0x3f;
	if (++v->dac_part == 3) {
		v->dac_part = 0;
		v->dac_write++;
	}
}

/* ---- ports ---- */

static uint64_t vga_read(void *dev, uint64_t off, unsigned size)
{
	struct vga *v = dev;

	if (off - crtc_base(v) < 8)
		return crtc_read(v, (unsigned)off - crtc_base(v));
	switch (off) {
	case ATTR: return v->attr_index;
	case ATTR_READ: return v->attr[v->attr_index & 31];
	case MISC_WRITE: return 0x10; /* a colour display is there */
	case SEQ: return v->seq_index;
	case SEQ + 1: return v->seq[v->seq_index & 7];
	case DAC_MASK: return v->dac_mask;
	case DAC_READ: return v->dac_state;
	case DAC_WRITE: return v->dac_write;
	case DAC_DATA: return dac_data(v);
	case FEATURE_READ: return v->feature;
	case MISC_READ: return v->misc;
	case GFX: return v->gfx_index;
	case GFX + 1: return v->gfx[v->gfx_index & 15];
	default: return 0xff;
	}
}

static void attr_write(struct vga *v, uint8_t val)
{
	if (v->attr_data)
		v->attr[v->attr_index & 31] = val;
	else
		v->attr_index = val & 0x3f;
	v->attr_data = !v->attr_data;
}

static void vga_write(void *dev, uint64_t off, uint64_t value, unsigned size)
{
	struct vga *v = dev;
	uint8_t val = (uint8_t)value;

	if (off - crtc_base(v) < 8) {
		crtc_write(v, (unsigned)off - crtc_base(v), val);
		return;
	}
	switch (off) {
	case ATTR: attr_write(v, val); break;
	case MISC_WRITE: v->misc = val; break;
	case SEQ: v->seq_index = val & 7; break;
	case SEQ + 1: v->seq[v->seq_index & 7] = val; break;
	case DAC_MASK: v->dac_mask = val; break;
	case DAC_READ:
		v->dac_read = val;
		v->dac_part = 0;
		v->dac_state = 3;
		break;
	case DAC_WRITE:
		v->dac_write = val;
		v->dac_part = v->dac_state = 0;
		break;
	case DAC_DATA: dac_store(v, val); break;
	case GFX: v->gfx_index = val & 15; break;
	case GFX + 1: v->gfx[v->gfx_index & 15] = val; break;
	default: break;
	}
}

const struct bus_ops vga_ops = {vga_read, vga_write, 1};

/* ---- the picture ---- */

void vga_screen(const struct vga *v, struct vga_screen *s)
{
	unsigned lines = 1u + (v->crtc[0x12] | (unsigned)(v->crtc[7] & 2) << 7 | (unsigned)(v->crtc[7] & 0x40) << 3);
	unsigned cell = (v->crtc[9] & 0x1f) + 1u;

	*s = (struct vga_screen){.graphics = v->gfx[6] & 1};
	s->columns = v->crtc[1] + 1u < VGA_COLUMNS ? v->crtc[1] + 1u : VGA_COLUMNS;
	s->rows = lines / cell < VGA_ROWS ? lines / cell : VGA_ROWS;
	s->start = (((unsigned)v->crtc[0xc] << 8 | v->crtc[0xd]) * 2) & 0x7fff;
	s->pitch = v->crtc[0x13] * 4u;
}

/* As in mode 3, where a guest that looks before any BIOS ran sees 80x25 characters. */
void vga_reset(struct vga *v)
{
	struct hclock *clock = v->clock;

	*v = (struct vga){.clock = clock, .misc = 0x67, .dac_mask = 0xff, .attr_index = ATTR_ON};
	v->crtc[1] = 79;
	v->crtc[7] = 0x1f;
	v->crtc[9] = 15;
	v->crtc[0x12] = 0x8f;
	v->crtc[0x13] = 40;
	v->gfx[6] = 0xe;
}

void vga_init(struct vga *v, struct hclock *clock)
{
	v->clock = clock;
	vga_reset(v);
}

/* ---- what is saved ---- */

static const struct save_row vga_save_rows[] = {
	SAVE(struct vga, misc),       SAVE(struct vga, feature),    SAVE(struct vga, seq_index),
	SAVE_ARRAY(struct vga, seq),  SAVE(struct vga, gfx_index),  SAVE_ARRAY(struct vga, gfx),
	SAVE(struct vga, crtc_index), SAVE_ARRAY(struct vga, crtc), SAVE(struct vga, attr_index),
	SAVE_ARRAY(struct vga, attr), SAVE(struct vga, attr_data),  SAVE(struct vga, dac_mask),
	SAVE(struct vga, dac_read),   SAVE(struct vga, dac_write),  SAVE_MAX(struct vga, dac_part, 2),
	SAVE(struct vga, dac_state),  SAVE_ARRAY(struct vga, dac),  SAVE_OMIT(struct vga, clock, SAVE_WIRED),
};
SAVE_TABLE(vga_save, struct vga, "vga");

/*
 * Golden text: a list of guest instructions is translated and what comes out is
 * compared with a stored text, so that a change of the translator shows as a
 * diff of the code it makes and of its size.  Rewritten by `make golden-update`.
 *
 * The host code of one guest instruction lies between the first calls that the
 * translator makes for it and for the next one into its other files; these calls
 * are caught here (the linker's --wrap, see Makefile.am).
 *
 * Invariant: every case starts with an empty code cache, so its numbers (sites,
 * cells) never depend on its neighbours.
 */
#include "golden.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "btvm.h"
#include "disasm.h"
#include "tests/fuzz/verify.h"
#include "vcpu/bt/tr.h"
#include "vcpu/cpu/feature.h"

struct part {
	uint32_t off;
	uint16_t insn;
	bool cold;
};

#define MAX_PARTS 512
static struct {
	struct part part[MAX_PARTS];
	unsigned n;
	struct insn in[BT_MAX_INSNS];
	unsigned n_insns;
} seen;

static void note(const struct tr *t, bool cold)
{
	uint32_t off = (uint32_t)(t->c.p - t->bt->rw);
	const struct part *last = seen.n ? &seen.part[seen.n - 1] : NULL;

	if (t->i >= t->n || seen.n == MAX_PARTS)
		return;
	if (last && !cold && (last->cold || last->insn == t->i))
		return;
	seen.part[seen.n++] = (struct part){off, (uint16_t)t->i, cold};
	seen.n_insns = t->n;
	memcpy(seen.in, t->in, t->n * sizeof seen.in[0]);
}

#define WRAP_INSN(fn)                                          \
	void __real_##fn(struct tr *t, const struct insn *in); \
	void __wrap_##fn(struct tr *t, const struct insn *in); \
	void __wrap_##fn(struct tr *t, const struct insn *in)  \
	{                                                      \
		note(t, false);                                \
		__real_##fn(t, in);                            \
	}
#define WRAP_COLD(fn)                                         \
	void __real_##fn(struct tr *t, const struct cold *k); \
	void __wrap_##fn(struct tr *t, const struct cold *k); \
	void __wrap_##fn(struct tr *t, const struct cold *k)  \
	{                                                     \
		note(t, true);                                \
		__real_##fn(t, k);                            \
	}

WRAP_INSN(tr_mem_insn)
WRAP_INSN(tr_bt_insn)
WRAP_INSN(tr_xlat)
WRAP_INSN(tr_maskmov)
WRAP_INSN(tr_lea)
WRAP_INSN(tr_push)
WRAP_INSN(tr_pop)
WRAP_INSN(tr_leave)
WRAP_INSN(tr_jcc)
WRAP_INSN(tr_loop)
WRAP_INSN(tr_jmp)
WRAP_INSN(tr_call)
WRAP_INSN(tr_indirect)
WRAP_INSN(tr_ret)
WRAP_INSN(tr_sys_inline)
WRAP_INSN(tr_gather_inline)
WRAP_COLD(tr_cold_mem)
WRAP_COLD(tr_cold_exit)
WRAP_COLD(tr_cold_trampoline)
WRAP_COLD(tr_cold_indirect)
WRAP_COLD(tr_cold_gather)

void __real_tr_need(struct tr *t, uint16_t regs);
void __wrap_tr_need(struct tr *t, uint16_t regs);
void __wrap_tr_need(struct tr *t, uint16_t regs)
{
	note(t, false);
	__real_tr_need(t, regs);
}

void __real_tr_helper(struct tr *t, const struct insn *in, enum site_kind kind);
void __wrap_tr_helper(struct tr *t, const struct insn *in, enum site_kind kind);
void __wrap_tr_helper(struct tr *t, const struct insn *in, enum site_kind kind)
{
	note(t, in->cls > CLS_SYS); /* an inline one's way out is among the cold parts */
	__real_tr_helper(t, in, kind);
}

/* Bytes of host code for instruction @i: hot, then cold. */
static void sizes(const struct block *b, unsigned i, unsigned size[2])
{
	size[0] = size[1] = 0;
	for (unsigned k = 0; k < seen.n; k++)
		if (seen.part[k].insn == i)
			size[seen.part[k].cold] +=
				(k + 1 < seen.n ? seen.part[k + 1].off : b->host_end) - seen.part[k].off;
}

static void print_code(FILE *f, const struct bt *bt, const struct block *b, unsigned insn, bool cold)
{
	for (unsigned k = 0; k < seen.n; k++)
		if (seen.part[k].insn == insn && seen.part[k].cold == cold) {
			if (cold)
				fprintf(f, "  cold %u:\n", insn + 1);
			disasm_host(f, bt, b, seen.part[k].off, k + 1 < seen.n ? seen.part[k + 1].off : b->host_end);
		}
}

/* The guest's instructions with their hot code, then the cold code of each. */
static void print_block(FILE *f, const struct bt *bt, const struct block *b, uint64_t gva, unsigned shown)
{
	char text[128];
	unsigned size[2];

	for (unsigned i = 0; i < shown; i++) {
		const struct insn *in = &seen.in[i];

		disasm_guest(text, sizeof text, in->raw, in->len, mode_code_size(b->mode), gva);
		sizes(b, i, size);
		fprintf(f, "%u  %-48s ; %u guest, %u hot, %u cold\n", i + 1, text, in->len, size[0], size[1]);
		print_code(f, bt, b, i, false);
		gva += in->len;
	}
	for (unsigned i = 0; i < shown; i++)
		print_code(f, bt, b, i, true);
}

/* What follows a case: a jump to code that overwrites the flags, or reads them. */
static void place(struct vcpu *v, const struct golden_case *c, uint64_t gva, unsigned *insns)
{
	uint8_t code[256], page[4096];
	struct insn in;
	size_t off = c->off ? c->off : 0x100, n = btvm_hex(c->hex, code, sizeof code);

	for (size_t i = 0; i < sizeof page; i += 2) {
		page[i] = c->taken ? 0x11 : 0x31; /* adc eax, eax; xor eax, eax */
		page[i + 1] = 0xc0;
	}
	btvm_put(v, gva & 0x7fffff, page, sizeof page);
	btvm_put(v, (gva & 0x7fffff) + 4096, page, sizeof page);
	memcpy(code + n, "\xe9\x80\x00\x00\x00", 5);
	btvm_put(v, (gva & 0x7fffff) + off, code, n + 5);
	*insns = 0;
	for (size_t i = 0; i < n; i += in.len, (*insns)++)
		if (decode_insn(&in, code + i, n + 5 - i, mode_code_size(v->mode), feature_word(v)) != DECODE_OK)
			break;
}

/* A CPU of AMD's with every feature, whatever the host's is. */
static struct vcpu *machine(void)
{
	struct vcpu *v = btvm_reset();

	v->amd = 1;
	v->features = ~0ull;
	return v;
}

static void run_case(FILE *f, const struct golden_group *g, const struct golden_case *c, uint32_t *classes)
{
	struct vcpu *v = machine();
	uint64_t gva = g->gva + (c->off ? c->off : 0x100);
	const struct block *b;
	unsigned shown;
	char why[512];
	uint32_t n;

	btvm_mode(v, g->mode & MODE_USER ? 3 : 0, mode_code_size(g->mode));
	v->bt->have_bmi2 = !g->no_bmi2;
	v->xcr0_mask = g->avx512 ? 7 | XCR0_AVX512_ONLY : 7;
	place(v, c, g->gva, &shown);
	v->rip = gva;
	v->ip_page = g->gva;
	memset(&seen, 0, sizeof seen);
	n = btvm_translate_at(v, gva & 0x7fffff, g->mode);
	fprintf(f, "== %s\n", c->name);
	if (n == BT_NONE) {
		fprintf(f, "(not translated)\n");
		return;
	}
	b = &v->bt->blocks[n];
	if (shown > seen.n_insns)
		shown = seen.n_insns;
	for (unsigned i = 0; i < shown; i++)
		*classes |= 1u << seen.in[i].cls;
	print_block(f, v->bt, b, gva, shown);
	if (verify_block(v, b, why, sizeof why))
		fprintf(f, "may not run: %s\n", why); /* in no stored text */
	fprintf(f, "\n");
}

bool golden_check(const struct golden_group *g, uint32_t *classes)
{
	bool update = getenv("HVX_GOLDEN_UPDATE") != NULL;
	char path[512], out[512], cmd[1200];
	FILE *f;
	int r;

	snprintf(path, sizeof path, "%s/%s.txt", GOLDEN_DIR, g->name);
	snprintf(out, sizeof out, "%s", path);
	if (!update)
		snprintf(out, sizeof out, "golden-%s.%d.out", g->name, (int)getpid());
	f = fopen(out, "w");
	if (!f) {
		fprintf(stderr, "%s: %s\n", out, strerror(errno));
		return false;
	}
	for (unsigned i = 0; i < g->n; i++)
		run_case(f, g, &g->cases[i], classes);
	fclose(f);
	if (update)
		return true;
	snprintf(cmd, sizeof cmd, "diff -u '%s' '%s' >&2", path, out);
	r = system(cmd);
	if (r)
		fprintf(stderr, "golden text %s differs: if that is intended, make golden-update\n", g->name);
	unlink(out);
	return r == 0;
}

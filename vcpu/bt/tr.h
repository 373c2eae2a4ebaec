/*
 * The state of one translation, shared by the translate_*.c files.
 *
 * Registers: a guest register is in its host register, or "spilled": its value is in vcpu.regs[] and
 * the host register is scratch.  Flags: in the host's (FLS_HOST), in vcpu.flags (FLS_SLOT), or nowhere because nothing will
 * read them (FLS_DEAD).  Both are lazy: they return to the host when an instruction needs them or the block ends.
 */
#ifndef HVX_TR_H
#define HVX_TR_H

#include "vcpu/bt/bt.h"
#include "vcpu/bt/decode.h"
#include "vcpu/bt/emit.h"

#define VOFF(f) offsetof(struct vcpu, f)
#define VREG(r) hm_gs(VOFF(regs) + 8u * (r))

#define ALL_REGS 0xffffu

enum ea_kind { EA_REG, EA_CONST, EA_PIC };

/* An effective address. */
struct ea {
	uint8_t kind;
	uint8_t base, index, scale;
	uint8_t seg;       /* SEG_FS, SEG_GS: add its base; else R_NONE */
	uint8_t seg_check; /* segment for the checked path */
	uint8_t addrsize;  /* 2, 4, 8 */
	int32_t disp;      /* EA_REG; EA_PIC: offset from ip_page */
	uint64_t value;    /* EA_CONST */
};

enum cold_kind {
	COLD_MEM,
	COLD_EXIT,
	COLD_TRAMPOLINE,
	COLD_INDIRECT,
	COLD_HELPER,
	COLD_RAISE,
	COLD_GATHER,
	COLD_SEG,
	COLD_STRING
};

struct cold {
	uint8_t kind, t1, t2, size, acc, fl, checked;
	bool known;     /* COLD_MEM: where in its page the operand lies */
	uint8_t store;  /* COLD_MEM of a plain store: STORES and its register */
	uint32_t range; /* COLD_MEM for a group: site_range() */
	uint16_t spill, insn;
	uint8_t *from;   /* rel32 that jumps here, or NULL */
	uint8_t *beyond; /* COLD_SEG: the same from the limit's check */
	uint8_t *hot,
		*hot2; /* COLD_MEM: after the check; after the addend is loaded.  COLD_GATHER: the last jump here; its end */
	uint8_t *after; /* COLD_MEM of a plain store: behind it */
	struct ea ea;
	uint32_t exit;
};
#define STORES        0x80
#define STORES_VECTOR 0x40
#define TR_MAX_COLD   384

/* Accesses through one register that share a check (addr_group.c): bytes [lo, hi) from the register as it is at the first. */
struct combo {
	int32_t lo, hi;
	uint16_t n;
	bool write, checked;
};
#define TR_MAX_COMBOS VCPU_COMBOS

struct tr {
	struct vcpu *v;
	struct bt *bt;
	struct emit c;
	struct bt_wait *why;
	uint32_t mode, block;
	bool pic, long_mode;
	bool window;  /* of the mode that has one */
	uint64_t gva; /* of the block; its page offset only when pic */
	uint64_t gpa;
	unsigned n, i;     /* instructions; the current one */
	bool ends;         /* the last instruction ends the block by itself */
	bool falls_across; /* what follows is on the next page or crosses into it */
	uint16_t spill;
	uint16_t clean; /* registers whose slots hold what they hold */
	uint8_t fl;
	bool slot_valid; /* vcpu.flags equals the host's flags */
	unsigned n_cold;
	uint64_t peek_parts;
	/* the rest is not cleared between blocks */
	uint16_t goff[BT_MAX_INSNS + 1];
	uint8_t live_in[BT_MAX_INSNS + 1]; /* flags live before instruction i */
	struct insn in[BT_MAX_INSNS];
	struct cold cold[TR_MAX_COLD];
	uint8_t n_combos;
	uint8_t held[16]; /* whose addend a scratch register holds, or R_NONE */
	struct combo combo[TR_MAX_COMBOS];
	uint8_t combo_of[BT_MAX_INSNS][2]; /* group of an instruction's explicit and stack operand, or R_NONE */
};

/* registers (translate_reg.c) */
void tr_need(struct tr *t, uint16_t regs);                  /* bring back spilled registers */
void tr_need_at_exit(struct tr *t);                         /* all of them, or all but the spare ones */
uint8_t tr_scratch(struct tr *t, uint16_t avoid, bool low); /* a scratch register outside @avoid */
bool tr_spare_free(const struct tr *t, uint16_t avoid);     /* tr_scratch() will give the spare ones, for nothing */
void tr_take(struct tr *t, uint8_t reg);                    /* make @reg scratch */
void tr_wrote(struct tr *t, uint16_t regs);                 /* the guest instruction wrote them */
/* flags */
void tr_flags_clobber(struct tr *t, uint16_t busy);                    /* host flags are about to be lost */
void tr_flags_restore(struct tr *t, uint16_t busy);                    /* back in the host's */
void tr_flags_for(struct tr *t, const struct insn *in, uint16_t busy); /* what @in needs before it runs */
void tr_flags_after(struct tr *t, const struct insn *in);

/* sites (translate.c) */
uint32_t tr_site(struct tr *t, enum site_kind kind);
uint32_t tr_sys(struct tr *t, const struct insn *in);

/* memory (translate_mem.c) */
struct ea tr_ea(struct tr *t, const struct insn *in);
struct ea tr_ea_stack(struct tr *t, uint8_t base, int32_t disp);
void tr_form_ea(struct tr *t, const struct ea *e, uint8_t dst, int32_t extra);
/* Emits the check of an access, by the first strategy that takes it (addr.h), and returns the host operand; @t1, @t2 are
 * scratch (t2 stays in use until the access). */
struct hmem tr_access(struct tr *t, const struct ea *e, unsigned size, unsigned acc, uint8_t t1, uint8_t t2);
void tr_mem_insn(struct tr *t, const struct insn *in);
void tr_bt_insn(struct tr *t, const struct insn *in);
void tr_xlat(struct tr *t, const struct insn *in);
void tr_maskmov(struct tr *t, const struct insn *in);
void tr_lea(struct tr *t, const struct insn *in);
void tr_cold_mem(struct tr *t, const struct cold *k);
void tr_cold_seg(struct tr *t, const struct cold *k);

/* The operand of an access that a window serves (addr_window.c); clobbers no flags.  False: it does not. */
bool tr_window(struct tr *t, const struct ea *e, uint16_t avoid, bool low, struct hmem *m);
void tr_at_window(struct tr *t, const struct hmem *m); /* the access by @m comes next: if it may fault, a site */
uint16_t tr_regs_of(const struct hmem *m);

/* groups of accesses (addr_group.c) */
void tr_plan_combos(struct tr *t);
/* The operand of an access whose group has been checked; clobbers no flags.  False: it has not, use tr_access(). */
bool tr_combined(struct tr *t, const struct ea *e, unsigned acc, uint16_t avoid, bool low, struct hmem *m);

/* control flow and stack (translate_flow.c) */
void tr_push(struct tr *t, const struct insn *in);
void tr_pop(struct tr *t, const struct insn *in);
void tr_leave(struct tr *t, const struct insn *in);
void tr_jcc(struct tr *t, const struct insn *in);
void tr_loop(struct tr *t, const struct insn *in);
void tr_jmp(struct tr *t, const struct insn *in);
void tr_call(struct tr *t, const struct insn *in);
void tr_indirect(struct tr *t, const struct insn *in);
void tr_ret(struct tr *t, const struct insn *in);
void tr_exit_apart(struct tr *t);
void tr_fallthrough(struct tr *t);
void tr_helper(struct tr *t, const struct insn *in, enum site_kind kind);
void tr_cold_exit(struct tr *t, const struct cold *k);
void tr_cold_trampoline(struct tr *t, const struct cold *k);
void tr_cold_indirect(struct tr *t, const struct cold *k);
void tr_cold_raise(struct tr *t); /* #GP(0) at the current instruction */

struct cold *tr_cold(struct tr *t, enum cold_kind kind);

/* gathers in place (translate_gather.c) */
bool tr_gather_inlinable(const struct tr *t, const struct insn *in);
void tr_gather_inline(struct tr *t, const struct insn *in);
void tr_cold_gather(struct tr *t, const struct cold *k);

/* movs and stos in place (translate_string.c) */
bool tr_string_inlinable(const struct tr *t, const struct insn *in);
void tr_string_inline(struct tr *t, const struct insn *in);

/* system instructions in place (translate_sys.c) */
bool tr_sys_inlinable(const struct tr *t, const struct insn *in);
bool tr_sys_ends(const struct insn *in); /* changes the mode: the block ends there all the same */
void tr_sys_inline(struct tr *t, const struct insn *in);
void tr_exit_to_mode(struct tr *t, uint32_t mode);

/* glue.S: where stubs jump to */
extern const uint8_t glue_mem[], glue_mem_checked[], glue_exit[], glue_sys[], glue_gather[];
extern const uint8_t glue_indirect[], glue_indirect_step[], glue_stale[];

#endif

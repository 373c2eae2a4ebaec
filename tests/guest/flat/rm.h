/*
 * Running pieces of 16-bit code in real mode: down from 32-bit protected mode,
 * registers loaded, and back with the vector that ended it.
 *
 *   0x00000 interrupt vectors   0x05000 RM_SEG: the way down and up, a stub for each vector
 *   0x10000 RM_CODE             0x20000 RM_STACK       0x30000 RM_DATA
 *
 * Invariant: the stubs use no stack of the code that is tested; its frame is where the CPU put it.
 */
#ifndef FLAT_RM_H
#define FLAT_RM_H

#include "rt.h"

#define RM_SEG   0x0500
#define RM_CODE  0x1000
#define RM_STACK 0x2000
#define RM_DATA  0x3000
#define RM_IP    0x100
#define RM_CS16  0x80 /* 16-bit code with RM_SEG's base */
#define RM_DS16  0x88 /* what the data segments are left with: 64 KiB; changed by rm_big() */
#define RM_SS16  0x90

struct rm {
	uint32_t ax, cx, dx, bx, sp, bp, si, di;
	uint32_t ip;
	uint16_t cs, ss, ds, es, fs, gs;
	uint32_t flags;
	uint32_t vec;
	uint16_t frame_ip, frame_cs, frame_flags; /* what lies on the stack at the end */
};

/* 16-bit code: its bytes from NAME to NAME_end. */
#define CODE16(name, text)                   \
	extern uint8_t name[], name##_end[]; \
	__asm__(".pushsection .text\n.code16\n" #name ": " text "\n" #name "_end:\n.code32\n.popsection\n")
#define END16 "\nint $0x80\n"

extern uint8_t rm_blob[], rm_blob_end[], rm_down[], rm_state[], rm_stubs[];
__asm__(".pushsection .text\n"
	".set RM, 0x5000\n"
	".code32\n"
	"rm_blob:\n"
	"rm_down: pushal\n"
	"	movl %esp, RM + rm_esp - rm_blob\n"
	"	lidtl RM + rm_idt16 - rm_blob\n"
	"	ljmpl $0x80, $(1f - rm_blob)\n"
	".code16\n"
	"1:	movw $0x88, %ax\n"
	"	movw %ax, %ds\n	movw %ax, %es\n	movw %ax, %fs\n	movw %ax, %gs\n"
	"	movw $0x90, %ax\n	movw %ax, %ss\n"
	"	movl %cr0, %eax\n	andl $~1, %eax\n	movl %eax, %cr0\n"
	"	ljmpw $0x500, $(1f - rm_blob)\n"
	"1:	movw %cs, %ax\n	movw %ax, %ds\n	movw %ax, %ss\n"
	"	movl $(rm_stack_top - rm_blob), %esp\n"
	"	pushl (rm_state - rm_blob + 48)\n	popfl\n"
	"	movw (rm_state - rm_blob + 42), %es\n	movw (rm_state - rm_blob + 44), %fs\n"
	"	movw (rm_state - rm_blob + 46), %gs\n"
	"	movl (rm_state - rm_blob + 0), %eax\n	movl (rm_state - rm_blob + 4), %ecx\n"
	"	movl (rm_state - rm_blob + 8), %edx\n	movl (rm_state - rm_blob + 12), %ebx\n"
	"	movl (rm_state - rm_blob + 20), %ebp\n	movl (rm_state - rm_blob + 24), %esi\n"
	"	movl (rm_state - rm_blob + 28), %edi\n"
	"	movw (rm_state - rm_blob + 38), %ss\n	movl (rm_state - rm_blob + 16), %esp\n"
	"	movw (rm_state - rm_blob + 40), %ds\n"
	"	ljmpw *%cs:(rm_target - rm_blob)\n"
	"rm_up:	cld\n" /* all that is known: cs */
	"	movl %eax, %cs:(rm_state - rm_blob + 0)\n	movl %ecx, %cs:(rm_state - rm_blob + 4)\n"
	"	movl %edx, %cs:(rm_state - rm_blob + 8)\n	movl %ebx, %cs:(rm_state - rm_blob + 12)\n"
	"	movl %esp, %cs:(rm_state - rm_blob + 16)\n	movl %ebp, %cs:(rm_state - rm_blob + 20)\n"
	"	movl %esi, %cs:(rm_state - rm_blob + 24)\n	movl %edi, %cs:(rm_state - rm_blob + 28)\n"
	"	movw %ss, %cs:(rm_state - rm_blob + 38)\n	movw %ds, %cs:(rm_state - rm_blob + 40)\n"
	"	movw %es, %cs:(rm_state - rm_blob + 42)\n	movw %fs, %cs:(rm_state - rm_blob + 44)\n"
	"	movw %gs, %cs:(rm_state - rm_blob + 46)\n"
	"	movl %cr0, %eax\n	orl $1, %eax\n	movl %eax, %cr0\n"
	"	ljmpl $8, $(RM + 1f - rm_blob)\n"
	".code32\n"
	"1:	movl $0x10, %eax\n"
	"	movl %eax, %ds\n	movl %eax, %es\n	movl %eax, %fs\n	movl %eax, %gs\n	movl %eax, %ss\n"
	"	movl RM + rm_esp - rm_blob, %esp\n"
	"	pushl $2\n	popfl\n"
	"	popal\n	ret\n"
	"	.align 4\n"
	"rm_esp: .long 0\n"
	"rm_idt16: .word 0x3ff\n	.long 0\n"
	"	.align 4\n"
	"rm_target: .word 0, 0\n"
	"rm_state: .skip 64\n"
	"	.skip 256\n"
	"rm_stack_top:\n"
	"	.align 16\n"
	"rm_stubs:\n"
	".code16\n"
	".set vec, 0\n"
	".rept 256\n"
	"	.align 16\n"
	"	movw $vec, %cs:(rm_state - rm_blob + 52)\n"
	"	jmp rm_up\n"
	"	.set vec, vec + 1\n"
	".endr\n"
	".code32\n"
	"rm_blob_end:\n"
	".popsection\n");
extern uint8_t rm_target[], rm_idt16[];

static inline void *rm_low(const uint8_t *p)
{
	return (uint8_t *)0x5000 + (p - rm_blob);
}

static inline void *rm_linear(unsigned seg, uint32_t off)
{
	uint32_t at = seg * 16 + off;

	__asm__("" : "+r"(at)); /* low addresses are addresses too */
	return (void *)at;
}

static inline uint16_t rm_word(unsigned seg, uint32_t off)
{
	return *(volatile uint16_t *)rm_linear(seg, off);
}

/* Limit and size of what DS to GS and SS are left with when protected mode is left: 0xffff, 0 or 0xfffff, 12 (SDM 3A 9.9.2). */
static inline void rm_segments(uint32_t limit, unsigned flags)
{
	rt_gdt[RM_DS16 / 8] = seg_desc(0, limit, 0x93, flags);
	rt_gdt[RM_SS16 / 8] = seg_desc(0, limit, 0x93, flags);
}

static inline void rm_init(void)
{
	uint16_t *ivt = rm_linear(0, 0);

	memcpy(rm_linear(0, 0x5000), rm_blob, (size_t)(rm_blob_end - rm_blob));
	for (unsigned i = 0; i < 256; i++) {
		ivt[2 * i] = (uint16_t)(rm_stubs - rm_blob + 16 * (int)i);
		ivt[2 * i + 1] = RM_SEG;
	}
	rt_gdt[RM_CS16 / 8] = seg_desc(0x5000, 0xffff, 0x9b, 0);
	rm_segments(0xffff, 0);
}

static inline void rm_ivt_limit(uint16_t limit)
{
	*(uint16_t *)rm_low(rm_idt16) = limit;
}

static inline void rm_regs(struct rm *r)
{
	memset(r, 0, sizeof *r);
	r->cs = RM_CODE;
	r->ip = RM_IP;
	r->ss = RM_STACK;
	r->sp = 0x1000;
	r->ds = r->es = RM_DATA;
	r->flags = 2;
}

/* Code at its place without running it. */
static inline void rm_put(unsigned seg, uint32_t off, const uint8_t *from, const uint8_t *to)
{
	memcpy(rm_linear(seg, off), from, (size_t)(to - from));
}

/* Runs what is at r->cs:r->ip; returns the vector that ended it, everything else in @r. */
static inline int rm_run(struct rm *r)
{
	uint16_t *t = rm_low(rm_target);
	struct rm *low = rm_low(rm_state);

	t[0] = (uint16_t)r->ip;
	t[1] = r->cs;
	memcpy(low, r, sizeof *r);
	__asm__ volatile("call *%0" ::"r"(rm_low(rm_down)) : "memory", "cc");
	rt_load_idt();
	memcpy(r, low, offsetof(struct rm, frame_ip));
	r->vec &= 0xffff;
	r->frame_ip = rm_word(r->ss, (uint16_t)r->sp);
	r->frame_cs = rm_word(r->ss, (uint16_t)(r->sp + 2));
	r->frame_flags = rm_word(r->ss, (uint16_t)(r->sp + 4));
	return (int)r->vec;
}

#define RM_GO(r, code) (rm_put((r)->cs, (r)->ip, code, code##_end), rm_run(r))

#endif

/*
 * Runtime of the flat guests: console, checks, traps, entering code with a
 * given register state.  Guests run alone on the machine, in ring 0, all
 * memory below 4 GiB identity mapped (64-bit) or not paged (32-bit).
 * Invariant: while no TRY is active and no hook takes it, a trap is the end of the run.
 */
#ifndef FLAT_RT_H
#define FLAT_RT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned long word; /* a general register */

/* ---- selectors ---- */
#ifdef __x86_64__
enum {
	SEL_CODE = 0x08,
	SEL_DATA = 0x10,
	SEL_UCODE32 = 0x1b,
	SEL_UDATA = 0x23,
	SEL_UCODE = 0x2b,
	SEL_UDATA2 = 0x33,
	SEL_CODE32 = 0x38,
	SEL_TSS = 0x40,
	SEL_FREE = 0x50
};
#else
enum {
	SEL_CODE = 0x08,
	SEL_DATA = 0x10,
	SEL_UCODE = 0x1b,
	SEL_UDATA = 0x23,
	SEL_TSS = 0x28,
	SEL_TSS2 = 0x30,
	SEL_FREE = 0x50
};
#endif
enum {
	VEC_DE,
	VEC_DB,
	VEC_NMI,
	VEC_BP,
	VEC_OF,
	VEC_BR,
	VEC_UD,
	VEC_NM,
	VEC_DF,
	VEC_TS = 10,
	VEC_NP,
	VEC_SS,
	VEC_GP,
	VEC_PF,
	VEC_MF = 16,
	VEC_AC,
	VEC_MC,
	VEC_XM,
	VEC_END = 0x80
};

#define FL_CF   0x001u
#define FL_FIX  0x002u
#define FL_ZF   0x040u
#define FL_TF   0x100u
#define FL_IF   0x200u
#define FL_DF   0x400u
#define FL_OF   0x800u
#define FL_IOPL 0x3000u
#define FL_NT   0x4000u
#define FL_RF   0x10000u
#define FL_VM   0x20000u
#define FL_AC   0x40000u
#define FL_VIF  0x80000u
#define FL_VIP  0x100000u
#define FL_ID   0x200000u

/* ---- register state at a trap, in the order start*.S saves it ---- */
#ifdef __x86_64__
struct regs {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, bp, di, si, dx, cx, bx, ax;
	uint64_t vec, err, ip, cs, flags, sp, ss;
};
struct jmp {
	uint64_t bx, bp, r12, r13, r14, r15, sp, ip;
};
#else
struct regs {
	uint32_t gs, fs, es, ds, di, si, bp, spx, bx, dx, cx, ax;
	uint32_t vec, err, ip, cs, flags, sp, ss; /* sp, ss only with a change of privilege */
	uint32_t v_es, v_ds, v_fs, v_gs;          /* only from and to virtual-8086 mode (flags: VM) */
};
#define REGS_FRAME offsetof(struct regs, v_es) /* what the stack takes outside virtual-8086 mode */
struct jmp {
	uint32_t bx, bp, si, di, sp, ip;
};
#endif

struct trap {
	int vec;
	word err, cr2;
	struct regs r;
	word handler_sp; /* stack pointer the handler ran with */
};

extern struct trap rt_last; /* the last trap that ended a TRY */
extern struct jmp *rt_jmp;  /* the innermost TRY */
/* Looks at a trap first; true: handled, return to the (changed) registers. */
extern bool (*rt_hook)(struct regs *r);

int rt_setjmp(struct jmp *j) __attribute__((returns_twice));
void rt_longjmp(struct jmp *j) __attribute__((noreturn));
void rt_enter(struct regs *r) __attribute__((noreturn)); /* load everything and iret */
void rt_trap(struct regs *r);
int rt_run(const struct regs *r);             /* enters @r; the vector of the trap that ends it, the state in rt_last */
void rt_regs(struct regs *r, const void *ip); /* ring 0, own stack */
void rt_user_regs(struct regs *r, const void *ip); /* ring 3, own stack */
extern uint8_t rt_user_stack[8192], rt_run_stack[8192], rt_stack0[8192], rt_ist_stack[7][4096];

/* Runs @stmt; the vector that ended it, or -1. */
#define TRY(stmt)                                         \
	({                                                \
		struct jmp jmp_, *volatile old_ = rt_jmp; \
		volatile int vec_ = -1;                   \
		rt_jmp = &jmp_;                           \
		if (!rt_setjmp(&jmp_)) {                  \
			stmt;                             \
		} else {                                  \
			vec_ = rt_last.vec;               \
		}                                         \
		rt_jmp = old_;                            \
		vec_;                                     \
	})

/* ---- checks ---- */
void check(const char *name, bool ok, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void check_eq(const char *name, word got, word want);
void check_trap(const char *name, int vec, int want_vec, word want_err); /* want_err ~0: do not care */
void skip(const char *name, const char *why);
struct batch { /* many cases, one line */
	const char *name;
	unsigned cases, bad;
};
void batch_case(struct batch *b, bool ok, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void batch_end(struct batch *b);
unsigned rt_failures(void); /* "not ok" so far */
void rt_exit(uint32_t value) __attribute__((noreturn));
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void flat_main(void); /* the guest */
extern uint32_t rt_boot_magic, rt_boot_info;

void *memset(void *d, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* ---- descriptors ---- */
extern uint64_t rt_gdt[32];
#ifdef __x86_64__
struct tss {
	uint32_t res0;
	uint64_t rsp[3], res1, ist[7], res2;
	uint16_t res3, iomap;
	uint8_t iobits[8192 + 1];
} __attribute__((packed));
struct gate {
	uint16_t off0, sel;
	uint8_t ist, type;
	uint16_t off1;
	uint32_t off2, res;
};
#else
struct tss {
	uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags, eax, ecx, edx, ebx, esp, ebp, esi, edi, es,
		cs, ss, ds, fs, gs, ldt;
	uint16_t trap, iomap;
	uint8_t iobits[8192 + 1];
} __attribute__((packed));
struct gate {
	uint16_t off0, sel;
	uint8_t ist, type;
	uint16_t off1;
};
#endif
extern struct tss rt_tss;
extern struct gate rt_idt[256];
extern char rt_stubs[];                                                   /* 16 bytes per vector */
void gate_set(unsigned vec, const void *fn, unsigned type, unsigned ist); /* type: P, DPL, gate type */
struct dtr {
	uint16_t limit;
	word base;
} __attribute__((packed));
uint64_t seg_desc(uint32_t base, uint32_t limit, unsigned access, unsigned flags); /* flags: G 8, D 4, L 2 */
void rt_load_idt(void);
void rt_load_gdt(void);

/* ---- the CPU ---- */
struct cpu {
	bool tcg, amd, intel, hvx;
	bool nx, page1g, smep, smap, pcid, invpcid, fsgsbase, umip, pge, xsave, tscdl, x2apic, rdtscp, rdpid, la57;
	unsigned maxphys;
};
extern struct cpu cpu;
#define SKIP_TCG(name, why)              \
	if (cpu.tcg) {                   \
		skip(name, "TCG: " why); \
	} else

static inline void cpuid(uint32_t leaf, uint32_t sub, uint32_t *a, uint32_t *b, uint32_t *c, uint32_t *d)
{
	__asm__ volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "a"(leaf), "c"(sub));
}
static inline void outb(uint16_t p, uint8_t v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(p));
}
static inline void outw(uint16_t p, uint16_t v)
{
	__asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(p));
}
static inline void outl(uint16_t p, uint32_t v)
{
	__asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(p));
}
static inline uint8_t inb(uint16_t p)
{
	uint8_t v;
	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(p));
	return v;
}
static inline uint16_t inw(uint16_t p)
{
	uint16_t v;
	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(p));
	return v;
}
static inline uint32_t inl(uint16_t p)
{
	uint32_t v;
	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(p));
	return v;
}
static inline uint64_t rdmsr(uint32_t n)
{
	uint32_t lo, hi;
	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(n));
	return lo | (uint64_t)hi << 32;
}
static inline void wrmsr(uint32_t n, uint64_t v)
{
	__asm__ volatile("wrmsr" ::"c"(n), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;
	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return lo | (uint64_t)hi << 32;
}
#define CR_ACCESS(n)                                                        \
	static inline word rd_cr##n(void)                                   \
	{                                                                   \
		word v;                                                     \
		__asm__ volatile("mov %%cr" #n ", %0" : "=r"(v)::"memory"); \
		return v;                                                   \
	}                                                                   \
	static inline void wr_cr##n(word v)                                 \
	{                                                                   \
		__asm__ volatile("mov %0, %%cr" #n ::"r"(v) : "memory");    \
	}
CR_ACCESS(0)
CR_ACCESS(2)
CR_ACCESS(3)
CR_ACCESS(4)
#ifdef __x86_64__
CR_ACCESS(8)
#endif
#define DR_ACCESS(n)                                              \
	static inline word rd_dr##n(void)                         \
	{                                                         \
		word v;                                           \
		__asm__ volatile("mov %%dr" #n ", %0" : "=r"(v)); \
		return v;                                         \
	}                                                         \
	static inline void wr_dr##n(word v)                       \
	{                                                         \
		__asm__ volatile("mov %0, %%dr" #n ::"r"(v));     \
	}
DR_ACCESS(0)
DR_ACCESS(1)
DR_ACCESS(2)
DR_ACCESS(3)
DR_ACCESS(6)
DR_ACCESS(7)
static inline void invlpg(const void *p)
{
	__asm__ volatile("invlpg (%0)" ::"r"(p) : "memory");
}
static inline word rd_flags(void)
{
	word f;
	__asm__ volatile("pushf; pop %0" : "=r"(f));
	return f;
}
static inline void cli(void)
{
	__asm__ volatile("cli" ::: "memory");
}
static inline void sti(void)
{
	__asm__ volatile("sti" ::: "memory");
}

#define CR0_MP       0x2u
#define CR0_EM       0x4u
#define CR0_TS       0x8u
#define CR0_NE       0x20u
#define CR0_WP       0x10000u
#define CR0_AM       0x40000u
#define CR0_PG       0x80000000u
#define CR4_VME      0x1u
#define CR4_PVI      0x2u
#define CR4_TSD      0x4u
#define CR4_DE       0x8u
#define CR4_PSE      0x10u
#define CR4_PAE      0x20u
#define CR4_PGE      0x80u
#define CR4_OSXMM    0x400u
#define CR4_UMIP     0x800u
#define CR4_FSGSBASE 0x10000u
#define CR4_PCIDE    0x20000u
#define CR4_OSXSAVE  0x40000u
#define CR4_SMEP     0x100000u
#define CR4_SMAP     0x200000u
#define MSR_EFER     0xc0000080u
#define EFER_SCE     1u
#define EFER_NXE     0x800u

#endif

/*
 * Several CPUs for 64-bit guests: found in the MADT, started by INIT and SIPI,
 * given jobs; inter-processor interrupts by xAPIC and x2APIC.
 * Invariant: what a CPU has of its own hangs on its gs; only the first CPU prints and has TRY.
 */
#ifndef FLAT_SMP_H
#define FLAT_SMP_H

#include "pt.h"

#define SMP_MAX      32
#define SMP_PAGE     0x8000u /* where APs start: SIPI vector 8 */
#define SMP_STACK    16384
#define LAPIC        0xfee00000ul
#define IOAPIC       0xfec00000ul
#define L_ID         0x20
#define L_VER        0x30
#define L_TPR        0x80
#define L_EOI        0xb0
#define L_LDR        0xd0
#define L_DFR        0xe0
#define L_SVR        0xf0
#define L_ISR        0x100
#define L_IRR        0x200
#define L_ESR        0x280
#define L_ICR        0x300
#define L_ICR2       0x310
#define L_TIMER      0x320
#define L_LINT0      0x350
#define L_LINT1      0x360
#define L_ERROR      0x370
#define L_INIT       0x380
#define L_CUR        0x390
#define L_DIV        0x3e0
#define MASKED       0x10000u
#define V_SPURIOUS   0xef
#define V_CALL       0xe1 /* smp_call_others() */
#define V_WAKE       0xe2 /* counted, nothing else */
#define ICR_FIXED    0x000u
#define ICR_LOWEST   0x100u
#define ICR_NMI      0x400u
#define ICR_INIT     0x500u
#define ICR_SIPI     0x600u
#define ICR_LOGICAL  0x800u
#define ICR_ASSERT   0x4000u
#define ICR_LEVEL    0x8000u
#define ICR_SELF     0x40000u
#define ICR_ALL      0x80000u
#define ICR_OTHERS   0xc0000u
#define MSR_GSBASE   0xc0000101u
#define MSR_TSC_AUX  0xc0000103u
#define MSR_APICBASE 0x1bu

struct smp_cpu {
	struct smp_cpu *self;    /* gs:0 */
	unsigned index;          /* 0: the first CPU */
	uint32_t apic;           /* APIC ID */
	bool x2;                 /* this CPU's APIC is in x2APIC mode */
	volatile unsigned lives; /* times it has come up */
	void (*volatile job)(void *arg);
	void *volatile arg;
	volatile unsigned jobs_done;
	volatile unsigned count[256];          /* interrupts by vector */
	bool (*volatile hook)(struct regs *r); /* looks at a trap before anything else does */
	void (*volatile at_start)(void);       /* runs when it comes up, before its APIC is enabled */
	volatile unsigned got_on; /* counts what shows that it runs: interrupts, ends of waits, turns of loops */
	uint32_t random;
} __attribute__((aligned(64)));

extern struct smp_cpu smp[SMP_MAX];
extern unsigned smp_n; /* CPUs of the machine */
extern uint8_t smp_stacks[SMP_MAX][SMP_STACK];

static inline struct smp_cpu *smp_self(void)
{
	struct smp_cpu *c;

	__asm__ volatile("movq %%gs:0, %0" : "=r"(c));
	return c;
}
static inline unsigned smp_me(void)
{
	return smp_self()->index;
}
static inline void pause(void)
{
	__asm__ volatile("pause" ::: "memory");
}
static inline void serialise(void)
{
	uint32_t a = 0, b, c = 0, d;

	__asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d)::"memory");
}
static inline uint32_t smp_random(struct smp_cpu *c)
{
	c->random = c->random * 1664525u + 1013904223u;
	return c->random >> 8;
}

/*
 * Who waits looks again as long as any CPU gets on.  When it has looked so often while none did, something is lost, and the run
 * ends with @what.  Looks are the CPU's own time, minutes of it: a host that is slow, or busy with others, does not use them up.
 */
#define SMP_LOOKS (1ull << 29)
struct patience {
	word looks;
	unsigned seen; /* of all CPUs' got_on, the sum */
};
void smp_look_again(struct patience *p, const char *what);
void smp_stuck(const char *what) __attribute__((noreturn));
static inline void smp_got_on(void)
{
	smp_self()->got_on++;
}
#define WAIT(cond, what)                           \
	do {                                       \
		struct patience p_ = {0, 0};       \
		while (!(cond))                    \
			smp_look_again(&p_, what); \
		smp_got_on();                      \
	} while (0)

/* Finds the CPUs, takes over traps, enables the own APIC.  False: there is only one (skipped and said so). */
bool smp_init(void);
void smp_start(unsigned n); /* INIT, SIPI; returns when it waits for jobs */
void smp_start_all(void);
void smp_give(unsigned n, void (*job)(void *), void *arg); /* an AP's next job, with interrupts on */
void smp_wait(unsigned n);                                 /* until it has done its job */
void smp_each(unsigned n, void (*job)(void *), void *arg); /* on CPUs 0 to n - 1 at once; returns when all are done */
void smp_call_others(void (*fn)(void *), void *arg); /* in an interrupt on every other CPU; returns when all have */

uint32_t lapic_read(unsigned reg);
void lapic_write(unsigned reg, uint32_t v);
void smp_icr(uint32_t dest, uint32_t low); /* writes the ICR of the own APIC in its mode, waits for delivery */
void smp_x2apic(bool on);                  /* the own APIC */
bool lapic_bit(unsigned base, unsigned vec);

struct barrier { /* all arrive, then all go */
	volatile unsigned in, turn;
};
void barrier(struct barrier *b, unsigned n);

word smp_option(const char *name, word otherwise); /* name=NUMBER on the command line */
#define TURNS(n) ((n)*smp_option("times", 1))

/* The IOAPIC. */
void ioapic_write(unsigned reg, uint32_t v);
uint32_t ioapic_read(unsigned reg);
extern uint64_t tsc_per_ms;
void smp_calibrate(void);
void delay_us(unsigned us);

#endif

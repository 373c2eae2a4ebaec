/*
 * The vcpu thread's signals: kicks, and host faults in translated code.
 * Invariant: a handler changes nothing but the interrupted context and what is
 * the CPU's own: its copy of a block, and cells.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "common/log.h"
#include "vcpu/bt/bt.h"
#include "vcpu/bt/exits.h"
#include "vcpu/bt/tr.h"
#include "vcpu/kick.h"

extern const uint8_t glue_load_begin[], glue_load_end[], glue_abort[], glue_fault[], glue_gone[];
extern const uint8_t glue_resume_begin[], glue_resume_end[], glue_resume_kicked[];

/* Register order of ucontext to ours. */
static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

/* Signal-safe from here to on_fault. */
static bool in_code_memory(const struct bt *bt, uint64_t rip, uint32_t *off)
{
	uint64_t base = (uint64_t)(uintptr_t)bt->rx;

	if (rip < base || rip >= base + BT_CODE_SIZE)
		return false;
	*off = (uint32_t)(rip - base);
	return true;
}

/* The block whose code is at @off, and in *orig where it is there: the CPU may be in its copy of a block. */
static uint32_t block_at(const struct vcpu *v, uint32_t off, uint32_t *orig)
{
	*orig = copy_original(v, off);
	return block_by_host(v->bt, *orig);
}

/* Between an indirect exit's look-up and its jump: r10 is the page of the target, r11 its block's entry. */
static void kick_target(struct vcpu *v, greg_t *g)
{
	uint32_t off, b;

	v->ip_page = (uint64_t)g[REG_R10] & ~GUEST_PAGE_MASK;
	g[REG_RIP] = g[REG_R11]; /* of a block that is gone: leads to C */
	if (in_code_memory(v->bt, (uint64_t)g[REG_R11], &off) && (b = block_by_host(v->bt, off)) != BT_NONE &&
	    !v->bt->blocks[b].dead)
		g[REG_RIP] = (greg_t)(uintptr_t)bt_rx(v->bt, copy_make(v, b) + off - v->bt->blocks[b].host_start);
}

/*
 * In translated code the CPU goes on in a copy of the block that leads to C alone.  What is on its way into translated code turns
 * round; what is in C looks at vcpu.kick before it goes there.
 */
static void kick_running(struct vcpu *v, greg_t *g)
{
	struct bt *bt = v->bt;
	uint64_t rip = (uint64_t)g[REG_RIP];
	const struct block *k;
	uint32_t off, b;

	v->kick = 1;
	if (in_code_memory(bt, rip, &off)) {
		b = block_by_host(bt, off);
		if (b == BT_NONE) /* in the copy */
			return;
		k = &bt->blocks[b];
		if (k->ind_gone != BT_NONE && off > k->ind_jmp && off <= k->ind_gone) {
			kick_target(v, g);
			return;
		}
		if (k->ind_jmp != BT_NONE && off >= k->ind_jne && off <= k->ind_jmp)
			off = k->ind_cold;
		g[REG_RIP] = (greg_t)(uintptr_t)bt_rx(bt, copy_make(v, b) + off - bt->blocks[b].host_start);
	} else if (rip >= (uint64_t)(uintptr_t)glue_load_begin && rip < (uint64_t)(uintptr_t)glue_load_end) {
		g[REG_RIP] = (greg_t)(uintptr_t)glue_abort;
	} else if (rip >= (uint64_t)(uintptr_t)glue_resume_begin && rip < (uint64_t)(uintptr_t)glue_resume_end) {
		g[REG_RIP] = (greg_t)(uintptr_t)glue_resume_kicked;
	}
}

/* A slow path is about to go back into translated code, and there is a kick: into the copy. */
void bt_c_kicked(struct vcpu *v)
{
	uint32_t off, orig, b;

	if (!in_code_memory(v->bt, v->resume, &off) || (b = block_at(v, off, &orig)) == BT_NONE || orig != off)
		return;
	v->resume = (uint64_t)(uintptr_t)bt_rx(v->bt, copy_make(v, b) + off - v->bt->blocks[b].host_start);
}

static void on_kick(int sig, siginfo_t *si, void *ctx)
{
	struct vcpu *v = kick_this();
	int saved = errno;

	(void)sig;
	if (v) {
		/* Of two signals that are pending together the kernel keeps one, but for timers'.  So each may stand for a
		 * device process's pipe (vcpu/cards.c) as well. */
		atomic_fetch_or(&v->pending, si->si_code == SI_TIMER ? PEND_TIMER | PEND_CALL : PEND_CALL);
		v->stats.kicks++;
		kick_running(v, ((ucontext_t *)ctx)->uc_mcontext.gregs);
	}
	errno = saved;
}

static uint16_t flags_of_eflags(uint64_t f)
{
	return (uint16_t)((f & 0xff) << 8 | (f >> 11 & 1));
}

static void save_regs(struct vcpu *v, const greg_t *g)
{
	for (int r = 0; r < 16; r++)
		v->host_regs[r] = (uint64_t)g[greg_of[r]];
	v->host_flags = flags_of_eflags((uint64_t)g[REG_EFL]);
}

/*
 * The engine's own fault: with the signal blocked it is fatal when it comes again on return.  What others see is the process's
 * end alone, so it is told where it was; C's addresses are distances from bt_enter().
 */
static void die_of(int sig, const siginfo_t *si, ucontext_t *ctx)
{
	const greg_t *g = ctx->uc_mcontext.gregs;
	const struct vcpu *v = kick_this();
	uint32_t off;

	sigaddset(&ctx->uc_sigmask, sig);
	log_before = NULL;
	if (v && in_code_memory(v->bt, (uint64_t)g[REG_RIP], &off))
		log_error("signal %d, code %d, vector %d in translated code at 0x%x, address 0x%llx", sig, si->si_code,
			  (int)g[REG_TRAPNO], off, (unsigned long long)g[REG_CR2]);
	else
		log_error("signal %d, code %d, vector %d in C at 0x%llx, address 0x%llx", sig, si->si_code,
			  (int)g[REG_TRAPNO], (unsigned long long)g[REG_RIP] - (uintptr_t)bt_enter,
			  (unsigned long long)g[REG_CR2]);
	if (v)
		log_error("cpu %d: rip 0x%llx, mode 0x%x, page 0x%llx, site %u, exit %u, copy of %u, let go %u times, "
			  "%u blocks, %u flushes",
			  v->id, (unsigned long long)v->rip, v->mode, (unsigned long long)v->ip_page, v->site, v->exit,
			  v->copy_of, v->world.lets, v->bt->n_blocks, v->bt->flushes);
}

/* The int3 at an entry of a block that is gone (entries_forget()). */
static void on_trap(int sig, siginfo_t *si, void *ctx)
{
	greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;
	struct vcpu *v = kick_this();
	uint32_t off, b = BT_NONE;
	bool spare;
	uint8_t fl;

	if (v && in_code_memory(v->bt, (uint64_t)g[REG_RIP] - 1, &off))
		b = block_at(v, off, &off);
	if (b == BT_NONE || !block_entered_at(&v->bt->blocks[b], off, &spare, &fl)) {
		g[REG_RIP]--;
		die_of(sig, si, ctx);
		return;
	}
	v->stats.signals++;
	save_regs(v, g);
	v->site = b;
	v->exit = off;
	g[REG_EFL] &= ~(greg_t)RFL_DF;
	g[REG_RSP] = (greg_t)v->engine_sp; /* as in on_fault() */
	g[REG_RIP] = (greg_t)(uintptr_t)glue_gone;
}

static void on_fault(int sig, siginfo_t *si, void *ctx)
{
	greg_t *g = ((ucontext_t *)ctx)->uc_mcontext.gregs;
	struct vcpu *v = kick_this();
	struct bt *bt = v ? v->bt : NULL;
	uint32_t off, b;

	if (!bt || !in_code_memory(bt, (uint64_t)g[REG_RIP], &off) || (b = block_at(v, off, &off)) == BT_NONE ||
	    (g[REG_TRAPNO] == EXC_PF && !mode_has_window(bt, bt->blocks[b].mode))) {
		die_of(sig, si, ctx);
		return;
	}
	v->stats.signals++;
	save_regs(v, g);
	v->site = (uint32_t)(site_by_host(bt, &bt->blocks[b], off) - bt->sites);
	v->fault_vector = (uint16_t)g[REG_TRAPNO];
	v->fault_error = (uint16_t)g[REG_ERR];
	v->mem_gva = (uint64_t)g[REG_CR2];
	v->resume = (uint64_t)g[REG_RIP];
	g[REG_EFL] &= ~(greg_t)RFL_DF;
	g[REG_RSP] = (greg_t)v->engine_sp; /* some hosts cannot return with one that is not canonical */
	g[REG_RIP] = (greg_t)(uintptr_t)glue_fault;
}

const void *bt_c_fault(struct vcpu *v)
{
	struct site s = v->bt->sites[v->site];
	unsigned vector = v->fault_vector;

	if ((vector == EXC_PF || vector == EXC_GP) && mode_has_window(v->bt, v->bt->blocks[s.block].mode))
		return window_fault(v, &s);
	state_sync(v, &s);
	v->stats.host_faults++;
	switch (vector) {
	case EXC_GP: raise_gp(v, 0); break;
	case EXC_XM:
		if (v->cr4 & CR4_OSXMMEXCPT)
			raise_exception(v, EXC_XM);
		else
			raise_ud(v);
		break;
	case EXC_AC: raise_error(v, EXC_AC, 0); break;
	default: raise_exception(v, vector); break;
	}
	return NULL;
}

int fault_install(void)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
	struct sigaction sa;

	memset(&sa, 0, sizeof sa);
	sigemptyset(&sa.sa_mask);
	sigaddset(&sa.sa_mask, SIGUSR1);
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sa.sa_sigaction = on_fault;
	for (unsigned i = 0; i < sizeof faults / sizeof *faults; i++)
		if (sigaction(faults[i], &sa, NULL) < 0)
			return -errno;
	sa.sa_sigaction = on_trap;
	if (sigaction(SIGTRAP, &sa, NULL) < 0)
		return -errno;
	sa.sa_sigaction = on_kick;
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
	return sigaction(SIGUSR1, &sa, NULL) < 0 ? -errno : 0;
}

int fault_init_thread(void)
{
	size_t size = 256u << 10;
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	stack_t ss = {.ss_sp = p, .ss_size = size};

	if (p == MAP_FAILED || sigaltstack(&ss, NULL) < 0)
		return -errno;
	return 0;
}

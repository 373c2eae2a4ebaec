/*
 * A stub's guest thread is let go by answering the notification of its stop, with a signal frame that this process has written; it
 * has stopped when there is a new one.  Invariant: the frame, which guest code can write while it runs, is guest state and
 * nothing else: each value is good for any program of ring 3 to have.
 */
#include "vcpu/direct/stub.h"

#include <errno.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "common/log.h"
#include "common/memory.h"
#include "vcpu/cpu/flags.h"
#include "vcpu/cpu/fpu.h"
#include "vcpu/cpu/segment.h"
#include "vcpu/cpu/sysinsn.h"
#include "vcpu/direct/select.h"

#define STACK_SIZE ((size_t)STUB_STACK_PAGES * STUB_PAGE)
#define SHARED     (STUB_PAGE + STACK_SIZE)
#define KICK_MS    500 /* a thread that has blocked our signal does not stop */
#define GO_ALL     (STUB_GO_FS | STUB_GO_GS | STUB_GO_SEGS)

/* The frame: the kernel's ucontext, whose signal mask has 64 bits, and the siginfo behind it. */
#define UC_SIZE (offsetof(ucontext_t, uc_sigmask) + 8)

/* xsave image (SDM 1 13.4): what of the legacy area is registers, what Linux has put into it, the header, AVX and more. */
enum { X_REGS = 416, X_MXCSR = 24, X_SOFTWARE = 464, X_HEADER = 512, X_HEADER_SIZE = 64, X_MORE = 576 };

#define USER_FLAGS (RFL_CF | RFL_PF | RFL_AF | RFL_ZF | RFL_SF | RFL_OF | RFL_DF | RFL_TF | RFL_NT | RFL_AC | RFL_ID)

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
				REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static ucontext_t *context(const struct stub *s)
{
	return (ucontext_t *)(s->stack + s->frame);
}

/* ---- set-up ---- */

static int receive(int channel, int fd[3])
{
	union {
		struct cmsghdr h;
		char buf[CMSG_SPACE(3 * sizeof(int))];
	} c;
	char byte;
	struct iovec iov = {&byte, 1};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = c.buf, .msg_controllen = sizeof c.buf};
	ssize_t n;

	do
		n = recvmsg(channel, &m, MSG_CMSG_CLOEXEC);
	while (n < 0 && errno == EINTR);
	if (n != 1 || !CMSG_FIRSTHDR(&m) || c.h.cmsg_len != CMSG_LEN(3 * sizeof(int)) || c.h.cmsg_type != SCM_RIGHTS)
		return n < 0 ? -errno : -ECONNRESET;
	memcpy(fd, CMSG_DATA(&c.h), 3 * sizeof(int));
	return 0;
}

/* Takes the notification that is there; false when there is none, or nobody is left to send one. */
static bool take(struct stub *s, uint64_t *segs)
{
	struct seccomp_notif n;

	memset(&n, 0, sizeof n);
	if (ioctl(s->listener, SECCOMP_IOCTL_NOTIF_RECV, &n) < 0)
		return false;
	s->id = n.id;
	*segs = n.data.args[3];
	return true;
}

/* Where the frame of the stub's first signal lies, all others will. */
static int find_frame(struct stub *s)
{
	const uint64_t restorer = s->area, stack = s->area + 2 * STUB_PAGE;
	struct _fpx_sw_bytes sw;
	uint64_t fpu;

	for (uint32_t off = 0; off + 8 + UC_SIZE + X_MORE < STACK_SIZE; off += 8) {
		uint64_t word;
		memcpy(&word, s->stack + off, 8);
		if (word != restorer)
			continue;
		s->frame = off + 8;
		fpu = (uint64_t)(uintptr_t)context(s)->uc_mcontext.fpregs - stack;
		if (fpu < off || fpu > STACK_SIZE - X_MORE)
			return -EPROTO;
		s->fpu = (uint32_t)fpu;
		memcpy(&sw, s->stack + fpu + X_SOFTWARE, sizeof sw);
		if (sw.magic1 != FP_XSTATE_MAGIC1 || sw.xstate_size < X_MORE || sw.xstate_size > STACK_SIZE - fpu)
			return -EPROTO;
		s->xstate = sw.xstate_bv;
		s->xstate_size = sw.xstate_size;
		if (s->xstate_size > sizeof(((struct cpu *)NULL)->fpu_area))
			s->xstate_size = sizeof(((struct cpu *)NULL)->fpu_area);
		s->pattern = memory_anon(STACK_SIZE);
		if (!s->pattern)
			return -ENOMEM;
		memcpy(s->pattern + off, s->stack + off, STACK_SIZE - off);
		s->o->frame_sp = stack + off + 8;
		return 0;
	}
	return -EPROTO;
}

int stub_init(struct stub *s, int channel)
{
	int fd[3] = {-1, -1, -1}, rc = receive(channel, fd);
	uint64_t segs;
	void *m;

	close(channel);
	if (rc)
		return rc;
	s->listener = fd[0];
	s->ack = fd[2];
	m = mmap(NULL, SHARED, PROT_READ | PROT_WRITE, MAP_SHARED, fd[1], 0);
	rc = m == MAP_FAILED ? -errno : 0;
	close(fd[1]);
	if (rc)
		return rc;
	s->o = m;
	s->stack = (uint8_t *)m + STUB_PAGE;
	s->area = s->o->area;
	s->pid = s->o->pid;
	s->segs_changed = true;
	return take(s, &segs) ? find_frame(s) : -ECONNRESET;
}

/* ---- orders ---- */

static void wake_helper(struct stub *s, unsigned n)
{
	s->o->n = n;
	__atomic_add_fetch(&s->o->seq, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &s->o->seq, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void set_order(struct stub *s, unsigned i, uint64_t nr, uint64_t a, uint64_t b, uint64_t c)
{
	s->o->order[i] = (struct stub_order){nr, {a, b, c, 0, 0, 0}};
}

static void bury(struct stub *s)
{
	if (!s->dead)
		log_guest(LOG_LVL_WARN, "a stub has died: its guest code goes on translated");
	s->dead = true;
}

/* The helper answers unless its process ends meanwhile, which the listener tells. */
bool stub_order(struct stub *s, unsigned n)
{
	struct pollfd p[2] = {{s->ack, POLLIN, 0}, {s->listener, 0, 0}};
	uint64_t got;

	if (s->dead)
		return false;
	wake_helper(s, n);
	for (;;) {
		if (poll(p, 2, -1) < 0)
			continue;
		if (p[0].revents & POLLIN)
			break;
		if (p[1].revents & (POLLHUP | POLLERR)) {
			bury(s);
			return false;
		}
	}
	return read(s->ack, &got, sizeof got) == sizeof got && got == 1;
}

static void kill_stub(struct stub *s)
{
	set_order(s, 0, SYS_exit_group, 0, 0, 0);
	wake_helper(s, 1);
	bury(s);
}

/* ---- guest state into the frame and back ---- */

static void state_out(struct stub *s, struct vcpu *v)
{
	ucontext_t *uc = context(s);
	greg_t *g = uc->uc_mcontext.gregs;
	uint8_t *x = s->stack + s->fpu;
	uint64_t have;

	vcpu_fpu_out(v);
	memcpy(s->stack + s->frame, s->pattern + s->frame, STACK_SIZE - s->frame);
	for (int r = 0; r < 16; r++)
		g[greg_of[r]] = (greg_t)v->regs[r];
	g[REG_RIP] = (greg_t)v->rip;
	g[REG_EFL] = (greg_t)((vcpu_rflags(v) & USER_FLAGS) | RFL_FIX | RFL_IF);
	g[REG_CSGSFS] = (greg_t)(SELECT_CS64 | (uint64_t)SELECT_DATA << 48);
	memset(&uc->uc_sigmask, 0, 8);
	memcpy(x, v->fpu_area, X_REGS);
	fpu_pointers_out(v, x, x, true);
	memcpy(&have, v->fpu_area + X_HEADER, 8);
	have &= v->xcr0; /* the host's other state is initial */
	memset(x + X_HEADER, 0, X_HEADER_SIZE);
	memcpy(x + X_HEADER, &have, 8);
	memcpy(x + X_MORE, v->fpu_area + X_MORE, s->xstate_size - X_MORE);
}

static void fpu_in(struct stub *s, struct vcpu *v)
{
	const uint8_t *x = s->stack + s->fpu;
	uint32_t mxcsr;
	uint64_t have;

	memcpy(v->fpu_area, x, X_REGS);
	memcpy(&mxcsr, v->fpu_area + X_MXCSR, 4);
	mxcsr &= v->mxcsr_mask;
	memcpy(v->fpu_area + X_MXCSR, &mxcsr, 4);
	fpu_pointers_in(v, v->fpu_area, true);
	memcpy(&have, x + X_HEADER, 8);
	have &= v->xcr0;
	memset(v->fpu_area + X_HEADER, 0, X_HEADER_SIZE);
	memcpy(v->fpu_area + X_HEADER, &have, 8);
	memcpy(v->fpu_area + X_MORE, x + X_MORE, s->xstate_size - X_MORE);
}

/* What guest code has loaded, by the guest's tables; @segs: ds, es, fs, gs. */
static void segments_in(struct stub *s, struct vcpu *v, uint64_t segs, uint64_t csgsfs)
{
	static const uint8_t seg[4] = {SEG_DS, SEG_ES, SEG_FS, SEG_GS};
	uint16_t cs = (uint16_t)csgsfs, ss = (uint16_t)(csgsfs >> 48);

	if (segs)
		s->segs_changed = true;
	for (int i = 0; i < 4; i++)
		if ((uint16_t)(segs >> 16 * i) && seg_load(v, seg[i], (uint16_t)(segs >> 16 * i)))
			return;
	if (ss != SELECT_DATA && seg_load(v, SEG_SS, ss))
		return;
	if (cs != SELECT_CS64)
		far_jump(v, cs, v->rip, 8, v->rip);
}

static void state_in(struct stub *s, struct vcpu *v, uint64_t segs, struct stub_stop *why)
{
	const greg_t *g = context(s)->uc_mcontext.gregs;
	const siginfo_t *si = (const siginfo_t *)(s->stack + s->frame + UC_SIZE);
	uint64_t rip = (uint64_t)g[REG_RIP];

	for (int r = 0; r < 16; r++)
		v->regs[r] = (uint64_t)g[greg_of[r]];
	if (is_canonical(rip))
		v->rip = rip;
	vcpu_set_rflags(v, (vcpu_rflags(v) & ~(uint64_t)USER_FLAGS) | ((uint64_t)g[REG_EFL] & USER_FLAGS));
	fpu_in(s, v);
	*why = (struct stub_stop){.signal = (uint32_t)si->si_signo,
				  .code = si->si_code,
				  .vector = (uint32_t)g[REG_TRAPNO],
				  .error = (uint32_t)g[REG_ERR],
				  .address = (uint64_t)g[REG_CR2],
				  .call_addr = (uint64_t)(uintptr_t)si->si_call_addr};
	segments_in(s, v, segs, (uint64_t)g[REG_CSGSFS]);
}

/* ---- go and stop ---- */

/* Waits @ms, or without an end; kicks come in here alone.  POLLIN: there is a notification; others: nobody is left; 0: neither. */
static int wait_event(struct stub *s, unsigned ms)
{
	struct pollfd p = {s->listener, POLLIN, 0};
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
	const uint64_t none = 0;

	return syscall(SYS_ppoll, &p, 1, ms ? &ts : NULL, &none, 8) > 0 ? p.revents : 0;
}

bool stub_go(struct stub *s, struct vcpu *v)
{
	struct seccomp_notif_resp r;
	uint64_t segs;

	if (s->dead)
		return false;
	memset(&r, 0, sizeof r);
	if (s->segs_changed)
		r.val = GO_ALL;
	else
		r.val = (s->fs != v->seg[SEG_FS].base ? STUB_GO_FS : 0) |
			(s->gs != v->seg[SEG_GS].base ? STUB_GO_GS : 0);
	s->o->fs = s->fs = v->seg[SEG_FS].base;
	s->o->gs = s->gs = v->seg[SEG_GS].base;
	s->segs_changed = false;
	for (int i = 0; i < 8; i++) { /* a kick that came late makes it void: there is another */
		state_out(s, v);
		r.id = s->id;
		if (!ioctl(s->listener, SECCOMP_IOCTL_NOTIF_SEND, &r))
			return true;
		if (errno != ENOENT || !(wait_event(s, KICK_MS) & POLLIN) || !take(s, &segs))
			break;
	}
	kill_stub(s);
	return false;
}

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000u + (uint64_t)ts.tv_nsec / 1000000u;
}

/* As wait_event(); 0: it does not stop. */
static int kick(struct stub *s)
{
	uint64_t until = now_ms() + KICK_MS;
	int event;

	set_order(s, 0, SYS_tgkill, s->pid, s->pid, SIGUSR1);
	if (!stub_order(s, 1))
		return 0;
	while (!(event = wait_event(s, 10)) && now_ms() < until)
		;
	return event;
}

bool stub_wait(struct stub *s, struct vcpu *v, struct stub_stop *why)
{
	uint64_t segs;
	int event;

	while (!(event = wait_event(s, 0)) && !atomic_load(&v->pending))
		;
	if (!event)
		event = kick(s);
	if (!(event & POLLIN) || !take(s, &segs)) {
		kill_stub(s);
		return false;
	}
	state_in(s, v, segs, why);
	return true;
}

void stub_block_kicks(bool block)
{
	const uint64_t set = 1ull << (SIGUSR1 - 1);

	syscall(SYS_rt_sigprocmask, block ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL, 8);
}

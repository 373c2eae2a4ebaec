/*
 * hvx-stub: an address space in which a guest's ring-3 code runs as it is.  Starts like every child, then gives up everything it
 * has mapped but one area (proto/stub.h, area.S), and is two threads: one for guest code, one that maps and unmaps RAM for hvx-vcpu.
 * Invariant: when the first guest instruction runs, this process has no mapping but the area and pages of guest RAM, no memory
 * that the kernel writes by itself, and two filters that leave what filter.c lists.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/rseq.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/child.h"
#include "common/err.h"
#include "proto/stub.h"
#include "stub/filter.h"
#include "stub/seal.h"

/* The orders, with what is ours; offsets from @below on are in area.S. */
struct page {
	struct stub_orders o;
	uint64_t below, above, above_len; /* of the area: what is unmapped */
	struct sock_fprog guest, helper;
	struct msghdr msg;
	struct iovec iov;
	char byte[8];
	struct {
		struct cmsghdr h;
		int fd[4];
	} cmsg;
	struct sock_filter filter[2][FILTER_MAX];
};
#define AT_OFFSET(field, n) _Static_assert(offsetof(struct page, field) == (n), #field)
AT_OFFSET(o.seq, STUB_O_SEQ);
AT_OFFSET(o.n, STUB_O_N);
AT_OFFSET(o.frame_sp, STUB_O_SP);
AT_OFFSET(o.fs, STUB_O_FS);
AT_OFFSET(o.gs, STUB_O_GS);
AT_OFFSET(o.ok, STUB_O_OK);
AT_OFFSET(o.failed, STUB_O_FAILED);
AT_OFFSET(o.area, STUB_O_AREA);
AT_OFFSET(o.order, STUB_O_ORDER);
AT_OFFSET(below, STUB_O_OWN);
AT_OFFSET(guest, STUB_O_OWN + 24);
AT_OFFSET(helper, STUB_O_OWN + 40);
AT_OFFSET(msg, STUB_O_OWN + 56);
_Static_assert(sizeof(struct page) <= STUB_PAGE, "one page");
enum { OWN_FDS = 3 }; /* listener, shared memory, answers */

#define AREA_FIRST 0x100000000000ull
#define AREA_RANGE 0x5fff00000000ull /* the low 32 bits stay clear of a carry */

struct process {
	struct child child;
	int ram, channel, ctl, ack;
	uint64_t area;
	struct page *page; /* as it is filled; later only read, in the area */
};

static void *ptr(uint64_t a)
{
	return (void *)(uintptr_t)a;
}

static void need(struct process *p, bool ok, const char *what)
{
	if (!ok)
		child_fail(&p->child, HVX_EXIT_HOST, "%s: %s", what, strerror(errno));
}

/* At a place that nobody can guess: guest code that jumps around is to meet nothing there. */
static void make_area(struct process *p)
{
	uint64_t at;
	void *m;

	do {
		need(p, getrandom(&at, sizeof at, 0) == (ssize_t)sizeof at, "getrandom");
		at = AREA_FIRST + at % (AREA_RANGE >> 16 << 16) / STUB_PAGE * STUB_PAGE;
		m = mmap(ptr(at), STUB_PAGES * STUB_PAGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		need(p, m != MAP_FAILED || errno == EEXIST, "the area");
	} while (m != ptr(at) || at >> 32 != (at + STUB_PAGES * STUB_PAGE) >> 32);
	p->area = at;
	memcpy(m, stub_code, (size_t)(stub_end - stub_code));
	need(p, !mprotect(m, STUB_PAGE, PROT_READ | PROT_EXEC), "its code");
	p->ctl = memfd_create("hvx-stub", MFD_CLOEXEC);
	p->ack = eventfd(0, EFD_CLOEXEC);
	need(p, p->ctl >= 0 && p->ack >= 0 && !ftruncate(p->ctl, (1 + STUB_STACK_PAGES) * STUB_PAGE), "shared memory");
	p->page = mmap(NULL, STUB_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, p->ctl, 0);
	need(p, p->page != MAP_FAILED, "the orders");
	need(p,
	     mmap(ptr(at + STUB_PAGE), STUB_PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, p->ctl, 0) != MAP_FAILED &&
		     mmap(ptr(at + 2 * STUB_PAGE), STUB_STACK_PAGES * STUB_PAGE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_FIXED, p->ctl, STUB_PAGE) != MAP_FAILED,
	     "orders and stack");
}

/* As the threads will see it, in the area. */
static void *in_area(const struct process *p, size_t off)
{
	return ptr(p->area + STUB_PAGE + off);
}

static void fill_page(struct process *p)
{
	struct page *g = p->page;

	g->o.pid = (uint32_t)getpid();
	g->o.ok = 1;
	g->o.failed = 1ull << 32;
	g->o.area = p->area;
	g->below = p->area;
	g->above = p->area + STUB_PAGES * STUB_PAGE;
	g->above_len = STUB_TASK_END - g->above;
	g->guest.len = (unsigned short)filter_guest(g->filter[0], p->area);
	g->guest.filter = in_area(p, offsetof(struct page, filter[0]));
	g->helper.len = (unsigned short)filter_helper(g->filter[1], p->area, getpid());
	g->helper.filter = in_area(p, offsetof(struct page, filter[1]));
	g->iov = (struct iovec){in_area(p, offsetof(struct page, byte)), 1};
	g->msg = (struct msghdr){.msg_iov = in_area(p, offsetof(struct page, iov)),
				 .msg_iovlen = 1,
				 .msg_control = in_area(p, offsetof(struct page, cmsg)),
				 .msg_controllen = CMSG_LEN(OWN_FDS * sizeof(int))};
	g->cmsg.h = (struct cmsghdr){CMSG_LEN(OWN_FDS * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
}

#define FD_CTL_LATER 8 /* behind the listener's, which is the first that is free */

static void place_descriptors(struct process *p)
{
	const int from[] = {p->ram, p->ack, p->channel, p->ctl},
		  to[] = {STUB_FD_RAM, STUB_FD_ACK, STUB_FD_CHANNEL, FD_CTL_LATER};
	int up[4];

	for (int i = 0; i < 4; i++) {
		up[i] = 9 + i;
		need(p, from[i] < up[i] && dup2(from[i], up[i]) == up[i], "descriptors");
	}
	for (int i = 0; i < 4; i++)
		need(p, dup2(up[i], to[i]) == to[i], "descriptors");
	close(STUB_FD_LISTEN);
	need(p, !close_range(FD_CTL_LATER + 1, ~0u, 0), "descriptors");
	p->page->cmsg.fd[0] = STUB_FD_LISTEN;
	p->page->cmsg.fd[1] = FD_CTL_LATER;
	p->page->cmsg.fd[2] = STUB_FD_ACK;
}

static void catch_everything(struct process *p)
{
	static const int sig[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGUSR1};
	const struct { /* the kernel's own form: libc's names a restorer of libc's */
		uint64_t handler, flags, restorer, mask;
	} sa = {p->area, SA_SIGINFO | SA_ONSTACK | 0x04000000 /* SA_RESTORER */, p->area, ~0ull};
	const stack_t ss = {.ss_sp = ptr(p->area + 2 * STUB_PAGE), .ss_size = STUB_STACK_PAGES * STUB_PAGE};

	for (size_t i = 0; i < sizeof sig / sizeof sig[0]; i++)
		need(p, !syscall(SYS_rt_sigaction, sig[i], &sa, NULL, 8), "signals");
	need(p, !sigaltstack(&ss, NULL), "the signal stack");
}

/* What libc asked the kernel to write to in each thread. */
static void let_go(struct process *p)
{
	char *rseq = (char *)__builtin_thread_pointer() + __rseq_offset;

	if (__rseq_size && syscall(SYS_rseq, rseq, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG) < 0)
		need(p, !syscall(SYS_rseq, rseq, __rseq_size, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), "rseq");
	syscall(SYS_set_tid_address, NULL);
	syscall(SYS_set_robust_list, NULL, 24);
}

int main(int argc, char **argv)
{
	static struct process p = {.child = {.program = "hvx-stub", .role = ROLE_STUB, .table = &stub_seal}};
	struct msg_stub_config cfg;
	struct ipc_frame f;

	child_start(&p.child, argc, argv);
	child_expect(&p.child, MSG_STUB_CONFIG, &f);
	if (unpack_stub_config(f.data, f.len, &cfg) || f.nfds != 2)
		child_fail(&p.child, HVX_EXIT_FAIL, "malformed configuration from the monitor");
	p.ram = f.fds[0];
	p.channel = f.fds[1];
	make_area(&p);
	fill_page(&p);
	catch_everything(&p);
	p.child.shared = 4 * cfg.ram_size; /* pages may be mapped more than once */
	child_seal(&p.child);
	place_descriptors(&p);
	let_go(&p);
	((void (*)(void))(uintptr_t)filter_at(p.area, stub_launch))();
}

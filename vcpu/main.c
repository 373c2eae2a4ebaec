/*
 * hvx-vcpu: brings the engine up in the order that sealing asks for: receive under
 * the set-up filter, map, create, final filter, and only then look at anything a
 * guest brings.  Invariant: no byte of a kernel image is read before the final
 * filter is in force.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "common/child.h"
#include "common/err.h"
#include "common/log.h"
#include "common/memory.h"
#include "proto/shm.h"
#include "vcpu/bt/bt.h"
#include "vcpu/cards.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/control.h"
#include "vcpu/direct/direct.h"
#include "vcpu/kick.h"
#include "vcpu/local/set.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/mmu/window.h"
#include "vcpu/runner.h"
#include "vcpu/seal.h"
#include "vcpu/trace.h"
#include "vcpu/tsc.h"

#define TSC_MEASURE_MS 50
#define OWN_PER_CPU    (64ull << 20) /* soft TLBs, banks, jump caches, the thread's stack */

struct process {
	struct child child;
	struct msg_vcpu_config cfg;
	int fd[FD_COUNT]; /* by enum msg_fd, -1: not given */
	struct gmem mem;
	struct vm vm;
	struct boot_config boot;
	struct firmware firmware;
	struct runner run;
	struct control control;
	struct cards cards;
	struct local_set local;
	char debugcon[256]; /* a line in the making */
	size_t debugcon_n;
};

static void receive(struct process *p)
{
	struct ipc_frame f;

	child_expect(&p->child, MSG_VCPU_CONFIG, &f);
	if (unpack_vcpu_config(f.data, f.len, &p->cfg) || (uint32_t)f.nfds != p->cfg.nfds)
		child_fail(&p->child, HVX_EXIT_FAIL, "malformed configuration from the monitor");
	for (int i = 0; i < FD_COUNT; i++)
		p->fd[i] = -1;
	for (int i = 0; i < f.nfds; i++)
		p->fd[p->cfg.fds[i]] = f.fds[i];
	cards_receive(&p->cards, &p->child, p->cfg.devices);
}

/* ---- what the platform tells; called with its lock held ---- */

static void on_power_off(void *ctx)
{
	struct process *p = ctx;

	runner_end(&p->run, VM_EXIT_POWEROFF, 0);
}

/* The CPU that writes the port sees it with its next instruction, the others when that one has run: a lock is held here. */
static void on_a20(void *ctx, bool on)
{
	struct process *p = ctx;
	struct vcpu *v = kick_this();

	p->vm.a20 = on;
	if (!v) /* the chips are being made */
		return;
	mmu_set_a20(v, on);
	vcpu_kick(v, PEND_A20);
}

static void on_reset(void *ctx)
{
	struct process *p = ctx;

	runner_end(&p->run, VM_EXIT_RESET, 0);
}

static void on_debug_exit(void *ctx, int status)
{
	struct process *p = ctx;

	runner_end(&p->run, VM_EXIT_DEBUG, status & 0xff);
}

static void debugcon_flush(struct process *p)
{
	if (p->debugcon_n && write(p->fd[FD_DEBUGCON], p->debugcon, p->debugcon_n) < 0)
		log_guest(LOG_LVL_WARN, "debug console: cannot write");
	p->debugcon_n = 0;
}

static void on_debugcon(void *ctx, uint8_t byte)
{
	struct process *p = ctx;

	if (p->fd[FD_DEBUGCON] < 0)
		return;
	p->debugcon[p->debugcon_n++] = (char)byte;
	if (byte == '\n' || p->debugcon_n == sizeof p->debugcon)
		debugcon_flush(p);
}

/* On the vcpu's thread, which the timer has stopped. */
static void on_watchdog(void *ctx)
{
	static const char *const what[] = {
		[WATCHDOG_RESET] = "the VM restarts",
		[WATCHDOG_POWEROFF] = "the VM ends",
		[WATCHDOG_PAUSE] = "the VM pauses",
		[WATCHDOG_NONE] = "nothing is done",
	};
	struct process *p = ctx;
	enum msg_watchdog action = p->cfg.local.watchdog;

	log_guest(LOG_LVL_WARN, "the watchdog has run out: %s", what[action]);
	if (action == WATCHDOG_RESET)
		runner_end(&p->run, VM_EXIT_RESET, 0);
	else if (action == WATCHDOG_POWEROFF)
		runner_end(&p->run, VM_EXIT_POWEROFF, 0);
	else if (action == WATCHDOG_PAUSE)
		runner_pause(&p->run);
}

static void on_arm(void *ctx, struct vcpu *v, unsigned timer, uint64_t deadline_ns)
{
	(void)ctx;
	vcpu_arm(v, timer, deadline_ns);
}

/* ---- bring-up ---- */

/* A window belongs to one CPU, and maps pages at their own places in RAM. */
static enum msg_window_state windows_ruled_out(const struct process *p)
{
	return p->vm.ncpus > 1 ? WINDOW_CPUS : p->mem.pool ? WINDOW_MERGED : WINDOW_UNKNOWN;
}

/* The guest kernel's window, where it is wanted and has room. */
static void make_window(struct process *p)
{
	const struct window_config c = {WINDOW_KERNEL_DELTA, WINDOW_KERNEL_FIRST, WINDOW_KERNEL_LAST,
					WINDOW_KERNEL_MODE, p->fd[FD_RAM]};
	int rc;

	p->control.windows = WINDOW_NOT_WANTED;
	if (p->cfg.windows == WINDOWS_OFF)
		return;
	p->control.windows = windows_ruled_out(p);
	rc = p->control.windows ? -EOPNOTSUPP : window_place_free();
	if (rc && p->cfg.windows == WINDOWS_KERNEL)
		child_fail(&p->child, HVX_EXIT_HOST, "no place for the guest kernel's window: %s", strerror(-rc));
	if (rc && !p->control.windows)
		p->control.windows = WINDOW_NO_PLACE;
	if (rc)
		return;
	rc = window_create(&p->vm.window, &p->mem, &c);
	if (rc)
		child_fail(&p->child, HVX_EXIT_HOST, "cannot make the guest kernel's window: %s", strerror(-rc));
	p->child.shared += window_space(p->cfg.ram_size);
	p->child.own += window_tables(p->cfg.ram_size);
	p->control.windows = WINDOW_KERNEL;
}

static void make_platform(struct process *p)
{
	struct platform_config c = {
		.ram_size = p->cfg.ram_size,
		.ncpus = p->vm.ncpus,
		.debug_exit = p->cfg.debug_exit,
		.com_in = {p->fd[FD_CONSOLE_IN], -1, -1, -1},
		.com_out = {p->fd[FD_CONSOLE_OUT], -1, -1, -1},
		.tsc_hz = p->vm.tsc_hz,
		.power_off = on_power_off,
		.reset = on_reset,
		.a20 = on_a20,
		.debug_exit_cb = on_debug_exit,
		.debugcon = on_debugcon,
		.watchdog = p->cfg.local.watchdog != WATCHDOG_OFF,
		.watchdog_cb = on_watchdog,
		.firmware_log = p->run.firmware && p->fd[FD_DEBUGCON] >= 0,
		.firmware = p->run.firmware ? &p->firmware.hooks : NULL,
		.arm = on_arm,
		.ctx = p,
	};

	p->vm.plat = platform_create(&p->vm, &c);
	if (!p->vm.plat)
		child_fail(&p->child, HVX_EXIT_HOST, "no memory for the platform's devices");
	int rc = p->run.firmware ? firmware_tell(&p->firmware) : 0;
	if (rc)
		child_fail(&p->child, HVX_EXIT_CONFIG, "what firmware is to be told: %s", strerror(-rc));
}

static void make_firmware(struct process *p)
{
	if (p->fd[FD_FIRMWARE] < 0)
		return;
	p->firmware = (struct firmware){
		.vm = &p->vm,
		.code_fd = p->fd[FD_FIRMWARE],
		.nvram_fd = p->fd[FD_NVRAM],
		.vgarom_fd = p->fd[FD_VGAROM],
		.netrom_fd = p->fd[FD_NETROM],
		.keep = p->cfg.firmware.keep,
		.order = p->cfg.firmware.order,
		.menu = p->cfg.firmware.menu,
		.boot = &p->boot,
	};
	if (firmware_init(&p->firmware))
		child_fail(&p->child, HVX_EXIT_FAIL, "the firmware's files are not what the monitor saw");
	p->run.firmware = &p->firmware;
}

static int host_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
}

static void make_vm(struct process *p)
{
	int rc = memory_map(&p->mem, p->fd[FD_RAM], p->fd[FD_CONTROL], p->fd[FD_POOL], p->cfg.ram_size);

	if (rc)
		child_fail(&p->child, HVX_EXIT_HOST, "cannot map guest memory: %s", strerror(-rc));
	p->child.shared = p->cfg.ram_size + shm_layout(p->cfg.ram_size).total + p->mem.pool_size + BT_CODE_SIZE;
	p->child.own = msg_cpus_count(&p->cfg.cpus) * OWN_PER_CPU;
	p->vm = (struct vm){
		.mem = &p->mem,
		.ncpus = (int)msg_cpus_count(&p->cfg.cpus),
		.host_cpus = host_cpus(),
		.topology = {p->cfg.cpus.sockets, p->cfg.cpus.cores, p->cfg.cpus.threads},
		.name = p->cfg.name,
	};
	make_window(p);
	p->vm.tsc_hz = tsc_measure(TSC_MEASURE_MS);
	rc = bt_create(&p->vm);
	if (rc)
		child_fail(&p->child, HVX_EXIT_HOST, "cannot make the code memory: %s", strerror(-rc));
	p->vm.bt->exact_flags = p->cfg.exact_flags;
	for (int i = 0; i < p->vm.ncpus; i++) {
		p->vm.vcpu[i] = vcpu_create(&p->vm, i);
		if (!p->vm.vcpu[i])
			child_fail(&p->child, HVX_EXIT_HOST, "no memory for the vcpu");
	}
}

/* Stubs are there, and stopped, before this process is sealed. */
static void make_direct(struct process *p)
{
	int rc;

	if (p->cfg.direct == DIRECT_NEVER)
		return;
	if (p->vm.ncpus > 1 || p->mem.pool)
		child_fail(&p->child, HVX_EXIT_CONFIG, "no direct execution with several CPUs or merged pages");
	rc = direct_init(p->vm.vcpu[0], p->cfg.direct, p->fd + FD_STUB);
	if (rc)
		child_fail(&p->child, HVX_EXIT_HOST, "direct execution: %s", strerror(-rc));
}

static void make_threads(struct process *p)
{
	p->boot = (struct boot_config){.kernel_fd = p->fd[FD_KERNEL], .cmdline = p->cfg.cmdline};
	for (uint32_t i = 0; i < p->cfg.nmodules; i++)
		p->boot.module[p->boot.modules++] =
			(struct boot_module){p->fd[FD_INITRD + i], p->cfg.module[i].name, p->cfg.module[i].args};
	p->run.vm = &p->vm;
	p->run.boot = &p->boot;
	p->run.reboot = p->cfg.reboot;
	p->run.cards = p->control.cards = &p->cards;
	p->control.child = &p->child;
	p->control.local = &p->local;
	p->control.run = &p->run;
	p->control.console_fd = p->fd[FD_CONSOLE_IN];
	make_firmware(p);
	make_platform(p); /* its callbacks use p->run */
	int rc = control_init(&p->control);
	if (!rc)
		rc = cards_init(&p->cards, &p->vm, p->control.loop);
	if (!rc)
		rc = local_set_create(&p->local, &p->vm, p->control.loop, &p->cfg.local, p->fd);
	if (!rc)
		rc = runner_create(&p->run);
	if (rc)
		child_fail(&p->child, HVX_EXIT_HOST, "cannot make the vcpu's thread: %s", strerror(-rc));
	cards_wire(&p->cards);
}

int main(int argc, char **argv)
{
	static struct process p = {.child = {.program = "hvx-vcpu", .role = ROLE_VCPU, .table = &vcpu_seal}};

	child_start(&p.child, argc, argv);
	receive(&p);
	if (p.fd[FD_TRACE] >= 0)
		trace_open(p.fd[FD_TRACE], p.cfg.trace);
	make_vm(&p);
	make_direct(&p);
	make_threads(&p);
	child_seal(&p.child);
	cards_start(&p.cards);
	runner_go(&p.run);
	int status = control_run(&p.control);
	trace_flush();
	return status;
}

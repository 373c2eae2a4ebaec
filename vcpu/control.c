/*
 * Messages of the monitor and console input.  Invariant: the vcpu's thread never
 * waits for this one.
 */
#include "vcpu/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/text.h"
#include "vcpu/chipset/i6300esb.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/local/local.h"
#include "vcpu/local/memlink.h"
#include "vcpu/screen.h"

#define ROOM_POLL_MS 2 /* how often a full UART is looked at */

static int send_packed(struct control *c, uint16_t type, int n)
{
	return n < 0 ? n : ipc_send(c->conn, type, c->child->buf, (size_t)n, NULL, 0);
}

/* ---- console ---- */

/* True when all of it was taken. */
static bool feed(struct control *c)
{
	c->input_at += platform_com_input(c->run->vm->plat, 0, c->input + c->input_at, c->input_n - c->input_at);
	return c->input_at == c->input_n;
}

static void on_console(void *ctx)
{
	struct control *c = ctx;
	ssize_t n = read(c->console_fd, c->input, sizeof c->input);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		ipc_watch_enable(c->console, false);
		return;
	}
	c->input_at = 0;
	c->input_n = (size_t)n;
	if (feed(c))
		return;
	ipc_watch_enable(c->console, false);
	ipc_timer_set(c->room, ROOM_POLL_MS);
}

static void on_room(void *ctx)
{
	struct control *c = ctx;

	if (feed(c))
		ipc_watch_enable(c->console, true);
	else
		ipc_timer_set(c->room, ROOM_POLL_MS);
}

/* ---- the monitor's messages ---- */

static int send_state(struct control *c, bool paused, const char *reason)
{
	struct msg_vcpu_state s = {.paused = paused};

	memcpy(s.reason, reason, strlen(reason) + 1);

	return send_packed(c, MSG_VCPU_STATE, pack_vcpu_state(&s, c->child->buf, sizeof c->child->buf));
}

/* A watchdog counts only while the guest can answer it. */
static void hold_watchdog(struct control *c, bool hold)
{
	struct platform *p = c->run->vm->plat;

	if (!p || !platform_watchdog(p))
		return;
	platform_lock(p);
	i6300esb_hold(platform_watchdog(p), hold);
	platform_unlock(p);
}

static int send_screen(struct control *c)
{
	static struct msg_screen m; /* large; there is one loop */

	screen_read(c->run->vm, &m);
	return send_packed(c, MSG_VCPU_SCREEN, pack_vcpu_screen(&m, c->child->buf, sizeof c->child->buf));
}

static int command(struct control *c, const struct ipc_frame *f)
{
	struct msg_vcpu_command m;

	if (unpack_vcpu_command(f->data, f->len, &m))
		return -EPROTO;
	switch (m.op) {
	case OP_PAUSE:
		runner_kick(c->run, PEND_PAUSE);
		hold_watchdog(c, true);
		return send_state(c, true, "");
	case OP_RESUME:
		hold_watchdog(c, false);
		runner_resume(c->run);
		return send_state(c, false, "");
	case OP_BALLOON:
		if (!c->local->balloon.mem || !c->local->balloon.mem->conn)
			return -EPROTO;
		balloon_target(&c->local->balloon, m.value);
		return 0;
	case OP_CPU_LIMIT:
		if (m.value > MSG_CPU_MAX)
			return -EPROTO;
		throttle_limit(&c->throttle, m.value);
		return 0;
	case OP_CPU_CHARGE: throttle_charge(&c->throttle, m.value); return 0;
	case OP_CONSOLE_SIZE:
		if (!c->local->console.dev.all || m.value >> 32)
			return -EPROTO;
		vconsole_size(&c->local->console, (uint16_t)(m.value >> 16), (uint16_t)m.value);
		return 0;
	case OP_SCREEN: return send_screen(c);
	case OP_POWER_BUTTON: platform_power_button(c->run->vm->plat); return 0;
	default: return -EPROTO;
	}
}

/* Of the rng: no other device of this process has any. */
static int limits(struct control *c, const struct ipc_frame *f)
{
	struct msg_dev_limits m;

	if (unpack_dev_limits(f->data, f->len, &m) || m.ops || m.ops_burst || !c->local->rng.tick)
		return -EPROTO;
	rng_limit(&c->local->rng, &m);
	return 0;
}

static void watchdog_stats(struct control *c, struct msg_counters *m)
{
	struct platform *p = c->run->vm->plat;
	const struct i6300esb *w = p ? platform_watchdog(p) : NULL;

	if (!w)
		return;
	local_count(m, "watchdog", "reloads", w->reloads);
	local_count(m, "watchdog", "stages", w->stages);
	local_count(m, "watchdog", "timeouts", w->timeouts);
}

/* Of all CPUs, of a counter by its place. */
static uint64_t sum(const struct vm *vm, size_t at)
{
	uint64_t n = 0;

	for (int i = 0; i < vm->ncpus; i++)
		n += *(const uint64_t *)(const void *)((const char *)&vm->vcpu[i]->stats + at);
	return n;
}

/* Those that tell CPUs apart; all of all would not fit a message. */
static void cpu_stats(struct msg_counters *m, const struct vcpu *v)
{
	char id[8];

	snprintf(id, sizeof id, "cpu%d", v->id);
#define X(counter) local_count(m, id, #counter, v->stats.counter);
	X(dispatches)
	X(tlb_misses)
	X(tlb_flushes)
	X(exceptions)
	X(page_faults)
	X(interrupts)
	X(kicks)
	X(hlts)
	X(halt_polls)
	X(helpers)
	X(mmio)
	X(pio)
	X(cr3_loads)
	X(doorbells)
	X(lock_waits)
#undef X
}

static int stats(struct control *c)
{
	static struct msg_counters m;

	m.n = 0;
#define X(counter)                                        \
	memcpy(m.c[m.n].name, #counter, sizeof #counter); \
	m.c[m.n++].value = sum(c->run->vm, offsetof(struct vcpu_stats, counter));
	VCPU_STATS(X)
#undef X
	for (int i = 0; i < c->run->vm->ncpus; i++)
		cpu_stats(&m, c->run->vm->vcpu[i]);
	locals_stats(c->run->vm->locals, &m);
	watchdog_stats(c, &m);
	return send_packed(c, MSG_VCPU_STATS, pack_vcpu_stats(&m, c->child->buf, sizeof c->child->buf));
}

static void on_fresh(void *ctx)
{
	struct control *c = ctx;
	int rc = stats(c);

	if (rc)
		fatal(HVX_EXIT_FAIL, "counters for the monitor: %s", strerror(-rc));
}

static void on_frame(void *ctx, struct ipc_conn *conn, struct ipc_frame *f)
{
	struct control *c = ctx;
	int rc = -EPROTO;

	(void)conn;
	if (f->type == MSG_VCPU_COMMAND && f->nfds == 0)
		rc = command(c, f);
	else if (f->type == MSG_DEV_LIMITS && f->nfds == 0)
		rc = limits(c, f);
	else if (f->type == MSG_VCPU_STATS_GET && f->nfds == 0 && unpack_empty(f->len) == 0)
		rc = locals_refresh(&c->local->locals, on_fresh, c) ? 0 : stats(c);
	if (rc)
		fatal(HVX_EXIT_FAIL, "message %u from the monitor: %s", f->type, strerror(-rc));
}

static void on_closed(void *ctx, struct ipc_conn *conn, int error)
{
	struct control *c = ctx;

	(void)conn;
	if (error)
		log_error("control socket: %s", strerror(-error));
	atomic_store(&c->run->quit, true);
	ipc_loop_stop(c->loop);
}

static const struct ipc_handlers handlers = {on_frame, on_closed, pack_type_name};

/* ---- news from the vcpu's thread ---- */

static void tell_boots(struct control *c)
{
	uint32_t boots = atomic_load(&c->run->boots);

	while (c->boots_told < boots) {
		struct msg_vcpu_running m = {++c->boots_told, c->windows};
		send_packed(c, MSG_VCPU_RUNNING, pack_vcpu_running(&m, c->child->buf, sizeof c->child->buf));
	}
}

static void tell_failed(struct control *c)
{
	struct msg_failed m = {.status = HVX_EXIT_CONFIG};

	text_clean(m.text, sizeof m.text, c->run->error, strlen(c->run->error));
	send_packed(c, MSG_FAILED, pack_failed(&m, c->child->buf, sizeof c->child->buf));
}

/* The thread has ended: what the guest wrote last goes out before the news. */
static void tell_exit(struct control *c)
{
	static const enum msg_exit kinds[] = {
		[VM_EXIT_POWEROFF] = EXIT_POWEROFF,
		[VM_EXIT_RESET] = EXIT_RESET,
		[VM_EXIT_TRIPLE_FAULT] = EXIT_TRIPLE_FAULT,
		[VM_EXIT_DEBUG] = EXIT_DEBUG,
	};
	unsigned why = atomic_load(&c->run->why);
	struct msg_vcpu_exit m = {why < sizeof kinds / sizeof kinds[0] ? kinds[why] : 0, (uint32_t)c->run->code & 0xff};

	runner_join(c->run);
	ipc_watch_enable(c->console, false);
	ipc_watch_free(c->room);
	c->room = NULL;
	cards_stop(c->cards);
	locals_stop(c->run->vm->locals);
	if (c->run->vm->memlink)
		memlink_stop(c->run->vm->memlink);
	platform_destroy(c->run->vm->plat);
	c->run->vm->plat = NULL;
	if (!m.kind)
		fatal(HVX_EXIT_FAIL, "the vcpu stopped for no reason (%u)", why);
	send_packed(c, MSG_VCPU_EXIT, pack_vcpu_exit(&m, c->child->buf, sizeof c->child->buf));
}

static void on_wake(void *ctx)
{
	struct control *c = ctx;
	uint64_t n;

	if (read(c->run->wake_fd, &n, sizeof n) < 0)
		return;
	int news = atomic_exchange(&c->run->news, RUNNER_QUIET);
	tell_boots(c);
	if (atomic_exchange(&c->run->paused, false))
		send_state(c, true, "watchdog");
	if (news == RUNNER_LOAD_FAILED)
		tell_failed(c);
	else if (news == RUNNER_ENDED)
		tell_exit(c);
}

/* ---- */

int control_init(struct control *c)
{
	c->run->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->loop = ipc_loop_new();
	if (c->run->wake_fd < 0 || !c->loop)
		return -ENOMEM;
	c->wake = ipc_watch_fd(c->loop, c->run->wake_fd, IPC_READ, on_wake, c);
	c->room = ipc_watch_timer(c->loop, on_room, c);
	if (!c->wake || !c->room || throttle_init(&c->throttle, c->loop, c->run->vm))
		return -ENOMEM;
	if (c->console_fd >= 0)
		c->console = ipc_watch_fd(c->loop, c->console_fd, IPC_READ, on_console, c);
	return c->console_fd >= 0 && !c->console ? -ENOMEM : 0;
}

int control_run(struct control *c)
{
	c->conn = ipc_conn_new(c->loop, CHILD_CONTROL_FD, "vcpu", "monitor", &handlers, c);
	if (!c->conn)
		fatal(HVX_EXIT_FAIL, "no memory for the connection");
	if (ipc_loop_run(c->loop))
		fatal(HVX_EXIT_FAIL, "the loop ended");
	return 0;
}

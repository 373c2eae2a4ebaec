/*
 * One command, one connection, one request.  Invariant: what a VM's monitor
 * answers is unpacked and validated like any message.
 */
#include "monitor/client.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/err.h"
#include "common/ipc.h"
#include "common/log.h"
#include "monitor/attach.h"
#include "monitor/command.h"
#include "monitor/group.h"
#include "monitor/mergegroup.h"
#include "monitor/past.h"
#include "monitor/runtime.h"
#include "monitor/show.h"
#include "proto/pack.h"

struct client {
	const struct cli *cli;
	struct runtime rt;
	char name[MSG_NAME_MAX];
	int fd;
	uint8_t buf[IPC_MAX_DATA];
	struct ipc_frame f;
	struct json list;
};

/* ---- which VM ---- */

struct found {
	char name[MSG_NAME_MAX];
	int n;
};

static void count_vm(void *ctx, const char *name)
{
	struct found *f = ctx;

	if (f->n++ == 0)
		snprintf(f->name, sizeof f->name, "%s", name);
}

static int choose_vm(struct client *c)
{
	struct found f = {.n = 0};

	if (c->cli->cfg.name[0]) {
		memcpy(c->name, c->cli->cfg.name, sizeof c->name);
		return 0;
	}
	runtime_each(&c->rt, ".sock", count_vm, &f);
	if (f.n == 1) {
		memcpy(c->name, f.name, sizeof c->name);
		return 0;
	}
	log_error(f.n ? "there are several VMs: name one" : "no VM is running");
	return f.n ? HVX_EXIT_USAGE : HVX_EXIT_FAIL;
}

/* With the arguments of the command line. */
static int ask(struct client *c, enum msg_request op)
{
	struct msg_request_head r = c->cli->ask;

	r.version = IPC_VERSION;
	r.op = op;
	c->fd = runtime_connect(&c->rt, c->name);
	if (c->fd < 0)
		return c->fd;
	int n = pack_request(&r, c->buf, sizeof c->buf);
	int rc = ipc_send_frame(c->fd, MSG_REQUEST, c->buf, (size_t)n, NULL, 0);
	if (!rc)
		rc = ipc_recv_frame(c->fd, c->buf, &c->f);
	return rc;
}

/* Reads a Reply; its descriptor, if @fd, becomes the caller's. */
static int take_reply(struct client *c, int *fd)
{
	struct msg_reply r;

	if (c->f.type != MSG_REPLY || unpack_reply(c->f.data, c->f.len, &r)) {
		log_error("%s: an answer that makes no sense", c->name);
		return HVX_EXIT_FAIL;
	}
	if (r.status)
		log_error("%s: %s", c->name, r.text);
	if (fd && c->f.nfds == 1) {
		*fd = c->f.fds[0];
		c->f.nfds = 0;
	}
	return (int)r.status;
}

static int ask_or_say(struct client *c, enum msg_request op)
{
	int rc = choose_vm(c);

	if (rc)
		return rc;
	rc = ask(c, op);
	if (!rc)
		return 0;
	if (rc == -ENOENT)
		log_error("no VM named %s is running", c->name);
	else if (rc == -EPIPE || rc == -ECONNRESET)
		log_error("%s: the monitor hung up", c->name);
	else if (rc == -EAGAIN)
		log_error("%s: the monitor is not answering", c->name);
	else
		log_error("%s: %s", c->name, strerror(-rc));
	return HVX_EXIT_FAIL;
}

/* ---- all VMs ---- */

const struct cli *client_cli(const struct client *c)
{
	return c->cli;
}

void client_each(struct client *c, void (*each)(void *ctx, const char *name), void *ctx)
{
	runtime_each(&c->rt, ".sock", each, ctx);
}

static void hang_up(struct client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

int client_sample(struct client *c, const char *name, struct msg_status *s, struct msg_counters *n)
{
	snprintf(c->name, sizeof c->name, "%s", name);
	n->n = 0;
	int rc = ask(c, REQ_STATUS);
	if (!rc && (c->f.type != MSG_STATUS_REPLY || unpack_status_reply(c->f.data, c->f.len, s)))
		rc = -EPROTO;
	ipc_close_fds(&c->f);
	hang_up(c);
	if (rc)
		return rc;
	if (ask(c, REQ_STATS) || c->f.type != MSG_STATS_REPLY || unpack_stats_reply(c->f.data, c->f.len, n))
		n->n = 0;
	ipc_close_fds(&c->f);
	hang_up(c);
	return 0;
}

/* ---- commands ---- */

static void list_one(void *ctx, const char *name)
{
	struct client *c = ctx;
	struct msg_status s;

	snprintf(c->name, sizeof c->name, "%s", name);
	int rc = ask(c, REQ_STATUS);
	if (rc == -EAGAIN) {
		s = (struct msg_status){.state = "silent"};
		memcpy(s.name, c->name, sizeof s.name);
		show_listed(&s, c->cli->json ? &c->list : NULL);
	}
	if (rc == 0) {
		if (c->f.type == MSG_STATUS_REPLY && !unpack_status_reply(c->f.data, c->f.len, &s))
			show_listed(&s, c->cli->json ? &c->list : NULL);
		ipc_close_fds(&c->f);
	}
	hang_up(c);
}

static void list_past(void *ctx, const struct past *p, bool lost)
{
	struct client *c = ctx;

	show_past(p, lost, c->cli->json ? &c->list : NULL);
}

/* What a monitor that was killed has left, if it has. */
static void sweep_one(void *ctx, const char *name)
{
	const struct client *c = ctx;
	char record[PATH_MAX];
	int lock = runtime_lock(&c->rt, name);

	if (lock < 0)
		return;
	runtime_path(&c->rt, name, ".groups", record, sizeof record);
	int rc = group_sweep(record);
	if (rc)
		log_warn("cgroups of %s, whose monitor is gone: %s", name, strerror(-rc));
	runtime_remove(&c->rt, name);
	close(lock);
}

int client_list(struct client *c)
{
	json_begin(&c->list, stdout);
	if (c->cli->json)
		json_open(&c->list, NULL, '[');
	runtime_each(&c->rt, ".sock", list_one, c);
	runtime_each(&c->rt, ".groups", sweep_one, c);
	if (c->cli->all)
		past_each(&c->rt, list_past, c);
	if (c->cli->json)
		json_close(&c->list, ']');
	return 0;
}

static void group_one(void *ctx, const char *name)
{
	static struct msg_group_info g; /* large; there is one loop */
	struct client *c = ctx;

	c->fd = runtime_connect(&c->rt, name);
	if (c->fd < 0)
		return; /* it has just ended */
	int rc = ipc_send_frame(c->fd, MSG_GROUP_ASK, NULL, 0, NULL, 0);
	if (!rc)
		rc = ipc_recv_frame(c->fd, c->buf, &c->f);
	if (!rc && c->f.type == MSG_GROUP_INFO && !unpack_group_info(c->f.data, c->f.len, &g))
		show_group(&g, c->cli->json ? &c->list : NULL);
	else
		log_error("merge group %s: its keeper is not answering", name);
	if (!rc)
		ipc_close_fds(&c->f);
	close(c->fd);
	c->fd = -1;
}

int client_groups(struct client *c)
{
	struct runtime vms = c->rt;
	char err[256];

	if (mergegroup_runtime(&vms, &c->rt, err, sizeof err)) {
		log_error("%s", err);
		return HVX_EXIT_HOST;
	}
	json_begin(&c->list, stdout);
	if (c->cli->json)
		json_open(&c->list, NULL, '[');
	runtime_each(&c->rt, ".sock", group_one, c);
	if (c->cli->json)
		json_close(&c->list, ']');
	return 0;
}

int client_status(struct client *c)
{
	struct msg_status s;
	int rc = ask_or_say(c, REQ_STATUS);

	if (rc)
		return rc;
	if (c->f.type != MSG_STATUS_REPLY || unpack_status_reply(c->f.data, c->f.len, &s))
		return take_reply(c, NULL) ?: HVX_EXIT_FAIL;
	show_status(&s, c->cli->json);
	return 0;
}

/* Without the blanks at the lines' ends, and the empty lines below. */
static void print_screen(const struct msg_screen *s)
{
	uint32_t rows = 0;

	for (uint32_t i = 0; i < s->len; i++)
		if (s->text[i] != ' ')
			rows = i / s->columns + 1;
	for (uint32_t row = 0; row < rows; row++) {
		const char *line = (const char *)s->text + row * s->columns;
		uint32_t n = s->columns;

		while (n && line[n - 1] == ' ')
			n--;
		printf("%.*s\n", (int)n, line);
	}
}

int client_screen(struct client *c)
{
	static struct msg_screen s;
	int rc = ask_or_say(c, REQ_SCREEN);

	if (rc)
		return rc;
	if (c->f.type != MSG_SCREEN_REPLY || unpack_screen_reply(c->f.data, c->f.len, &s))
		return take_reply(c, NULL) ?: HVX_EXIT_FAIL;
	if (s.graphics)
		log_error("%s: the display shows a picture, not text", c->name);
	else
		print_screen(&s);
	return s.graphics ? HVX_EXIT_FAIL : 0;
}

struct promised {
	struct client c;
	const char *except;
	uint64_t bytes;
};

static void add_guarantee(void *ctx, const char *name)
{
	struct promised *p = ctx;
	struct msg_status s;

	if (!strcmp(name, p->except))
		return;
	snprintf(p->c.name, sizeof p->c.name, "%s", name);
	if (ask(&p->c, REQ_STATUS) == 0) {
		if (p->c.f.type == MSG_STATUS_REPLY && !unpack_status_reply(p->c.f.data, p->c.f.len, &s))
			p->bytes += s.guarantee;
		ipc_close_fds(&p->c.f);
	}
	if (p->c.fd >= 0)
		close(p->c.fd);
}

uint64_t client_guarantees(const struct runtime *rt, const char *except)
{
	static struct cli nothing;
	static struct promised p; /* large; once a process */

	p = (struct promised){.c = {.cli = &nothing, .rt = *rt, .fd = -1}, .except = except};
	runtime_each(rt, ".sock", add_guarantee, &p);
	return p.bytes;
}

static int counters(struct client *c, const char *prefix)
{
	static struct msg_counters s;
	int rc = ask_or_say(c, REQ_STATS);

	if (rc)
		return rc;
	if (c->f.type != MSG_STATS_REPLY || unpack_stats_reply(c->f.data, c->f.len, &s))
		return take_reply(c, NULL) ?: HVX_EXIT_FAIL;
	unsigned n = show_counters(&s, prefix, c->cli->json);
	if (!n)
		log_error("%s: this VM has no such device", c->name);
	return n ? 0 : HVX_EXIT_FAIL;
}

int client_stats(struct client *c)
{
	return counters(c, "");
}

/* What the command asks, and whether it was done. */
int client_simple(struct client *c)
{
	int rc = ask_or_say(c, command_of(c->cli->cmd)->op);

	return rc ? rc : take_reply(c, NULL);
}

int client_balloon(struct client *c)
{
	return c->cli->words ? client_simple(c) : counters(c, "balloon.");
}

/* Waits until the monitor closes the connection, which it does at the very end; false at the timeout. */
static bool wait_end(struct client *c, unsigned seconds)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	struct timespec now, end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += seconds;
	for (;;) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		long ms = (end.tv_sec - now.tv_sec) * 1000 + (end.tv_nsec - now.tv_nsec) / 1000000;
		if (ms < 0)
			return false;
		if (poll(&p, 1, (int)ms) <= 0)
			continue;
		if (ipc_recv_frame(c->fd, c->buf, &c->f))
			return true;
		ipc_close_fds(&c->f);
	}
}

int client_stop(struct client *c)
{
	int rc = client_simple(c);

	if (rc || wait_end(c, c->cli->timeout))
		return rc;
	log_error("%s: the guest did not react to the power button within %u seconds; "
		  "'hvx-monitor kill %s' ends it",
		  c->name, c->cli->timeout, c->name);
	return HVX_EXIT_FAIL;
}

int client_kill(struct client *c)
{
	int rc = client_simple(c);

	if (rc || wait_end(c, 10))
		return rc;
	log_error("%s: its processes are still there", c->name);
	return HVX_EXIT_FAIL;
}

/* A request of its own; that it fails is no reason to detach. */
static void tell_size(void *ctx)
{
	struct client *c = ctx;
	struct msg_request_head r = {.version = IPC_VERSION, .op = REQ_RESIZE};
	struct winsize w;
	struct ipc_frame f;

	if (ioctl(0, TIOCGWINSZ, &w) < 0 || !w.ws_col || !w.ws_row)
		return;
	r.resize = (struct msg_request_resize){w.ws_col, w.ws_row};
	int n = pack_request(&r, c->buf, sizeof c->buf), fd = runtime_connect(&c->rt, c->name);
	if (fd < 0)
		return;
	if (!ipc_send_frame(fd, MSG_REQUEST, c->buf, (size_t)n, NULL, 0) && !ipc_recv_frame(fd, c->buf, &f))
		ipc_close_fds(&f);
	close(fd);
}

int client_console(struct client *c)
{
	int fd = -1, rc = ask_or_say(c, REQ_CONSOLE);

	if (!rc)
		rc = take_reply(c, &fd);
	if (rc)
		return rc;
	if (fd < 0)
		return HVX_EXIT_FAIL;
	rc = attach_console(fd, c->name, c->cli->ask.console.second ? tell_size : NULL, c);
	close(fd);
	return rc;
}

int client_command(const struct cli *cli)
{
	static struct client c;
	char err[256];

	c.cli = cli;
	c.fd = -1;
	if (runtime_open(&c.rt, err, sizeof err)) {
		log_error("%s", err);
		return HVX_EXIT_HOST;
	}
	const struct command *cmd = command_of(cli->cmd);
	int rc = cmd && cmd->run ? cmd->run(&c) : HVX_EXIT_USAGE;
	if (fflush(stdout) != 0)
		rc = HVX_EXIT_FAIL;
	ipc_close_fds(&c.f);
	hang_up(&c);
	return rc;
}

/*
 * A tool's sign that it serves: qemu-nbd greets, passt takes frames.  Invariant: no card is configured before its tool
 * has given its sign, so no guest runs with a card that never worked.
 */
#include "monitor/ready.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "common/err.h"
#include "common/log.h"
#include "monitor/machine.h"

#define SMALLEST   1  /* the kernel makes it a few KiB */
#define FRAMES_MAX 64 /* fill those many times over */

/* A frame as passt's stream has them, of a type that is nobody's (IEEE 802 "local experimental"). */
struct frame {
	uint32_t length;
	uint8_t to[6], from[6];
	uint16_t type;
	uint8_t rest[46];
} __attribute__((packed));
_Static_assert(sizeof(struct frame) == 4 + 60, "as long as the shortest on a wire");

/* Into a buffer so small that there is room again only when somebody reads. */
static void fill(int fd, const uint8_t mac[6])
{
	struct frame f = {.length = htonl(sizeof f - 4), .type = htons(0x88b5)};

	memset(f.to, 0xff, sizeof f.to);
	memcpy(f.from, mac, sizeof f.from);
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(const int){SMALLEST}, sizeof(int));
	for (int i = 0; i < FRAMES_MAX && send(fd, &f, sizeof f, MSG_DONTWAIT | MSG_NOSIGNAL) > 0; i++)
		;
}

static void serves(struct card *c)
{
	struct machine *m = c->m;

	ready_forget(c);
	c->tool->log.holds = false;
	if (c->role == ROLE_NET)
		setsockopt(c->backend, SOL_SOCKET, SO_SNDBUF, &(const int){READY_BUFFER}, sizeof(int));
	int rc = machine_configure(m);
	if (!rc)
		return;
	log_error("%s: configuration: %s", c->id, strerror(-rc));
	machine_end(m, HVX_EXIT_CHILD);
}

static void on_sign(void *ctx)
{
	struct card *c = ctx;
	char byte;
	ssize_t n = recv(c->backend, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		ipc_watch_enable(c->awaits, false);
		spawn_kill(c->tool); /* it has nothing to live for; its death is told with what it said last */
	} else if (n > 0 || c->role == ROLE_NET) {
		serves(c);
	}
}

int ready_await(struct machine *m, struct card *c)
{
	bool net = c->role == ROLE_NET;

	c->m = m;
	c->tool = &m->proc[m->nprocs - 1];
	c->tool->log.holds = true;
	if (net)
		fill(c->backend, m->cfg.net[c->option].mac);
	c->awaits = ipc_watch_fd(m->loop, c->backend, net ? IPC_WRITE : IPC_READ, on_sign, c);
	return c->awaits ? 0 : -ENOMEM;
}

void ready_forget(struct card *c)
{
	ipc_watch_free(c->awaits);
	c->awaits = NULL;
	forward_release(&c->claim);
}

/* What it said last, without its name and that of the file, which it knows by number only. */
static const char *reason(const struct proc *p, int wstatus, char *buf, size_t len)
{
	const char *s = p->log.last, *file = strstr(s, "': ");
	size_t n = strlen(p->name);

	if (!s[0])
		return p->killed ? "it hung up" : spawn_cause(wstatus, buf, len);
	if (file)
		return file + 3;
	return !strncmp(s, p->name, n) && !strncmp(s + n, ": ", 2) ? s + n + 2 : s;
}

bool ready_died(struct machine *m, struct proc *p, int wstatus)
{
	struct card *c = p->tool_of;
	char cause[128], err[256];
	const char *why = reason(p, wstatus, cause, sizeof cause);

	if (!c->awaits)
		return false;
	ready_forget(c);
	if (c->role == ROLE_BLK) {
		log_error("disk %s: %s: %s", m->cfg.disk[c->option].path, p->name, why);
		machine_end(m, HVX_EXIT_CONFIG);
	} else if (forward_claim(&c->claim, &m->cfg.net[c->option], err, sizeof err)) {
		log_error("%s", err); /* somebody was faster */
		machine_end(m, HVX_EXIT_CONFIG);
	} else {
		forward_release(&c->claim);
		log_error("%s: %s: %s", c->id, p->name, why);
		machine_end(m, HVX_EXIT_HOST);
	}
	return true;
}

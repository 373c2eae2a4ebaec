/*
 * What all children do before their own work.  Invariant: nothing is received
 * from anybody before the set-up filter is in force.
 */
#include "common/child.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "common/text.h"
#include <config.h>

static void usage(const struct child *c)
{
	printf("usage: %s --name=VM --sandbox=strict|best --namespaces=MASK\n"
	       "Started by hvx-monitor, which talks to it over descriptor %d; see %s(8).\n",
	       c->program, CHILD_CONTROL_FD, c->program);
}

static void parse(struct child *c, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];
		if (!strcmp(a, "--help")) {
			usage(c);
			exit(0);
		} else if (!strcmp(a, "--version")) {
			printf("%s %s\n", c->program, PACKAGE_VERSION);
			exit(0);
		} else if (!strncmp(a, "--name=", 7)) {
			continue; /* for people who look at processes */
		} else if (!strcmp(a, "--sandbox=strict")) {
			c->strict = true;
		} else if (!strcmp(a, "--sandbox=best")) {
			c->strict = false;
		} else if (!strncmp(a, "--namespaces=", 13)) {
			c->ns = (uint32_t)strtoul(a + 13, NULL, 0) & SANDBOX_NAMESPACES;
		} else if (!strcmp(a, "--debug")) {
			log_set_level(LOG_LVL_DEBUG);
			ipc_set_trace(true);
		} else {
			fprintf(stderr, "%s: unknown argument '%s'\n", c->program, a);
			exit(HVX_EXIT_USAGE);
		}
	}
	log_init(""); /* the monitor adds the tag: what we write there proves nothing */
}

static void check_control_fd(const struct child *c)
{
	int type = 0;
	socklen_t len = sizeof type;

	if (getsockopt(CHILD_CONTROL_FD, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_SEQPACKET)
		return;
	fprintf(stderr, "%s: not started by hvx-monitor\n", c->program);
	exit(HVX_EXIT_USAGE);
}

void child_start(struct child *c, int argc, char **argv)
{
	const int keep[] = {CHILD_CONTROL_FD};
	char names[256];

	c->strict = true;
	parse(c, argc, argv);
	check_control_fd(c);
	sandbox_close_fds(keep, 1);
	c->layers = sandbox_enter(c->table, c->ns, c->missing, sizeof c->missing);
	uint32_t lack = sandbox_missing(c->layers);
	if (lack && c->strict)
		child_fail(c, HVX_EXIT_HOST, "the sandbox lacks %s (%s); --sandbox=best goes on without",
			   sandbox_names(lack, names, sizeof names),
			   c->missing[0] ? c->missing : "refused by the host");
	if (lack)
		log_warn("sandbox without %s (%s)", sandbox_names(lack, names, sizeof names),
			 c->missing[0] ? c->missing : "refused by the host");
	struct msg_hello h = {.version = IPC_VERSION, .role = c->role, .release = PACKAGE_VERSION};
	child_send(c, MSG_HELLO, pack_hello(&h, c->buf, sizeof c->buf), NULL, 0);
}

void child_next(struct child *c, struct ipc_frame *f)
{
	int rc = ipc_recv_frame(CHILD_CONTROL_FD, c->buf, f);

	if (rc == -EPIPE || rc == -ECONNRESET)
		exit(0); /* the monitor ended: so do we */
	if (rc)
		fatal(HVX_EXIT_FAIL, "control socket: %s", strerror(-rc));
}

void child_expect(struct child *c, uint16_t type, struct ipc_frame *f)
{
	child_next(c, f);
	if (f->type != type)
		fatal(HVX_EXIT_FAIL, "the monitor sent message %u where %s was due", f->type, pack_type_name(type));
}

void child_send(struct child *c, uint16_t type, int len, const int *fds, int nfds)
{
	int rc = len < 0 ? len : ipc_send_frame(CHILD_CONTROL_FD, type, c->buf, (size_t)len, fds, nfds);

	if (rc == -EPIPE || rc == -ECONNRESET)
		exit(0);
	if (rc)
		fatal(HVX_EXIT_FAIL, "sending %s: %s", pack_type_name(type), strerror(-rc));
}

void child_seal(struct child *c)
{
	int rc = sandbox_limit_memory(c->table, c->own, c->shared);

	if (rc && c->strict)
		child_fail(c, HVX_EXIT_HOST, "limiting memory: %s", strerror(-rc));
	if (rc)
		c->layers &= ~SANDBOX_BIT(RLIMITS);
	rc = sandbox_seal(c->table);
	if (rc && c->strict)
		child_fail(c, HVX_EXIT_HOST, "the final seccomp filter: %s", sandbox_error(rc));
	if (rc) {
		if (c->layers & SANDBOX_BIT(SECCOMP)) /* else it is known already */
			log_warn("no final seccomp filter: %s", sandbox_error(rc));
		c->layers &= ~SANDBOX_BIT(SECCOMP);
	}
	struct msg_sealed s = {.layers = c->layers};
	memcpy(s.missing, c->missing, sizeof s.missing);
	child_send(c, MSG_SEALED, pack_sealed(&s, c->buf, sizeof c->buf), NULL, 0);
}

void child_fail(struct child *c, int status, const char *fmt, ...)
{
	struct msg_failed m = {.status = (uint32_t)status};
	char text[MSG_TEXT_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	text_clean(m.text, sizeof m.text, text, strlen(text));
	child_send(c, MSG_FAILED, pack_failed(&m, c->buf, sizeof c->buf), NULL, 0);
	exit(status);
}

/*
 * Children: fork, exec, how they died.  See spawn.c.
 */
#ifndef HVX_MONITOR_SPAWN_H
#define HVX_MONITOR_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/ipc.h"
#include "monitor/lines.h"
#include "proto/pack.h"

struct card;

struct proc {
	const char *program; /* "hvx-vcpu" */
	const char *name;    /* "vcpu" */
	enum msg_role role;
	pid_t pid;       /* 0: not running */
	uint32_t ns;     /* namespaces made */
	uint32_t layers; /* reported when sealed */
	bool hello, sealed;
	bool killed;          /* we sent SIGKILL */
	struct card *tool_of; /* not NULL: no child of ours but what stands behind that card */
	struct lines log;
	char vm[MSG_NAME_MAX];
};

/*
 * Starts p->program in namespaces of its own; its control socket is *control. Everything else it holds is
 * /dev/null and the log pipe.  0 or a negative error with @err filled.
 */
int spawn_child(struct ipc_loop *l, struct proc *p, const char *vm, bool strict, bool debug, int *control, char *err,
		size_t len);

/* How to start a program that is not ours. */
struct spawn_tool {
	char *const *argv; /* its absolute path first */
	int fd;            /* becomes descriptor 3; -1: none */
	int fd2;           /* becomes descriptor 4; -1: none */
	bool listens;      /* 3 is a listening socket, told as systemd does it: LISTEN_FDS, LISTEN_PID */
	bool confine;      /* 4 is an image: confine_file_server() */
	uint32_t ns;       /* namespaces it gets (SANDBOX_NAMESPACES bits), as many as can be had */
};
/* Starts it with no_new_privs, these descriptors and the log pipe, nothing else.  0 or a negative error. */
int spawn_tool(struct ipc_loop *l, struct proc *p, const struct spawn_tool *t, const char *vm, char *err, size_t len);

void spawn_kill(struct proc *p);     /* SIGKILL, if it runs */
void spawn_finished(struct proc *p); /* after it was reaped: takes its last log lines */

/* "exited with status 3", "killed by SIGSYS (a system call its seal forbids)" */
const char *spawn_cause(int wstatus, char *buf, size_t len);

#endif

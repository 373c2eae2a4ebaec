/*
 * Children: fork, exec, how they died.  See spawn.c.
 */
#ifndef HVX_MONITOR_SPAWN_H
#define HVX_MONITOR_SPAWN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/ipc.h"
#include "common/sandbox.h"
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
	uint64_t data;        /* RLIMIT_DATA at the start; 0: as ours */
	bool killed;          /* we sent SIGKILL */
	bool silent;          /* it was asked and said nothing in time; nor since */
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
	char **argv;              /* its absolute path first */
	unsigned root_args;       /* the last so many are for one that finds itself id 0 */
	const char *const *files; /* what it needs beside itself and its libraries; ends with NULL */
	int fd;                   /* becomes descriptor 3; -1: none */
	const int *images;        /* @nimages of them become descriptors CONFINE_IMAGE_FD and so on */
	unsigned nimages;
	uint32_t writable; /* those of them that may be written, a bit each */
	bool listens;      /* 3 is a listening socket, told as systemd does it: LISTEN_FDS, LISTEN_PID */
	bool strict;       /* all layers of @guest.want, or it is not started */
	const struct sandbox_table *table;
	struct sandbox_guest guest; /* want, uid, gid, caps, network */
};
/*
 * Starts it in the sandbox @t describes, with these descriptors and the log pipe, nothing else; p->layers becomes what was
 * reached.  0 or a negative error with @err filled; else @err says what it lacks, or is empty.
 */
int spawn_tool(struct ipc_loop *l, struct proc *p, const struct spawn_tool *t, const char *vm, char *err, size_t len);

void spawn_kill(struct proc *p);     /* SIGKILL, if it runs */
void spawn_finished(struct proc *p); /* after it was reaped: takes its last log lines */

/* "exited with status 3", "killed by SIGSYS (a system call its seal forbids)" */
const char *spawn_cause(int wstatus, char *buf, size_t len);

#endif

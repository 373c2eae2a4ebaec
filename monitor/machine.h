/*
 * One virtual machine as the monitor sees it.  See machine.c.
 */
#ifndef HVX_MONITOR_MACHINE_H
#define HVX_MONITOR_MACHINE_H

#include "common/ipc.h"
#include "monitor/bound.h"
#include "monitor/card.h"
#include "monitor/cause.h"
#include "monitor/config.h"
#include "monitor/console.h"
#include "monitor/firmware.h"
#include "monitor/memwatch.h"
#include "monitor/mergegroup.h"
#include "monitor/notify.h"
#include "monitor/past.h"
#include "monitor/permit.h"
#include "monitor/runtime.h"
#include "monitor/spawn.h"

#define MACHINE_MAX_CARDS (CONFIG_DISKS + CONFIG_NETS)
/* Then one for each card in their order, then tools (passt, qemu-nbd). */
enum {
	PROC_MEMSVC,
	PROC_VCPU,
	PROC_STUBS, /* MSG_STUBS of them, or none */
	PROC_CARDS = PROC_STUBS + MSG_STUBS,
	PROC_MAX = PROC_CARDS + 2 * MACHINE_MAX_CARDS
};
#define MACHINE_MAX_CLIENTS 32

_Static_assert(MACHINE_MAX_CARDS <= MSG_DEVICES_MAX && CARD_FIRST_SLOT + MACHINE_MAX_CARDS <= CARD_END_SLOT,
	       "every card has its place on the bus");
_Static_assert(PROC_MAX < MSG_PROCS_MAX, "STATUS_REPLY names them all, and the monitor");
_Static_assert(PROC_CARDS + MACHINE_MAX_CARDS <= 64, "a bit each in stats_due");

/* Who is at the other end of a connection. */
struct peer {
	struct machine *m;
	enum msg_role role;
	struct ipc_conn *conn;  /* NULL: free slot or gone */
	struct proc *proc;      /* of a child */
	struct card *card;      /* of a device process */
	enum msg_request waits; /* of a client: the request that is not answered yet, 0: none */
	uint64_t waits_ns;      /* since when, machine_now() */
};

struct machine {
	struct config cfg;
	struct runtime rt;
	struct ipc_loop *loop;
	enum vm_state state;
	int status; /* exit status once VM_ENDING */
	struct proc proc[PROC_MAX];
	int nprocs;
	struct card card[MACHINE_MAX_CARDS];
	int ncards;
	/* a CPU each, by which cards call it; pipes, not eventfds: only they can signal a thread (fcntl(2), O_ASYNC) */
	int call[MSG_CPUS_MAX][2];
	unsigned ncalls;
	struct seed seed; /* until its disk is made */
	struct cause_cgroup cgroup;
	struct bound bound;
	struct past past; /* what is written down of it */
	int past_fd;
	struct notify manager;
	struct ipc_watch *watchdog; /* the manager's */
	bool heard;                 /* of the vcpu, since the watchdog was fed */
	char why[128];              /* it has ended; empty: the last error says so */
	struct peer child[PROC_MAX], client[MACHINE_MAX_CLIENTS];
	struct console *console, *second; /* second: NULL, there is none */
	int log_fd, lock_fd, listen_fd;
	struct ipc_watch *listen_watch, *sig[8], *end_timer, *drain_timer, *answer_timer;
	int ram_fd, control_fd; /* until handed over; never mapped here */
	int mem_end, vcpu_end;  /* of the channel between vcpu and memsvc, until handed over; -1 */
	int stub_end[MSG_STUBS], stub_vcpu_end[MSG_STUBS]; /* of the channels between stubs and vcpu, likewise */
	bool stub_configured[MSG_STUBS];
	int pool_rw, pool_fd; /* of merged pages, likewise; memsvc's, and the one that all others read */
	/* of a VM in a merge group; its hvx-memsvc is no child of ours */
	bool grouped;
	struct mergegroup_ends group;
	struct ipc_conn *keeper;
	struct memwatch watch;
	bool region, vcpu_hello;
	struct firmware_files firmware;
	int kernel_fd, initrd_fd[MSG_MODULES_MAX], trace_fd, debugcon_fd;
	struct lines debugcon; /* of --debugcon=stderr */
	uint32_t boots;
	enum msg_window_state windows;
	char reason[MSG_TEXT_MAX]; /* why it is paused, if not by request */
	uint64_t start_ns;
	bool debug;
	int notify_fd; /* `start`: says the status to the command that waits; -1 */
	struct msg_counters stats;
	uint64_t stats_due; /* bit a child whose answer is awaited */
	int child_wstatus;
	uint8_t buf[IPC_MAX_DATA];
};

/* Runs the VM that @cfg describes until it ends; returns the exit status of the command. */
int machine_run(const struct config *cfg, bool debug, int notify_fd);

/* ---- for the handlers in handle.c and control.c ---- */
void machine_end(struct machine *m, int status);
/* As machine_end(), which takes the last error for the cause. */
void machine_end_for(struct machine *m, int status, const char *why);
int machine_send(struct machine *m, struct peer *p, uint16_t type, int len, const int *fds, int nfds);
int machine_configure(struct machine *m); /* devices and the vcpu, when what they need is there */
int machine_start_child(struct machine *m, int i, const char *program, const char *name, enum msg_role role);
int machine_command(struct machine *m, enum msg_op op, uint64_t value);
void machine_started(struct machine *m);
uint64_t machine_now(void);                                          /* CLOCK_MONOTONIC, ns */
void machine_console_size(void *m, unsigned columns, unsigned rows); /* of the second console */

/* control.c */
int control_open(struct machine *m);
void control_close(struct machine *m);
void control_late(void *m); /* the answer timer: whoever has waited too long is told who does not answer */
int control_request(struct machine *m, struct peer *p, struct ipc_frame *f);
void control_answer(struct machine *m, enum msg_request op, uint32_t status, const char *text);
void control_screen_is(struct machine *m, const struct msg_screen *s);
void control_stats_part(struct machine *m, int proc);

/* control.c: what a client may ask, a row of command.c each */
int control_status(struct machine *m, struct peer *p, const struct msg_request_head *r);
int control_stats(struct machine *m, struct peer *p, const struct msg_request_head *r);
int control_pause(struct machine *m, struct peer *p, const struct msg_request_head *r);
int control_resume(struct machine *m, struct peer *p, const struct msg_request_head *r);
int control_stop(struct machine *m, struct peer *p, const struct msg_request_head *r);
int control_kill(struct machine *m, struct peer *p, const struct msg_request_head *r);
int control_console(struct machine *m, struct peer *p, const struct msg_request_head *r);
int control_limit(struct machine *m, struct peer *p, const struct msg_request_head *r);
int control_link(struct machine *m, struct peer *p, const struct msg_request_head *r);
int control_balloon(struct machine *m, struct peer *p, const struct msg_request_head *r);
int control_resize(struct machine *m, struct peer *p, const struct msg_request_head *r);
int control_screen(struct machine *m, struct peer *p, const struct msg_request_head *r);

/* handle.c: messages from children */
int handle_hello(struct machine *m, struct peer *p, struct ipc_frame *f);
int handle_failed(struct machine *m, struct peer *p, struct ipc_frame *f);
int handle_sealed(struct machine *m, struct peer *p, struct ipc_frame *f);
int handle_region(struct machine *m, struct peer *p, struct ipc_frame *f);
int handle_running(struct machine *m, struct peer *p, struct ipc_frame *f);
int handle_exit(struct machine *m, struct peer *p, struct ipc_frame *f);
int handle_vcpu_state(struct machine *m, struct peer *p, struct ipc_frame *f);
int handle_mem_stats(struct machine *m, struct peer *p, struct ipc_frame *f);
int handle_dev_event(struct machine *m, struct peer *p, struct ipc_frame *f);
int handle_dev_stats(struct machine *m, struct peer *p, struct ipc_frame *f);
int handle_vcpu_screen(struct machine *m, struct peer *p, struct ipc_frame *f);
int handle_vcpu_stats(struct machine *m, struct peer *p, struct ipc_frame *f);

#endif

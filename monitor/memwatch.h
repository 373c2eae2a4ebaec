/*
 * Memory while a VM runs: is the host short of it, what can the guest spare, is the VM over its guarantee?  See memwatch.c.
 */
#ifndef HVX_MONITOR_MEMWATCH_H
#define HVX_MONITOR_MEMWATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/pack.h"

struct machine;

enum memwatch_level { MEMWATCH_EASY, MEMWATCH_NORMAL, MEMWATCH_SHORT };

/* What is known of the host, and of the cgroup that we are in; UINT64_MAX: not known, or no limit. */
struct memwatch_host {
	uint64_t stalled; /* tasks stalled for memory, hundredths of a percent of the last ten seconds (PSI, some) */
	uint64_t total, available; /* bytes */
	uint64_t used, limit;      /* the cgroup's; used: without files' pages that lie idle */
};

/* What is known of the guest, bytes. */
struct memwatch_guest {
	uint64_t nominal, floor; /* all that it may have, and the least */
	uint64_t ceiling;        /* what `hvx-monitor balloon` said last */
	uint64_t target, actual; /* what it has been told to have, and has */
	uint64_t available;      /* as its kernel reckons; UINT64_MAX: it has not said */
	bool swaps;              /* since the last look */
};

struct memwatch {
	struct ipc_watch *tick;
	int psi, meminfo, usage, stat, vm_ram, oom; /* descriptors opened before the seal; -1: none */
	uint64_t limit;
	enum memwatch_level level;
	bool asked; /* the vcpu's counters are on their way for us */
	uint64_t target, ceiling, swapped;
	struct msg_mem_stats mem; /* hvx-memsvc's last word */
	bool over;                /* its guarantee */
	unsigned outs;            /* looks in a row that found the host out of memory */
	enum {
		MEMWATCH_FREE,
		MEMWATCH_HELD,
		MEMWATCH_LEFT
	} hold; /* HELD: paused for it; LEFT: somebody has decided otherwise */
};

void memwatch_init(struct memwatch *w);
/* Opens what is looked at later.  Before any child exists. */
void memwatch_open(struct memwatch *w);
/* 0 or -ENOMEM. */
int memwatch_timer(struct machine *m);
/* The vcpu's process, just made: whose score for the kernel's OOM killer is set from here on. */
void memwatch_vcpu(struct machine *m, pid_t pid);
/* The guest runs: begins to look, if the VM has something that depends on it. */
void memwatch_start(struct machine *m);
void memwatch_close(struct memwatch *w);

/* Counters of the vcpu that were asked for with w->asked. */
void memwatch_counters(struct machine *m, const struct msg_counters *c);
void memwatch_stats(struct machine *m, const struct msg_mem_stats *s);
/* Nothing else has helped: out of memory, until it is clearly not short any more (@was). */
bool memwatch_out(const struct memwatch_host *h, bool was);
/* The VM is paused or resumed by command: what it was paused for here no longer decides. */
void memwatch_command(struct machine *m);
/* The guest is to have so much, by command. */
void memwatch_balloon(struct machine *m, uint64_t bytes);
/* Bytes of guest memory that are there; 0: not known. */
uint64_t memwatch_resident(const struct machine *m);
uint64_t memwatch_shared(const struct machine *m);

/* 0, or an exit status with @err: the host cannot give this VM what it is guaranteed, beside what others are. */
int memwatch_admit(struct machine *m, char *err, size_t len);

/* ---- the decisions ---- */
enum memwatch_level memwatch_judge(const struct memwatch_host *h, enum memwatch_level was);
/* How much the guest is to have. */
uint64_t memwatch_target(const struct memwatch_guest *g, enum memwatch_level level);

#endif

/* The two processes that run batches: one natively, one in the engine. */
#ifndef HVX_INSN_WORKER_H
#define HVX_INSN_WORKER_H

#include <sys/types.h>

#include "state.h"

struct worker {
	const char *name;
	struct batch *b;
	struct worker_out *out;
	void (*init)(void);
	void (*run)(struct batch *b, struct worker_out *out, uint32_t from);
	pid_t pid;
	int cmd, done; /* pipe ends */
	uint32_t deaths;
	int verbose;
};

/* Forks the process; -1 with a message on failure. */
int worker_start(struct worker *w);
/* Tells it to run the batch. */
int worker_begin(struct worker *w);
/* Waits for the end.  A case on which the worker dies or hangs keeps OUT_NONE or becomes OUT_TIMEOUT; the rest
 * runs in a new worker. */
int worker_finish(struct worker *w);
void worker_stop(struct worker *w);

#endif

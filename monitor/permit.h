/*
 * Which message may come from whom, in which state.  See permit.c.
 */
#ifndef HVX_MONITOR_PERMIT_H
#define HVX_MONITOR_PERMIT_H

#include <stdint.h>

#include "common/ipc.h"
#include "proto/pack.h"

enum vm_state {
	VM_STARTING, /* children say hello, memory is made */
	VM_LOADING,  /* the vcpu has its configuration */
	VM_RUNNING,
	VM_PAUSED,
	VM_ENDING, /* children are told to go */
	VM_STATE_COUNT
};
#define VM_BIT(s) (1u << (s))

const char *vm_state_name(enum vm_state s);

struct machine;
struct peer; /* machine.h */

/* Handlers return 0, or a negative error: -EPROTO ends the peer. */
struct permit {
	enum msg_type type;
	enum msg_role sender;
	uint32_t states; /* VM_BIT()s */
	int min_fds, max_fds;
	int (*handler)(struct machine *m, struct peer *p, struct ipc_frame *f);
};

extern const struct permit permit_table[];
extern const unsigned permit_count;

/* The entry that allows it, or NULL: everything not in the table is refused. */
const struct permit *permit_find(uint16_t type, enum msg_role sender, enum vm_state state, int nfds);

#endif

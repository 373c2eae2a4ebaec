/*
 * The main thread of hvx-vcpu once the guest runs: the monitor's messages and the
 * console's input.  See control.c.
 */
#ifndef HVX_VCPU_CONTROL_H
#define HVX_VCPU_CONTROL_H

#include "common/child.h"
#include "vcpu/local/set.h"
#include "vcpu/runner.h"
#include "vcpu/throttle.h"

struct control {
	struct child *child;
	struct runner *run;
	struct cards *cards;
	struct local_set *local;
	struct ipc_loop *loop;
	struct ipc_conn *conn;
	struct ipc_watch *wake, *console, *room;
	struct throttle throttle;
	int console_fd;     /* -1: none */
	uint8_t input[256]; /* read, not yet taken by the UART */
	size_t input_at, input_n;
	uint32_t boots_told;
	enum msg_window_state windows;
	int status;
};

/* Makes the loop; before the final seal. 0 or a negative error. */
int control_init(struct control *c);
/* Runs it until the monitor hangs up; returns the process's exit status. */
int control_run(struct control *c);

#endif

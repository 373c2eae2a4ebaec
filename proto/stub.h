/*
 * What hvx-vcpu and hvx-stub share: the area of a stub's address space that is not the guest's, and the orders in it.
 *
 *   code      1 page   read, execute
 *   orders    1 page   read only in the stub; written by hvx-vcpu through its own mapping
 *   stack     8 pages  of signals; hvx-vcpu reads there what was interrupted and writes what is to go on
 *
 * The last two are one memfd, which hvx-stub makes and sends to hvx-vcpu with the listener of its guest thread's filter and the
 * eventfd on which its helper answers.
 */
#ifndef HVX_STUB_H
#define HVX_STUB_H

/* for stub/area.S, too; offsets asserted in stub/main.c */
#define STUB_PAGE        4096
#define STUB_STACK_PAGES 8
#define STUB_PAGES       (2 + STUB_STACK_PAGES)
#define STUB_TASK_END    0x7ffffffff000 /* behind the last page that a user may have */

#define STUB_O_SEQ    0
#define STUB_O_N      8
#define STUB_O_SP     16
#define STUB_O_FS     24
#define STUB_O_GS     32
#define STUB_O_OK     40
#define STUB_O_FAILED 48
#define STUB_O_AREA   56
#define STUB_O_ORDER  64
#define STUB_O_OWN    960

#define STUB_ORDERS 16
#define STUB_STOP   110 /* getppid: the system call that waits for hvx-vcpu's answer */

/* That answer: what is to be done before guest code goes on. */
#define STUB_GO_FS   1 /* base of FS from the orders */
#define STUB_GO_GS   2
#define STUB_GO_SEGS 4 /* ds, es, fs and gs are null again */

/* Descriptors: hvx-stub's own numbers. */
#define STUB_FD_RAM     4
#define STUB_FD_ACK     5
#define STUB_FD_CHANNEL 6
#define STUB_FD_LISTEN  7

#ifndef __ASSEMBLER__
#include <stdint.h>

/* mmap of STUB_FD_RAM, shared and fixed; munmap; tgkill of the guest thread by SIGUSR1; exit_group. */
struct stub_order {
	uint64_t nr, arg[6];
};

struct stub_orders {
	uint32_t seq, pid;   /* orders are given by counting up; pid: as hvx-stub numbers itself */
	uint64_t n;          /* of them */
	uint64_t frame_sp;   /* rsp of the rt_sigreturn that goes on */
	uint64_t fs, gs;     /* bases */
	uint64_t ok, failed; /* what the helper adds to its eventfd: all were done; one was not */
	uint64_t area;       /* where it lies in the stub */
	struct stub_order order[STUB_ORDERS];
	/* hvx-stub's own, from STUB_O_OWN on */
};
#endif
#endif

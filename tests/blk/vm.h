/*
 * Monitor, virtual CPU and driver of one real hvx-blk: starts it as the monitor does, offers it memory and a ring,
 * and counts what it answers.  See vm.c and driver.c.
 */
#ifndef HVX_TEST_BLK_VM_H
#define HVX_TEST_BLK_VM_H

#include "common/gmem.h"
#include "memsvc/ram.h"
#include "monitor/devopt.h"
#include "monitor/spawn.h"
#include "proto/pack.h"
#include "proto/shm.h"
#include "tests/insn/rng.h"

#define VM_RAM   (16u << 20)
#define VM_SLOTS 64u
#define VM_ROOM  (128u << 10) /* data of a slot */
#define VM_QUEUE 256u
#define VM_LIMIT 20000 /* ms that anything may take */

/* virtio 1.2 5.2.3, 5.2.6 */
enum { VM_IN = 0, VM_OUT = 1, VM_FLUSH = 4, VM_GET_ID = 8, VM_DISCARD = 11, VM_ZEROES = 13 };
enum { VM_OK = 0, VM_IOERR = 1, VM_UNSUPP = 2, VM_FREE = -1, VM_FLYING = -2 };
#define VM_F_FLUSH (1ull << 9)

struct image;

struct vm_setup {
	const char *image;
	enum disk_format format; /* AUTO: raw */
	bool readonly, snapshot, through, pause;
	bool no_uring;  /* the host refuses io_uring_setup() */
	uint64_t fsize; /* limit of file sizes; 0: none */
};

struct vm_slot {
	uint32_t type, len; /* bytes of data, or of the range */
	uint64_t sector;
	int status;
};

struct vm {
	struct vm_setup set;
	struct rng r;
	pid_t blk;
	struct proc nbd;
	int log; /* what hvx-blk says */
	struct ram ram;
	struct gmem mem;
	struct shm_doorbells *bell;
	int control, channel, kick, call;
	struct image *image; /* its locks, while qemu-nbd has it open by itself */
	struct msg_virtio_offer offer;
	uint64_t features;
	struct vm_slot slot[VM_SLOTS];
	unsigned flying;
	uint16_t avail, seen, rung;
	uint32_t generation;
	uint8_t buf[IPC_MAX_DATA];
	struct ipc_frame f;
};

/* Ends the program with a message: the test has failed, or the host lacks something. */
void vm_die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* vm.c: the processes.  @seed: of the driver's choices. */
void vm_start(struct vm *v, const struct vm_setup *s, uint64_t seed);
/* SIGKILL to either or both, and the wait for the end of both (qemu-nbd ends when its client is gone). */
void vm_kill(struct vm *v, bool blk, bool nbd);
/* The monitor hangs up: both must end, hvx-blk with status 0. */
void vm_stop(struct vm *v);
void vm_free(struct vm *v);
void vm_show(struct vm *v); /* what the two have logged */
uint64_t vm_counter(struct vm *v, const char *name);
void vm_command(struct vm *v, enum msg_dev_op op);
/* The next frame of the channel or of the control socket must be of this type. */
void vm_expect(struct vm *v, int fd, uint16_t type);

/* driver.c: the guest. */
void vm_activate(struct vm *v, uint64_t features);
void vm_reset(struct vm *v); /* and the answer */
uint8_t *vm_data(struct vm *v, unsigned slot);
/* Makes a request available, as a chain or an indirect table, in one or many pieces; not rung. */
void vm_put(struct vm *v, unsigned slot, uint32_t type, uint64_t sector, uint32_t len);
void vm_put_head(struct vm *v, unsigned head); /* a chain that is there already, or what looks like one */
void vm_ring(struct vm *v);
/* Takes what is done; true when that is something. */
bool vm_look(struct vm *v);
/* Waits until something is done; dies when nothing comes. */
void vm_wait(struct vm *v);
/* One request from start to end: its status. */
int vm_do(struct vm *v, uint32_t type, uint64_t sector, uint32_t len);
uint64_t vm_sectors(const struct vm *v);

#endif

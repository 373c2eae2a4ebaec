/*
 * The front end of a disk with nothing around it: guest memory, a ring, stores in memory, and the far ends of its two
 * connections.  Everything happens in the caller's thread.  See front.c.
 */
#ifndef HVX_TEST_FRONT_H
#define HVX_TEST_FRONT_H

#include "tests/blk/fakestore.h"

#define FRONT_RAM   (5u << 20)
#define FRONT_SLOTS 40u
#define FRONT_ROOM  (64u << 10) /* data of a slot */
#define FRONT_QUEUE 256u
#define FRONT_RINGS 2u

/* Request types, virtio 1.2 5.2.6; feature bits, 5.2.3. */
enum { FRONT_IN = 0, FRONT_OUT = 1, FRONT_FLUSH = 4, FRONT_GET_ID = 8, FRONT_DISCARD = 11, FRONT_ZEROES = 13 };
enum { FRONT_OK = 0, FRONT_IOERR = 1, FRONT_UNSUPP = 2 };
#define FRONT_F_RO           (1ull << 5)
#define FRONT_F_FLUSH        (1ull << 9)
#define FRONT_F_CONFIG_WCE   (1ull << 11)
#define FRONT_F_DISCARD      (1ull << 13)
#define FRONT_F_WRITE_ZEROES (1ull << 14)
#define FRONT_ALL            (FRONT_F_FLUSH | FRONT_F_CONFIG_WCE | FRONT_F_DISCARD | FRONT_F_WRITE_ZEROES)
#define FRONT_WCE            32 /* in the configuration space */

struct front_setup {
	uint64_t size;
	uint32_t block; /* 0: 512 */
	bool readonly, snapshot, through, pause;
};

struct front {
	struct blk b; /* first: the front end */
	struct fakestore base, top;
	struct shm_doorbells bell;
	uint8_t *ram;
	uint64_t *p2m, *code, *dirty;
	int vcpu, monitor, call;                        /* far ends */
	unsigned ring;                                  /* the one that requests are put into */
	uint16_t avail[FRONT_RINGS], seen[FRONT_RINGS]; /* of ours: next free place, used elements looked at */
	int status[FRONT_SLOTS];                        /* -1: in flight */
	uint8_t buf[IPC_MAX_DATA];
	struct ipc_frame f;
	unsigned asked;     /* invalidations */
	uint16_t used_then; /* used.idx while the last one was asked for */
};

struct front *front_new(const struct front_setup *s);
struct front *front_start(const struct front_setup *s); /* and activates it, with FRONT_ALL */
void front_free(struct front *f);
bool front_all(const uint8_t *p, size_t n, uint8_t c); /* are all bytes the same? */
void front_activate(struct front *f, uint64_t features);

/* Data of a slot: what a write brings, what a read leaves. */
uint8_t *front_data(struct front *f, unsigned slot);
/* Puts a request with @out bytes of data to write and @in to read into the ring; data is cut into two descriptors at
 * @cut (0: it is not), the header likewise. */
void front_put(struct front *f, unsigned slot, uint32_t type, uint64_t sector, uint32_t out, uint32_t in, uint32_t cut);
/* A chain of the caller's: descriptors from @first on are written already. */
void front_avail(struct front *f, unsigned first);
void front_desc(struct front *f, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
/* Rings for f->ring, and takes what is done in all. */
void front_ring(struct front *f);
void front_look(struct front *f);
/* Put, ring, and the status: for stores that do everything at once. */
int front_do(struct front *f, unsigned slot, uint32_t type, uint64_t sector, uint32_t out, uint32_t in);
int front_range(struct front *f, unsigned slot, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags);

/* As device.c does it on a message; true when it was answered at once. */
bool front_reset(struct front *f);
/* The next message to the vcpu or to the monitor, by type; 0: there is none. */
uint16_t front_vcpu(struct front *f);
uint16_t front_monitor(struct front *f);
/* Turns of the loop for so many ms: timers. */
void front_wait(struct front *f, unsigned ms);

#endif

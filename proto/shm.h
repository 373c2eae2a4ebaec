/*
 * Layout of the control region, the memory that memsvc, the vcpu and the devices of
 * one VM share beside guest RAM: epochs, p2m, code bitmap, dirty bitmap, bitmap of held pool pages.
 * Invariant: every offset follows from the number of RAM pages alone, so that no
 * reader trusts an offset another process wrote.
 */
#ifndef HVX_SHM_H
#define HVX_SHM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define SHM_MAGIC   0x314d454d58564821ull /* "!HVXMEM1" */
#define SHM_VERSION 3
#define SHM_PAGE    4096u
#define SHM_MAX_RAM (1ull << 40)
#define SHM_MAX_ROM \
	(16ull << 20) /* firmware, in pages behind those of RAM, which count as such in all the tables here */

/*
 * A p2m entry: an offset, and in its low bits
 *   ABSENT   in the guest's balloon: reads as zeros; memory comes when it is touched
 *   SHARED   the offset is into the pool of merged pages, read-only; else into RAM, where a page's own place is its number's
 *   WATCHED  memsvc wants to merge it: whoever is going to write takes the flag away first
 *   KEPT     with SHARED: its own place has the same bytes still
 *   BUSY     with SHARED: somebody fills or empties its own place; all others wait until the flag is gone
 *
 *   own --memsvc--> own WATCHED --memsvc, after a grace period--> pool SHARED KEPT --memsvc, after another--> pool SHARED
 *    ^-----writer---------'        ^------------writer-----------------'   |   BUSY while memsvc punches its own place  |
 *    '--------------------------------writer, who copies (BUSY)------------------------------------------------------'
 *
 * Each step is one compare-and-exchange, so that writers and memsvc never wait for each other but for BUSY (common/gmem.c,
 * memsvc/merge.c).
 */
#define SHM_P2M_FLAGS   0xfffull
#define SHM_P2M_ABSENT  (1ull << 0)
#define SHM_P2M_SHARED  (1ull << 1)
#define SHM_P2M_WATCHED (1ull << 2)
#define SHM_P2M_KEPT    (1ull << 3)
#define SHM_P2M_BUSY    (1ull << 4)
#define SHM_P2M_ASK     (SHM_P2M_SHARED | SHM_P2M_WATCHED | SHM_P2M_BUSY) /* not to be written just so */

struct shm_header {
	uint64_t magic;
	uint32_t version;
	uint32_t header_size; /* bytes of this structure */
	uint64_t ram_size;    /* bytes */
	uint64_t total_size;  /* of the region */
	uint64_t p2m_offset;  /* for people with a hex dump: readers compute these */
	uint64_t code_offset;
	uint64_t dirty_offset;
	uint64_t epochs_offset;
	uint64_t held_offset;
	uint64_t reserved[7];
};
_Static_assert(sizeof(struct shm_header) == 128, "shared layout");
_Static_assert(offsetof(struct shm_header, ram_size) == 16, "shared layout");
_Static_assert(offsetof(struct shm_header, dirty_offset) == 48, "shared layout");

/*
 * Who holds pointers to guest RAM.  Whoever resolves a page counts itself in its slot under the parity of @now, and out under
 * the same one (gmem_enter(), gmem_leave() in common/gmem.h).  Memsvc withdraws a page in the p2m, waits for the parity before
 * the present one to be empty, moves @now on, and waits for the one before again: then nobody has a pointer from before.
 * All of it is memory that a taken-over process can write: memsvc waits no longer than a bound and keeps its own @now.
 */
#define SHM_SLOT_VCPU   0u  /* and so on: one a vcpu's thread */
#define SHM_SLOT_MAIN   32u /* hvx-vcpu's main thread */
#define SHM_SLOT_DEVICE 33u /* and so on: device processes, as they come */
#define SHM_SLOTS       64u
struct shm_slot {
	_Atomic uint32_t held[2]; /* by the parity of @now */
	_Atomic uint32_t taken;   /* a device has it */
	uint8_t pad[52];
};
struct shm_epochs {
	_Atomic uint32_t now;
	uint8_t pad[60];
	struct shm_slot slot[SHM_SLOTS];
};
_Static_assert(sizeof(struct shm_slot) == 64 && sizeof(struct shm_epochs) == 64 * (SHM_SLOTS + 1), "shared layout");

struct shm_layout {
	uint64_t pages, epochs, p2m, code, dirty, held, total; /* count, then byte offsets */
};

static inline uint64_t shm_round(uint64_t n)
{
	return (n + SHM_PAGE - 1) & ~(uint64_t)(SHM_PAGE - 1);
}

/* Header page, epochs, p2m (u64 a page), bitmaps of code, of dirty pages and of held ones (one bit a page, whole u64s), each
 * page-aligned. */
static inline struct shm_layout shm_layout(uint64_t ram_size)
{
	struct shm_layout l = {.pages = ram_size / SHM_PAGE};
	uint64_t bitmap = shm_round((l.pages + 63) / 64 * 8);

	l.epochs = shm_round(sizeof(struct shm_header));
	l.p2m = l.epochs + shm_round(sizeof(struct shm_epochs));
	l.code = l.p2m + shm_round(l.pages * 8);
	l.dirty = l.code + bitmap;
	l.held = l.dirty + bitmap;
	l.total = l.held + bitmap;
	return l;
}

/*
 * Doorbells of one card, a page shared by the vcpu and the device process.  A side that has work for the
 * other sets the queue's bit, then, after a full fence, writes the eventfd (calls: the pipe) only if the other is not awake
 * (kicks: @device_awake) or no bit was set before (calls).  The device clears @device_awake, full fence, and
 * looks at @kicked once more before it sleeps.  The pipe of a call is that of the CPU that @cpu names, read after the bit was
 * set; the vcpu, when it has changed that, full fence, looks whether the bit is set, and then has the new CPU look.
 */
#define SHM_CALLERS 32u
struct shm_doorbells {
	_Atomic uint32_t kicked;       /* bit a queue: the guest rang; cleared by the device */
	_Atomic uint32_t device_awake; /* 1: the device looks at kicked without being woken */
	uint8_t pad0[56];
	_Atomic uint32_t called; /* bit a queue: interrupt; cleared by the vcpu */
	/* AHCI, where a queue is a command slot: task file (PxTFD) and causes (PxIS) after @called; signalled each time */
	_Atomic uint32_t taskfile, causes;
	_Atomic uint8_t cpu[SHM_CALLERS]; /* by queue: whose thread hears of its calls; AHCI: CPU 0 */
	uint8_t pad1[20];
};
_Static_assert(sizeof(struct shm_doorbells) == 128 && offsetof(struct shm_doorbells, called) == 64, "shared layout");

#endif

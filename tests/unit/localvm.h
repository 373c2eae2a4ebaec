/*
 * A machine for the devices of vcpu/local/: RAM, the platform with its bus, a loop, no engine; and
 * the driver's side of a virtio device.
 */
#ifndef HVX_TEST_LOCALVM_H
#define HVX_TEST_LOCALVM_H

#include <CUnit/CUnit.h>

#include "vcpu/local/local.h"

#define LV_PAGES 1024u
#define LV_SIZE  16u       /* of each queue */
#define LV_BUF   0x100000u /* guest-physical: free for buffers from here */

struct lv_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};
enum { LV_NEXT = 1, LV_WRITE = 2 };

struct localvm {
	struct gmem mem;
	uint64_t p2m[LV_PAGES], code[LV_PAGES / 64], dirty[LV_PAGES / 64];
	struct vm vm;
	struct vcpu *v;
	struct ipc_loop *loop;
	struct ipc_watch *stop;
	struct locals locals;
	unsigned ncode, nwithdrawn; /* calls of code_written(), and the last one's */
	uint64_t code_gpa, code_len;
};
extern struct localvm lv;

void lv_begin(void);
void lv_end(void);
void lv_pump(unsigned ms); /* the main thread's loop, for so long */
void lv_flush(void);       /* what the vcpu's thread does for PEND_FLUSH; it must be set */

/* The driver's side. */
void lv_start(struct local *d, uint64_t features, unsigned queues); /* reset to DRIVER_OK */
uint8_t lv_status(struct local *d);
void lv_set_status(struct local *d, uint8_t status);
void lv_put_desc(unsigned queue, unsigned i, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next);
void lv_offer(struct local *d, unsigned queue, uint16_t head); /* makes it available, rings, pumps */
uint16_t lv_used(unsigned queue);                              /* the used index */
uint32_t lv_used_len(unsigned queue, unsigned i);
uint8_t lv_isr(struct local *d);
uint32_t lv_config(struct local *d, unsigned off, unsigned size);
uint8_t *lv_at(uint64_t gpa);
uint64_t lv_counter(struct local *d, const char *name); /* of stats; UINT64_MAX: there is none */

#endif

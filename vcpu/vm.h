/* The VM that vcpus belong to. */
#ifndef HVX_VM_H
#define HVX_VM_H

#include <stdbool.h>
#include <stdint.h>

struct bt;
struct gmem;
struct locals;
struct platform;
struct vcpu;

struct vm {
	struct gmem *mem;
	struct platform *plat;
	struct bt *bt;
	int ncpus;
	struct vcpu *vcpu[64];
	const char *name;
	uint64_t tsc_hz; /* set before cpu_reset(); 0: guests must calibrate */
	/* PEND_FLUSH: translations of guest memory that others have written go; on the vcpu's thread.  May be NULL. */
	void (*invalidate)(struct vcpu *v, void *ctx);
	bool settle; /* the vcpu's thread waits for devices' resets before it goes on */
	/* PEND_CALL: device processes have called; on the vcpu's thread.  May be NULL. */
	void (*called)(struct vcpu *v, void *ctx);
	void *cards;
	struct locals *locals; /* devices on the main thread (local/local.h); may be NULL */
};

#endif

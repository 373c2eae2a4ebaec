/* The VM that vcpus belong to. */
#ifndef HVX_VM_H
#define HVX_VM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "vcpu/cpu/topology.h"
#include "vcpu/world.h"

struct bt;
struct direct;
struct gmem;
struct locals;
struct memlink;
struct platform;
struct vcpu;
struct window;

struct vm {
	struct gmem *mem;
	struct platform *plat;
	struct bt *bt;
	bool (*direct)(struct vcpu *v); /* direct/direct.h; NULL: ring 3 is always translated */
	struct direct *stubs;
	struct window *window; /* mmu/window.h; NULL: none.  Before bt_create() and vcpu_create() */
	int ncpus;
	struct topology topology; /* ncpus is its product; zeros: one socket of single threads */
	struct vcpu *vcpu[TOPOLOGY_CPUS_MAX];
	struct world world;
	int host_cpus;     /* that this process may use */
	_Atomic int awake; /* CPUs whose thread does not sleep in HLT */
	bool a20;          /* address line 20 is on: what CPUs are told behind PEND_A20 */
	const char *name;
	_Atomic uint64_t pvclock_tsc; /* cpu/pvclock.c: host TSC at which the paravirtual clocks start; 0: not yet */
	uint64_t tsc_hz;              /* set before cpu_reset(); 0: guests must calibrate */
	/* PEND_FLUSH: translations of guest memory that others have written go; on the vcpu's thread.  May be NULL. */
	void (*invalidate)(struct vcpu *v, void *ctx);
	/* PEND_CALL: device processes have called; on the vcpu's thread.  May be NULL. */
	void (*called)(struct vcpu *v, void *ctx);
	void *cards;
	struct locals *locals; /* devices on the main thread (local/local.h); may be NULL */
	struct memlink
		*memlink; /* channel to hvx-memsvc (local/memlink.h); NULL: there is neither balloon nor merging */
};

/* What CPUID, the ACPI tables and APIC ids tell. */
static inline struct topology vm_topology(const struct vm *vm)
{
	return vm->topology.threads ? vm->topology : (struct topology){1, vm->ncpus > 0 ? (uint32_t)vm->ncpus : 1, 1};
}

#endif

/* Runs a batch's cases on the host CPU itself. */
#ifndef HVX_INSN_NATIVE_H
#define HVX_INSN_NATIVE_H

#include <stdbool.h>

#include "state.h"

/* Maps the test's address space in this process and installs the handlers: once, in a child made for it. */
void native_init(void);

/* Runs cases [from, b->ncases), results into @out. */
void native_run(struct batch *b, struct worker_out *out, uint32_t from);

/* Whether the kernel lets programs load fs and gs in 32-bit code. */
int native_has_tls(void);

/* Whether the kernel saves what a program made of its fs and gs bases (FSGSBASE), not what it was last told of them. */
bool native_keeps_bases(void);

/* Whether there is a code segment for 32-bit programs: some paravirtual hosts have none. */
int native_has_32bit(void);

/* Takes out of a case what this host cannot begin with: bases of the upper half where it has no FSGSBASE, and stack pointers that
 * are not canonical where a return to such a one faults itself (paravirtual hosts). */
void native_limit(struct cpu_state *st);

/* Both workers: what a stored state looks like when a component is in its initial configuration. */
void xs_normalise(uint8_t *xs);

#endif

/* AVX2 gathers: see gather.c. */
#ifndef HVX_GATHER_H
#define HVX_GATHER_H

struct insn;
struct vcpu;

/* Runs one gather (VEX.66.0F38 90 to 93): 0 with rip after it, or -1 after raising (elements that came before the
 * fault are in the destination, their mask bits clear: SDM 2C, VPGATHERDD). */
int bt_gather(struct vcpu *v, const struct insn *in);

#endif

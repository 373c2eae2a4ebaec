#ifndef HVX_MASKED_H
#define HVX_MASKED_H

struct vcpu;
struct insn;

/*
 * vmaskmovps, vmaskmovpd, vpmaskmovd, vpmaskmovq at v->rip, element by element: what the mask leaves out is not
 * touched (SDM 2C, VMASKMOV).  0 with v->rip behind it, or -1 after raising what the lowest bad element raises.
 */
int bt_masked(struct vcpu *v, const struct insn *in);

#endif

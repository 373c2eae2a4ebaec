/* Human-readable account of a case. */
#ifndef HVX_INSN_REPORT_H
#define HVX_INSN_REPORT_H

#include "state.h"

/* Disassembly of the test, the starting state where it matters, and both outcomes side by side. */
void report_case(const struct batch *b, uint32_t k, uint32_t diff);

/* The instruction at @addr, or the test's first one when that is no address of code. */
void report_insn(const struct batch *b, const struct test *t, uint64_t addr, char *buf, unsigned size);

#endif

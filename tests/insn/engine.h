/* Runs a batch's cases in the engine, in this process. */
#ifndef HVX_INSN_ENGINE_H
#define HVX_INSN_ENGINE_H

#include "state.h"

/* Creates the machine: once, in the worker made for it. */
void engine_init(void);
/* Before engine_init(): flags exact at every fault (hvx-monitor --exact-flags), or as guests have them by default. */
void engine_exact_flags(int on);

/* Likewise: 64-bit code reaches memory through a window, as guests' kernels do (vcpu/mmu/window.h). */
void engine_window(int on);

/* Runs cases [from, b->ncases), results into @out. */
void engine_run(struct batch *b, struct worker_out *out, uint32_t from);

#endif

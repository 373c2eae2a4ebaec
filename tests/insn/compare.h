/* Compares what the host CPU and the engine made of a case. */
#ifndef HVX_INSN_COMPARE_H
#define HVX_INSN_COMPARE_H

#include "state.h"

enum diff {
	DIFF_OUTCOME = 1,
	DIFF_FAULT = 2, /* vector, error code or address */
	DIFF_RIP = 4,
	DIFF_GPR = 8,
	DIFF_FLAGS = 16,
	DIFF_X87 = 32,
	DIFF_VEC = 64,
	DIFF_MXCSR = 128,
	DIFF_MEM = 256,
	DIFF_BASE = 512,     /* fs or gs base */
	DIFF_SKIP = 1 << 16, /* cannot be judged: the native run was stopped */
};

/* Flags that can be compared at all: not IF, IOPL, RF. */
#define FLAGS_SEEN 0x244dd5u

/* With @lax, the flags of a sequence that ended in a fault are not compared: the translator does not keep flags that
 * the same block overwrites before anything reads them. */
uint32_t compare_case(const struct batch *b, uint32_t k, int lax);

/* The names of the set bits. */
void compare_names(uint32_t diff, char *buf, unsigned size);

/* Memory after the case as a whole image (IMG_SIZE + CODE_SIZE bytes), masked bytes zeroed. */
void compare_image(const struct batch *b, const struct worker_out *w, uint32_t k, uint8_t *image);

#endif

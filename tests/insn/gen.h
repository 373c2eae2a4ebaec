/* Fills batches with tests of single instructions. */
#ifndef HVX_INSN_GEN_H
#define HVX_INSN_GEN_H

#include "encode.h"
#include "forms.h"
#include "state.h"

#define SLOT_SIZE 128 /* code bytes of a single-instruction test */

struct gen {
	struct rng r;
	struct forms *t;
	struct batch *b;
	int wild;        /* percent of memory operands at odd places */
	int tests;       /* to put into the batch */
	int tls;         /* 32-bit code may use fs and gs */
	int states;      /* per test */
	uint32_t cursor; /* next form */
};

/* Empties the batch and makes its memory image. */
void gen_reset(struct gen *g);

/* Adds one test of form @f with g->states cases in slot @n; 0, or -1 when no encoding was found. */
int gen_single(struct gen *g, uint32_t form, unsigned n);

/* Adds a test of the given bytes. */
int gen_bytes(struct gen *g, const uint8_t *bytes, unsigned n);

/* Fills the batch: g->tests forms from the cursor on. */
void gen_singles(struct gen *g);

#endif

/* Fills batches with tests of instruction sequences. */
#ifndef HVX_INSN_SEQ_H
#define HVX_INSN_SEQ_H

#include "gen.h"

#define SEQ_SLOT 512 /* code bytes of a sequence */

void seq_batch(struct gen *g);

#endif

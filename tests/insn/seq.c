#include "seq.h"
void seq_batch(struct gen *g)
{
	gen_singles(g);
}

/* Counts of a run, and its mismatches grouped by form. */
#ifndef HVX_INSN_TALLY_H
#define HVX_INSN_TALLY_H

#include "forms.h"
#include "state.h"

struct tally_form { /* per form */
	uint32_t cases, bad, stop;
	uint32_t diff;  /* union of the differences */
	uint64_t first; /* case of the first mismatch */
	char text[192];
};

struct tally {
	uint64_t cases, skipped, bad, faults, seq_cases, seq_bad;
	uint64_t by_vector[32];
	const struct forms *forms;
	struct tally_form *f[2], *seq;
	uint32_t nseq;
};

int tally_init(struct tally *t, const struct forms *forms);
void tally_case(struct tally *t, const struct batch *b, const struct forms *fs, uint32_t k, uint64_t id, uint32_t diff);
/* One line per form with mismatches, most first. */
void tally_write(const struct tally *t, const char *path, uint64_t seed, int kinds);
/* Prints the closing line; the program's exit status. */
int tally_close(const struct tally *t, uint32_t native_deaths, uint32_t engine_deaths);

#endif

/* Golden text of translations: see golden.c. */
#ifndef HVX_TESTS_GOLDEN_H
#define HVX_TESTS_GOLDEN_H

#include <stdbool.h>
#include <stdint.h>

struct golden_case {
	const char *name;
	const char *hex;
	uint16_t off; /* in its page; 0: 0x100 */
	bool taken;   /* the flags are read by what follows */
};

struct golden_group {
	const char *name; /* tests/unit/golden/NAME.txt */
	uint32_t mode;
	uint64_t gva;         /* of the page */
	bool no_bmi2, avx512; /* the host's CPU lacks the one, has the other */
	const struct golden_case *cases;
	unsigned n;
};

/* Translates every case; false when the text differs from the stored one (a diff is printed).  With HVX_GOLDEN_UPDATE in the
 * environment the stored text is rewritten instead.  @classes gets a bit per enum insn_class met. */
bool golden_check(const struct golden_group *g, uint32_t *classes);

#endif

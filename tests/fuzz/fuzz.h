/*
 * What a fuzz target gives: the entry point of libFuzzer's interface, and inputs to start from.
 * Linked with driver.c (any compiler) or with libFuzzer (clang, --enable-sanitizers) and seeds.c.
 */
#ifndef HVX_FUZZ_H
#define HVX_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define FUZZ_MAX_LEN 65536u /* a frame's most (common/ipc.h) */

/* Runs one input; returns 0.  Ends the process when a property does not hold. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* Puts the valid input number @i in @buf (FUZZ_MAX_LEN bytes, zeroed); its length, 0 when there are no more. */
size_t fuzz_seed(unsigned i, uint8_t *buf);

/* A property of the code under test. */
#define FUZZ_CHECK(cond)                                                                   \
	do {                                                                               \
		if (!(cond)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                           \
		}                                                                          \
	} while (0)

#endif

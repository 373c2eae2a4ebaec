/*
 * Under libFuzzer the inputs to start from come in as a mutation: now and then a seed takes the place of what was there.
 * Invariant: what is returned is never longer than max_len.
 */
#include <string.h>

#include "tests/fuzz/fuzz.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t len, size_t max_len);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max_len, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t len, size_t max_len, unsigned seed)
{
	static uint8_t buf[FUZZ_MAX_LEN];
	unsigned n = 0;

	if (seed % 128)
		return LLVMFuzzerMutate(data, len, max_len);
	while (memset(buf, 0, sizeof buf), fuzz_seed(n, buf))
		n++;
	memset(buf, 0, sizeof buf);
	len = fuzz_seed(seed / 128 % (n ? n : 1), buf);
	if (len > max_len)
		len = max_len;
	memcpy(data, buf, len);
	return len;
}

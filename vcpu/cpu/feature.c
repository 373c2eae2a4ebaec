/*
 * The guest's CPUID as a word of features.  Invariant: a feature whose leaf is missing is not offered.
 */
#include "vcpu/cpu/feature.h"

static const struct cpuid_entry *find(const struct cpuid_entry *entries, unsigned n, uint32_t leaf, uint32_t sub)
{
	for (unsigned i = 0; i < n; i++)
		if (entries[i].leaf == leaf && entries[i].subleaf == sub)
			return &entries[i];
	return NULL;
}

uint64_t feature_offered(const struct cpuid_entry *entries, unsigned n)
{
	const struct cpuid_entry *e;
	uint64_t has = FEAT(BASE);

#define X(name, leaf, sub, reg, bit)          \
	e = find(entries, n, leaf, sub);      \
	if (e != NULL && (e->reg >> (bit)&1)) \
		has |= FEAT(name);
	CPU_FEATURES(X)
#undef X
	return has;
}

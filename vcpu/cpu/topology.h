/*
 * How the machine's CPUs are arranged, and the APIC ids that follow from it (SDM 3A 8.9.1): thread, core and socket
 * each in a field that holds its count, so ids have gaps where a count is no power of two.
 */
#ifndef HVX_TOPOLOGY_H
#define HVX_TOPOLOGY_H

#include <stdint.h>

#define TOPOLOGY_CPUS_MAX 32

struct topology {
	uint32_t sockets, cores, threads; /* cores a socket, threads a core; their product is the number of CPUs */
};

/* Bits that tell @n things apart. */
static inline unsigned topology_bits(uint32_t n)
{
	return n <= 1 ? 0 : 32 - (unsigned)__builtin_clz(n - 1);
}

static inline uint32_t topology_cpus(const struct topology *t)
{
	return t->sockets * t->cores * t->threads;
}

static inline unsigned topology_thread_bits(const struct topology *t) /* of an APIC id */
{
	return topology_bits(t->threads);
}

static inline unsigned topology_socket_shift(const struct topology *t) /* of an APIC id: what is above is the socket */
{
	return topology_bits(t->threads) + topology_bits(t->cores);
}

/* CPUs are counted thread by thread, then core by core. */
static inline uint32_t topology_apic_id(const struct topology *t, uint32_t cpu)
{
	uint32_t core = cpu / t->threads;

	return core / t->cores << topology_socket_shift(t) | core % t->cores << topology_thread_bits(t) |
	       cpu % t->threads;
}

#endif

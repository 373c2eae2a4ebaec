/*
 * Frequency of the host's time stamp counter.  See tsc.c.
 */
#ifndef HVX_VCPU_TSC_H
#define HVX_VCPU_TSC_H

#include <stdint.h>

/* Hertz, measured against CLOCK_MONOTONIC for @ms milliseconds; to about 1 ppm in 50 ms. */
uint64_t tsc_measure(unsigned ms);

#endif

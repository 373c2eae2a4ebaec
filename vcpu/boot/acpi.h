/*
 * ACPI tables of the machine (ACPI 6.4 chapter 5).
 */
#ifndef HVX_BOOT_ACPI_H
#define HVX_BOOT_ACPI_H

#include <stdint.h>

#include "vcpu/cpu/topology.h"

struct gmem;

/* Writes RSDP, XSDT, FADT, FACS, MADT, MCFG and DSDT into 0xe0000-0xfffff and tells where the RSDP is.
 * 0, or -ENOSPC, -EFAULT. */
int acpi_build(const struct gmem *mem, const struct topology *by, uint64_t *rsdp);

#endif

/*
 * ACPI tables of the machine (ACPI 6.4 chapter 5).
 */
#ifndef HVX_BOOT_ACPI_H
#define HVX_BOOT_ACPI_H

#include <stddef.h>
#include <stdint.h>

#include "vcpu/cpu/topology.h"

struct gmem;

/* Tables in a form that firmware puts where it likes: files of fw_cfg, and what it has to do with them. */
#define ACPI_TABLES_MAX (16u << 10)
#define ACPI_LOADER_MAX (32u * 128)
#define ACPI_RSDP_LEN   36u
struct acpi_files {
	uint8_t tables[ACPI_TABLES_MAX], rsdp[ACPI_RSDP_LEN], loader[ACPI_LOADER_MAX];
	uint32_t loader_len;
};
#define ACPI_FILE_TABLES "etc/acpi/tables"
#define ACPI_FILE_RSDP   "etc/acpi/rsdp"
#define ACPI_FILE_LOADER "etc/table-loader"

/* The same tables for a machine that firmware has set up, with configuration space at @ecam (0: nowhere).  0 or -ENOSPC. */
int acpi_files_build(struct acpi_files *f, const struct topology *by, uint64_t ecam);

/* Writes RSDP, XSDT, FADT, FACS, MADT, MCFG and DSDT into 0xe0000-0xfffff and tells where the RSDP is.
 * 0, or -ENOSPC, -EFAULT. */
int acpi_build(const struct gmem *mem, const struct topology *by, uint64_t *rsdp);

#endif

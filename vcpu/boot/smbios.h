/*
 * SMBIOS tables (DMTF DSP0134, 2.8), which firmware puts into place.
 */
#ifndef HVX_BOOT_SMBIOS_H
#define HVX_BOOT_SMBIOS_H

#include <stdint.h>

#define SMBIOS_TABLES_MAX 2048u
#define SMBIOS_ANCHOR_LEN 31u

struct smbios {
	uint8_t tables[SMBIOS_TABLES_MAX], anchor[SMBIOS_ANCHOR_LEN];
	uint32_t len;
};

/* A system of @ncpus processors and @ram bytes that is called @name. */
void smbios_build(struct smbios *s, const char *name, int ncpus, uint64_t ram);

#endif

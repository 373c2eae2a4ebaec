/*
 * The files that a VM starts from when it has no kernel of its own: firmware, what UEFI keeps, the display's BIOS.
 */
#ifndef HVX_MONITOR_FIRMWARE_H
#define HVX_MONITOR_FIRMWARE_H

#include <stddef.h>
#include <stdint.h>

#include "monitor/config.h"

struct firmware_files {
	int code, nvram, vgarom, netrom; /* -1: none */
	uint64_t rom_size;               /* bytes of code and nvram */
	bool keep;                       /* nvram is the user's file, not its template */
};

/* Opens what @c asks for; 0 or enum hvx_exit with a line in @err.  firmware_close() in either case. */
int firmware_open(struct firmware_files *f, const struct config *c, char *err, size_t len);
void firmware_close(struct firmware_files *f);

/*
 * What to start from, best first, as firmware names devices: a path for each disk and network card, whose PCI device numbers
 * are @first and so on, cards before disks.
 */
void firmware_order(const struct config *c, unsigned first, char *out, size_t len);

#endif

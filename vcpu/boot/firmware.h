/*
 * Starting a guest by firmware: where its ROM lies, what of guest-physical space it hides, and what fw_cfg tells it.
 */
#ifndef HVX_BOOT_FIRMWARE_H
#define HVX_BOOT_FIRMWARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/gmem.h"
#include "vcpu/boot/acpi.h"
#include "vcpu/boot/smbios.h"
#include "vcpu/chipset/platform.h"

struct vm;
struct boot_config;

struct firmware {
	/* set by the caller */
	struct vm *vm;
	int code_fd, nvram_fd, vgarom_fd, netrom_fd; /* -1: none; a VM without code has no firmware */
	bool keep;                                   /* what is written to the flash goes to nvram_fd */
	const char *order;                           /* paths of devices to start from, a line each */
	bool menu;
	const struct boot_config *boot; /* a kernel that firmware is to start, if it has one */
	/* firmware.c's own */
	struct gmem_rom rom;
	struct platform_firmware hooks;
	bool loaded;
	struct acpi_files acpi;
	struct smbios smbios;
	uint8_t *vgarom, *netrom;
	uint8_t e820[3 * 20], cpus[2], menu_item[2], wait[2], sercon[2], sizes[3][4];
	uint16_t acpi_key[3];
};

/*
 * With a vm whose memory is mapped and has room for the ROM, before its platform is made: f->hooks are what that is to have.
 * 0, or a negative error: -EINVAL when the files do not fill the ROM.
 */
int firmware_init(struct firmware *f);
/* With the platform: fills in fw_cfg.  0 or a negative error. */
int firmware_tell(struct firmware *f);
/* Reads the ROM's contents, once.  0, or -1 with a line in @err. */
int firmware_load(struct firmware *f, char *err, size_t len);

#endif

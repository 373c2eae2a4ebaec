/*
 * Firmware.  The ROM is the memory behind RAM: first the flash of --nvram, if there is one, then the code, up to 4 GiB.
 *
 * Invariant: before a page changes what it is, all that was made of it is gone: translations of its code, soft TLB entries.
 */
#include "vcpu/boot/firmware.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "vcpu/boot/load.h"
#include "vcpu/chipset/fwcfg.h"
#include "vcpu/mmu/mmu.h"

#define EXPANSION_MAX (512u << 10)
#define TOP           (1ull << 32)

/* ---- what the platform asks for, with its lock held, on a vcpu's thread ---- */

/* The CPU on whose thread this is; at a reset the first one's runs alone. */
static struct vcpu *cpu(const struct firmware *f)
{
	struct vcpu *v = platform_cpu(f->vm->plat);

	return v ? v : f->vm->vcpu[0];
}

/*
 * What others have kept of these pages is theirs until they flush or are reset: they may write shadow RAM that has become
 * read-only, or read the array of a flash while this CPU talks to the chip.  Firmware runs these pieces on one CPU.
 */
static void forget_mappings(struct firmware *f)
{
	tlb_flush_all(cpu(f));
}

static void on_shadow(void *ctx, const uint8_t *shadow)
{
	struct firmware *f = ctx;

	for (unsigned i = 0; i < GMEM_SHADOW_PAGES; i++) {
		if (f->rom.shadow[i] == shadow[i])
			continue;
		code_written(cpu(f), GMEM_SHADOW_BASE + i * GMEM_PAGE_SIZE, GMEM_PAGE_SIZE);
		f->rom.shadow[i] = shadow[i];
	}
	forget_mappings(f);
}

static void on_flash_chip(void *ctx, bool chip)
{
	struct firmware *f = ctx;

	code_written(cpu(f), f->rom.base, f->hooks.bank);
	f->rom.chip = chip ? f->hooks.bank : 0;
	forget_mappings(f);
}

static uint8_t *rom_page(const struct firmware *f, uint64_t off)
{
	return gmem_frame_ptr(f->vm->mem, (f->vm->mem->size + off) >> GMEM_PAGE_SHIFT,
			      GMEM_READ | GMEM_WRITE | GMEM_PROGRAM);
}

/* Of one page. */
static void on_flash_changed(void *ctx, uint64_t off, uint64_t len)
{
	struct firmware *f = ctx;
	const uint8_t *p = rom_page(f, off);

	if (!f->keep || !p)
		return;
	while (pwrite(f->nvram_fd, p + off % GMEM_PAGE_SIZE, len, (off_t)off) != (ssize_t)len)
		if (errno != EINTR) {
			log_guest(LOG_LVL_WARN, "nvram: what firmware keeps was not written: %s", strerror(errno));
			return;
		}
}

static bool on_copy(void *ctx, uint64_t gpa, void *buf, size_t len, bool write)
{
	struct firmware *f = ctx;
	const struct gmem *g = f->vm->mem;

	if (!write)
		return !gmem_read(g, gpa, buf, len);
	if (gmem_write(g, gpa, buf, len))
		return false;
	code_written(cpu(f), gpa, len);
	return true;
}

/* The tables tell where configuration space is, which firmware decides before it asks for them. */
static void on_selected(void *ctx, uint16_t key)
{
	struct firmware *f = ctx;

	for (unsigned i = 0; i < 3; i++)
		if (key == f->acpi_key[i]) {
			struct topology by = vm_topology(f->vm);

			acpi_files_build(&f->acpi, &by, platform_ecam(f->vm->plat));
			return;
		}
}

/* ---- set-up ---- */

static uint64_t file_size(int fd)
{
	off_t n = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);

	return n < 0 ? 0 : (uint64_t)n;
}

int firmware_init(struct firmware *f)
{
	uint64_t code = file_size(f->code_fd), bank = file_size(f->nvram_fd);

	if (!code || code > SHM_MAX_ROM || bank > SHM_MAX_ROM || bank % GMEM_PAGE_SIZE ||
	    code + bank != f->vm->mem->rom_size)
		return -EINVAL;
	f->rom = (struct gmem_rom){.base = TOP - f->vm->mem->rom_size};
	f->vm->mem->rom = &f->rom;
	f->hooks = (struct platform_firmware){
		.rom_size = f->vm->mem->rom_size,
		.bank = bank,
		.shadow = on_shadow,
		.flash_chip = on_flash_chip,
		.flash_changed = on_flash_changed,
		.copy = on_copy,
		.selected = on_selected,
		.ctx = f,
	};
	return 0;
}

static uint8_t *e820_entry(uint8_t *p, uint64_t base, uint64_t len, uint32_t type)
{
	put64(p, base);
	put64(p + 8, len);
	put32(p + 16, type);
	return p + 20;
}

/* RAM as it is wired; what firmware makes of it, it tells itself. */
static int tell_memory(struct firmware *f, struct fwcfg *c)
{
	const struct gmem *g = f->vm->mem;
	uint8_t *p = e820_entry(f->e820, 0, g->low, MEMMAP_RAM);

	if (g->size > g->low)
		p = e820_entry(p, GMEM_HIGH_BASE, g->size - g->low, MEMMAP_RAM);
	return fwcfg_add_file(c, "etc/e820", f->e820, (uint32_t)(p - f->e820));
}

/* Every table's file keeps its size, whatever on_selected() puts in. */
static int tell_acpi(struct firmware *f, struct fwcfg *c)
{
	const struct {
		const char *name;
		const uint8_t *data;
		uint32_t len;
	} files[3] = {{ACPI_FILE_TABLES, f->acpi.tables, sizeof f->acpi.tables},
		      {ACPI_FILE_RSDP, f->acpi.rsdp, sizeof f->acpi.rsdp},
		      {ACPI_FILE_LOADER, f->acpi.loader, sizeof f->acpi.loader}};

	struct topology by = vm_topology(f->vm);
	int rc = acpi_files_build(&f->acpi, &by, 0);
	for (unsigned i = 0; i < 3 && !rc; i++) {
		int key = fwcfg_add_file(c, files[i].name, files[i].data, files[i].len);

		f->acpi_key[i] = (uint16_t)key;
		rc = key < 0 ? key : 0;
	}
	return rc;
}

static int tell_smbios(struct firmware *f, struct fwcfg *c)
{
	smbios_build(&f->smbios, f->vm->name, f->vm->ncpus, f->vm->mem->size);
	int rc = fwcfg_add_file(c, "etc/smbios/smbios-tables", f->smbios.tables, f->smbios.len);
	return rc < 0 ? rc : fwcfg_add_file(c, "etc/smbios/smbios-anchor", f->smbios.anchor, SMBIOS_ANCHOR_LEN);
}

static int tell_start(struct firmware *f, struct fwcfg *c)
{
	put16(f->menu_item, f->menu);
	put16(f->wait, f->menu ? 5000 : 0); /* ms */
	int rc = fwcfg_add(c, FWCFG_BOOT_MENU, f->menu_item, 2);
	if (rc >= 0 && f->menu)
		rc = fwcfg_add_file(c, "etc/boot-menu-wait", f->wait, 2);
	if (rc >= 0 && f->order[0])
		rc = fwcfg_add_file(c, "bootorder", f->order, (uint32_t)strlen(f->order) + 1);
	return rc;
}

/* The kernel's file as a whole: what takes it apart is its own EFI stub. */
static int tell_kernel(struct firmware *f, struct fwcfg *c)
{
	uint64_t kernel = file_size(f->boot->kernel_fd), initrd = 0, line = strlen(f->boot->cmdline) + 1;

	if (!kernel)
		return 0;
	if (f->boot->modules)
		initrd = file_size(f->boot->module[0].fd);
	if (kernel >> 32 || initrd >> 32)
		return -EFBIG;
	put32(f->sizes[0], (uint32_t)kernel);
	put32(f->sizes[1], (uint32_t)initrd);
	put32(f->sizes[2], (uint32_t)line);
	return fwcfg_add(c, FWCFG_KERNEL_SIZE, f->sizes[0], 4) |
	       fwcfg_add_part(c, FWCFG_KERNEL, f->boot->kernel_fd, 0, (uint32_t)kernel) |
	       fwcfg_add(c, FWCFG_INITRD_SIZE, f->sizes[1], 4) |
	       (initrd ? fwcfg_add_part(c, FWCFG_INITRD, f->boot->module[0].fd, 0, (uint32_t)initrd) : 0) |
	       fwcfg_add(c, FWCFG_CMDLINE_SIZE, f->sizes[2], 4) |
	       fwcfg_add(c, FWCFG_CMDLINE, f->boot->cmdline, (uint32_t)line);
}

/* An expansion ROM as a file; its bytes come with the ROM's. */
static int tell_rom(struct fwcfg *c, const char *name, int fd, uint8_t **rom)
{
	uint64_t n = file_size(fd);

	if (!n)
		return 0;
	*rom = n > EXPANSION_MAX ? NULL : malloc(n);
	if (!*rom)
		return n > EXPANSION_MAX ? -EFBIG : -ENOMEM;
	return fwcfg_add_file(c, name, *rom, (uint32_t)n);
}

static int tell_roms(struct firmware *f, struct fwcfg *c)
{
	int rc = tell_rom(c, "vgaroms/vga.bin", f->vgarom_fd, &f->vgarom);

	return rc < 0 ? rc : tell_rom(c, "genroms/net.rom", f->netrom_fd, &f->netrom);
}

/* The BIOS' screen is the display and the first serial port; UEFI has its own idea of consoles. */
static int tell_consoles(struct firmware *f, struct fwcfg *c)
{
	put16(f->sercon, 0x3f8);
	return fwcfg_add_file(c, "etc/sercon-port", f->sercon, 2);
}

int firmware_tell(struct firmware *f)
{
	static int (*const what[])(struct firmware *, struct fwcfg *) = {
		tell_memory, tell_acpi, tell_smbios, tell_start, tell_kernel, tell_consoles, tell_roms};
	struct fwcfg *c = platform_fwcfg(f->vm->plat);
	int rc;

	put16(f->cpus, (uint16_t)f->vm->ncpus);
	rc = fwcfg_add(c, FWCFG_CPUS, f->cpus, 2) | fwcfg_add(c, FWCFG_MAX_CPUS, f->cpus, 2);
	for (unsigned i = 0; i < sizeof what / sizeof what[0] && rc >= 0; i++)
		rc = what[i](f, c);
	return rc < 0 ? rc : 0;
}

/* ---- contents ---- */

static int read_all(int fd, uint64_t off, uint8_t *buf, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = pread(fd, buf + done, len - done, (off_t)(off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENODATA;
		done += (size_t)n;
	}
	return 0;
}

/* @len bytes of a file to @at of the ROM, page by page; the last one may be a part. */
static int load_part(struct firmware *f, int fd, uint64_t at, uint64_t len)
{
	for (uint64_t off = 0; off < len; off += GMEM_PAGE_SIZE) {
		uint8_t *p = rom_page(f, at + off);
		uint64_t n = len - off < GMEM_PAGE_SIZE ? len - off : GMEM_PAGE_SIZE;
		int rc = p ? read_all(fd, off, p, n) : -EFAULT;

		if (rc)
			return rc;
	}
	return 0;
}

int firmware_load(struct firmware *f, char *err, size_t len)
{
	uint64_t bank = f->hooks.bank;
	int rc = 0;

	if (f->loaded)
		return 0;
	if (bank)
		rc = load_part(f, f->nvram_fd, 0, bank);
	if (!rc)
		rc = load_part(f, f->code_fd, bank, f->hooks.rom_size - bank);
	if (!rc && f->vgarom)
		rc = read_all(f->vgarom_fd, 0, f->vgarom, file_size(f->vgarom_fd));
	if (!rc && f->netrom)
		rc = read_all(f->netrom_fd, 0, f->netrom, file_size(f->netrom_fd));
	if (rc) {
		snprintf(err, len, "firmware: cannot be read: %s", strerror(-rc));
		return -1;
	}
	f->loaded = true;
	return 0;
}

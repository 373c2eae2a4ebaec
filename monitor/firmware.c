/*
 * Firmware's files.  Invariant: the file of --nvram has its lock before anything of it is read, and is whole: it is the
 * template's copy under another name until it is.
 */
#include "monitor/firmware.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/err.h"
#include "monitor/imagelock.h"
#include "proto/shm.h"

/* Where packages put them: what configure was told or found, then Debian's and others' places. */
static const char *const bios[] = {HVX_SEABIOS, "/usr/share/seabios/bios-256k.bin", "/usr/share/qemu/bios-256k.bin",
				   NULL};
static const char *const vgabios[] = {HVX_VGABIOS, "/usr/share/seabios/vgabios-isavga.bin",
				      "/usr/share/qemu/vgabios.bin", NULL};
/* iPXE for virtio cards; UEFI has drivers of its own. */
static const char *const netrom[] = {HVX_IPXE, "/usr/lib/ipxe/qemu/pxe-virtio.rom", "/usr/share/qemu/pxe-virtio.rom",
				     NULL};
static const char *const uefi[] = {HVX_OVMF_CODE, "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd",
				   "/usr/share/edk2/ovmf/OVMF_CODE.fd", NULL};
static const char *const uefi_vars[] = {HVX_OVMF_VARS, "/usr/share/OVMF/OVMF_VARS_4M.fd",
					"/usr/share/OVMF/OVMF_VARS.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd", NULL};

/* The first that is there, and which it was; -1: none. */
static int open_first(const char *const *path, unsigned *which)
{
	for (unsigned i = 0; path[i]; i++) {
		int fd = path[i][0] ? open(path[i], O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) : -1;

		if (fd >= 0) {
			*which = i;
			return fd;
		}
	}
	return -1;
}

static int size_of(int fd, const char *what, const char *path, uint64_t *size, char *err, size_t len)
{
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		snprintf(err, len, "%s %s: not a regular file", what, path);
	else if (st.st_size < 65536 || st.st_size % SHM_PAGE)
		snprintf(err, len, "%s %s: %lld bytes; firmware has at least 64 KiB and whole pages of 4 KiB", what,
			 path, (long long)st.st_size);
	else {
		*size = (uint64_t)st.st_size;
		return 0;
	}
	return HVX_EXIT_CONFIG;
}

/* ---- what UEFI keeps ---- */

static int copy_all(int from, int to)
{
	char buf[65536];
	ssize_t n;

	for (off_t at = 0; (n = pread(from, buf, sizeof buf, at)) > 0; at += n)
		if (pwrite(to, buf, (size_t)n, at) != n)
			return errno ? -errno : -ENOSPC;
	return n < 0 || fsync(to) < 0 ? -errno : 0;
}

/* The file appears under its name when it is whole. */
static int make_nvram(const char *path, int template)
{
	char temp[CONFIG_PATH_MAX + 16];

	snprintf(temp, sizeof temp, "%s.new.%d", path, (int)getpid());
	int fd = open(temp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0600);
	int rc = fd < 0 ? -errno : copy_all(template, fd);

	if (!rc && link(temp, path) < 0 && errno != EEXIST)
		rc = -errno;
	if (fd >= 0) {
		close(fd);
		unlink(temp);
	}
	return rc;
}

static int open_nvram(struct firmware_files *f, const char *path, int template, char *err, size_t len)
{
	char who[160];
	int rc = 0;

	f->nvram = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (f->nvram < 0 && errno == ENOENT && template >= 0) {
		rc = make_nvram(path, template);
		f->nvram = rc ? -1 : open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	}
	if (f->nvram < 0) {
		snprintf(err, len, "nvram %s: %s", path, strerror(rc ? -rc : errno));
		return HVX_EXIT_CONFIG;
	}
	rc = image_lock(f->nvram, true);
	if (rc) {
		image_lock_holder(f->nvram, who, sizeof who);
		snprintf(err, len, "nvram %s: %s%s", path,
			 rc == -EBUSY ? "in use by " : "lock: ", rc == -EBUSY ? who : strerror(-rc));
		return HVX_EXIT_CONFIG;
	}
	f->keep = true;
	return 0;
}

/* Of the firmware's own size: other variables are not in the place where it looks for them. */
static int settle_nvram(struct firmware_files *f, const struct config *c, int template, char *err, size_t len)
{
	uint64_t size = 0, want = 0;
	int rc = c->nvram[0] ? open_nvram(f, c->nvram, template, err, len) : 0;

	if (rc)
		return rc;
	if (!c->nvram[0] && template >= 0)
		f->nvram = fcntl(template, F_DUPFD_CLOEXEC, 3);
	if (f->nvram < 0)
		return 0;
	rc = size_of(f->nvram, "nvram", c->nvram[0] ? c->nvram : "template", &size, err, len);
	if (!rc && template >= 0)
		rc = size_of(template, "nvram", "template", &want, err, len);
	if (!rc && want && size != want) {
		snprintf(err, len, "nvram %s: %llu bytes, where this firmware keeps %llu: it belongs to another one",
			 c->nvram, (unsigned long long)size, (unsigned long long)want);
		rc = HVX_EXIT_CONFIG;
	}
	f->rom_size += size;
	return rc;
}

/* ---- all of it ---- */

static int missing(const char *what, const char *package, char *err, size_t len)
{
	snprintf(err, len, "firmware: no %s on this host: apt-get install %s, or name a file with --firmware", what,
		 package);
	return HVX_EXIT_HOST;
}

/* Is the network what is tried first?  Only then a BIOS has iPXE, which takes seconds of each start. */
static bool net_first(const struct config *c)
{
	for (unsigned i = 0; i < c->nnets; i++)
		if (!strcmp(c->boot, "net") || !strcmp(c->boot, c->net[i].id) || !c->ndisks)
			return true;
	return false;
}

static int open_bios(struct firmware_files *f, const char **path, char *err, size_t len)
{
	unsigned which;

	f->code = open_first(bios, &which);
	if (f->code < 0)
		return missing("SeaBIOS", "seabios", err, len);
	*path = bios[which];
	return 0;
}

static int open_uefi(struct firmware_files *f, const char **path, int *template, char *err, size_t len)
{
	unsigned which;

	f->code = open_first(uefi, &which);
	*template = f->code < 0 ? -1 : open_first((const char *const[]){uefi_vars[which], NULL}, &(unsigned){0});
	if (*template <0)
		return missing("OVMF", "ovmf", err, len);
	*path = uefi[which];
	return 0;
}

static int open_file(struct firmware_files *f, const char *path, char *err, size_t len)
{
	f->code = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (f->code >= 0)
		return 0;
	snprintf(err, len, "firmware %s: %s", path, strerror(errno));
	return HVX_EXIT_CONFIG;
}

int firmware_open(struct firmware_files *f, const struct config *c, char *err, size_t len)
{
	int template = -1, rc = 0;
	const char *path = c->firmware_path;
	unsigned which;

	*f = (struct firmware_files){.code = -1, .nvram = -1, .vgarom = -1, .netrom = -1};
	switch (c->firmware) {
	case FIRMWARE_NONE: return 0;
	case FIRMWARE_BIOS: rc = open_bios(f, &path, err, len); break;
	case FIRMWARE_UEFI: rc = open_uefi(f, &path, &template, err, len); break;
	case FIRMWARE_FILE: rc = open_file(f, path, err, len); break;
	}
	if (!rc)
		rc = size_of(f->code, "firmware", path, &f->rom_size, err, len);
	if (!rc)
		rc = settle_nvram(f, c, template, err, len);
	if (!rc && f->rom_size > SHM_MAX_ROM) {
		snprintf(err, len, "firmware %s: more than %llu MiB", path, SHM_MAX_ROM >> 20);
		rc = HVX_EXIT_CONFIG;
	}
	if (!rc && c->firmware != FIRMWARE_UEFI)
		f->vgarom = open_first(vgabios, &which); /* without one the screen is the serial port alone */
	if (!rc && c->firmware == FIRMWARE_BIOS && net_first(c)) {
		f->netrom = open_first(netrom, &which);
		rc = f->netrom < 0 ? missing("iPXE for the BIOS to start from the network", "ipxe-qemu", err, len) : 0;
	}
	if (template >= 0)
		close(template);
	return rc;
}

void firmware_close(struct firmware_files *f)
{
	int *const fd[] = {&f->code, &f->nvram, &f->vgarom, &f->netrom};

	for (size_t i = 0; i < sizeof fd / sizeof fd[0]; i++) {
		if (*fd[i] > 2)
			close(*fd[i]);
		*fd[i] = -1;
	}
}

/* ---- what to start from ---- */

static void add_path(char *out, size_t len, const char *kind, unsigned slot, const char *unit)
{
	size_t n = strlen(out);

	if (n < len)
		snprintf(out + n, len - n, "/pci@i0cf8/%s@%x/%s\n", kind, slot, unit);
}

static void add_disk(const struct config *c, unsigned first, unsigned i, char *out, size_t len)
{
	add_path(out, len, "scsi", first + c->nnets + i, "disk@0,0");
}

static void add_net(const struct config *c, unsigned first, unsigned i, char *out, size_t len)
{
	(void)c;
	add_path(out, len, "ethernet", first + i, "ethernet-phy@0");
}

void firmware_order(const struct config *c, unsigned first, char *out, size_t len)
{
	bool net = !strcmp(c->boot, "net");

	out[0] = '\0';
	if (c->firmware == FIRMWARE_BIOS && net_first(c))
		snprintf(out, len, "/rom@genroms/net.rom\n");
	for (unsigned i = 0; i < c->ndisks; i++)
		if (!strcmp(c->disk[i].id, c->boot))
			add_disk(c, first, i, out, len);
	for (unsigned i = 0; i < c->nnets; i++)
		if (net || !strcmp(c->net[i].id, c->boot))
			add_net(c, first, i, out, len);
	for (unsigned i = 0; i < c->ndisks; i++)
		if (strcmp(c->disk[i].id, c->boot))
			add_disk(c, first, i, out, len);
	for (unsigned i = 0; i < c->nnets; i++)
		if (!net && strcmp(c->net[i].id, c->boot))
			add_net(c, first, i, out, len);
}

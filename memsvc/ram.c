/*
 * RAM and control region of one VM.  Invariant: both memfds have their final
 * size before anybody else holds them, and seals keep it so: no holder can make
 * another one's mapping fault by cutting the file.
 */
#include "memsvc/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memsvc/merge.h"
#include "proto/shm.h"

static int sealed_memfd(const char *name, uint64_t size, int *out)
{
	int rc = 0, fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	*out = fd;
	return 0;
}

/* Header and p2m: every page of RAM is at its own offset; the bitmaps start clear. */
static int fill_control(struct ram *r)
{
	struct shm_layout l = shm_layout(r->size);
	uint8_t *p = mmap(NULL, l.total, PROT_READ | PROT_WRITE, MAP_SHARED, r->control_fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	struct shm_header h = {
		.magic = SHM_MAGIC,
		.version = SHM_VERSION,
		.header_size = sizeof h,
		.ram_size = r->size,
		.total_size = l.total,
		.p2m_offset = l.p2m,
		.code_offset = l.code,
		.dirty_offset = l.dirty,
		.epochs_offset = l.epochs,
		.held_offset = l.held,
	};
	memcpy(p, &h, sizeof h);
	uint64_t *p2m = (uint64_t *)(void *)(p + l.p2m);
	for (uint64_t i = 0; i < l.pages; i++)
		p2m[i] = i * SHM_PAGE;
	r->control = p; /* stays mapped */
	r->p2m = p2m;
	grace_init(&r->grace, (struct shm_epochs *)(void *)(p + l.epochs));
	return 0;
}

static int prepare(struct ram *r, uint64_t size)
{
	memset(r, 0, sizeof *r);
	r->ram_fd = r->control_fd = -1;
	if (!size || size % SHM_PAGE || size > SHM_MAX_RAM + SHM_MAX_ROM)
		return -EINVAL;
	r->size = size;
	r->control_size = shm_layout(size).total;
	return 0;
}

static bool sealed(int fd, uint64_t size)
{
	const int need = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	int seals = fcntl(fd, F_GET_SEALS); /* -1, which has every bit, is no memfd */
	struct stat st;

	return seals >= 0 && (seals & need) == need && fstat(fd, &st) == 0 && (uint64_t)st.st_size == size;
}

int ram_adopt(struct ram *r, int ram_fd, int control_fd, uint64_t size)
{
	int rc = prepare(r, size);

	if (!rc && (!sealed(ram_fd, size) || !sealed(control_fd, r->control_size)))
		rc = -EPROTO;
	if (rc)
		return rc;
	r->ram_fd = ram_fd;
	r->control_fd = control_fd;
	return fill_control(r);
}

int ram_create(struct ram *r, uint64_t size)
{
	int rc = prepare(r, size);

	if (rc)
		return rc;
	rc = sealed_memfd("hvx-ram", size, &r->ram_fd);
	if (!rc)
		rc = sealed_memfd("hvx-control", r->control_size, &r->control_fd);
	return rc ? rc : fill_control(r);
}

void ram_free(struct ram *r)
{
	if (r->ram_fd >= 0)
		close(r->ram_fd);
	if (r->control_fd >= 0)
		close(r->control_fd);
	if (r->control)
		munmap(r->control, r->control_size);
	r->control = NULL;
	r->ram_fd = r->control_fd = -1;
}

/* ---- pages that come and go ---- */

static int punch(struct ram *r, uint64_t first, uint64_t count)
{
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	while (fallocate(r->ram_fd, mode, (off_t)(first * SHM_PAGE), (off_t)(count * SHM_PAGE)) < 0)
		if (errno != EINTR)
			return -errno;
	return 0;
}

static void set_ballooned(struct ram *r, uint64_t page, bool on)
{
	bool was = __atomic_load_n(&r->p2m[page], __ATOMIC_RELAXED) & SHM_P2M_ABSENT;

	if (was == on)
		return;
	__atomic_fetch_xor(&r->p2m[page], SHM_P2M_ABSENT, __ATOMIC_RELAXED);
	if (on)
		r->ballooned++;
	else if (r->ballooned)
		r->ballooned--;
}

int ram_punch(struct ram *r, uint64_t first, uint64_t count)
{
	int rc = punch(r, first, count);

	if (!rc)
		r->punched += count;
	return rc;
}

int ram_empty(struct ram *r, uint64_t first, uint64_t count)
{
	return punch(r, first, count);
}

int ram_change(struct ram *r, enum msg_mem_op op, uint64_t first, uint64_t count)
{
	uint64_t pages = r->size / SHM_PAGE;

	if (op == MEM_OP_RETURN_ALL) {
		first = 0;
		count = pages;
	}
	if (first > pages || count > pages - first)
		return -EPROTO;
	for (uint64_t i = first; i < first + count && r->merge && op <= MEM_OP_REPORT; i++)
		merge_take_out(r->merge, i);
	for (uint64_t i = first; i < first + count && op != MEM_OP_REPORT; i++)
		set_ballooned(r, i, op == MEM_OP_BALLOON);
	return 0;
}

int ram_usage(const struct ram *r, struct ram_usage *u)
{
	struct stat a, b;

	if (fstat(r->ram_fd, &a) < 0 || fstat(r->control_fd, &b) < 0)
		return -errno;
	u->pages_total = r->size / SHM_PAGE;
	u->pages_present = (uint64_t)a.st_blocks * 512 / SHM_PAGE;
	if (u->pages_present > u->pages_total) /* huge pages round up */
		u->pages_present = u->pages_total;
	u->host_bytes = ((uint64_t)a.st_blocks + (uint64_t)b.st_blocks) * 512;
	u->pages_ballooned = r->ballooned < u->pages_total ? r->ballooned : u->pages_total;
	u->pages_punched = r->punched;
	return 0;
}

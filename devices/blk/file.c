/*
 * Raw files and block devices, as far as both ways of serving them agree.  Invariant: what is found out here holds until
 * the end; the file is never opened by name.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/blk/blk.h"

#define PAGE 4096

/* Does the file system know holes?  A hole beyond the end, with the size kept, is no change. */
static bool knows(int fd, int mode, uint64_t size)
{
	off_t end = (off_t)((size + PAGE - 1) & ~(uint64_t)(PAGE - 1));

	return fallocate(fd, mode | FALLOC_FL_KEEP_SIZE, end, PAGE) == 0;
}

static int block_device(struct blk_store *s, int fd)
{
	unsigned block = 0;

	if (ioctl(fd, BLKGETSIZE64, &s->size) < 0 || ioctl(fd, BLKSSZGET, &block) < 0)
		return -errno;
	s->block = block;
	s->discard = s->zeroes = s->unmap = true;
	return block && block <= PAGE && !(block & (block - 1)) ? 0 : -EINVAL;
}

int blk_file_look(struct blk_store *s, int fd, bool readonly)
{
	struct stat st;
	int rc = 0;

	if (fstat(fd, &st) < 0)
		return -errno;
	/* It was opened so as not to wait for a pipe's other end; io_uring would take that as "never wait". */
	rc = fcntl(fd, F_GETFL);
	if (rc < 0 || fcntl(fd, F_SETFL, rc & ~O_NONBLOCK) < 0)
		return -errno;
	rc = 0;
	s->fua = true;
	s->block = BLK_SECTOR;
	s->size = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode)) {
		rc = block_device(s, fd);
	} else if (!readonly) {
		s->discard = s->unmap = knows(fd, FALLOC_FL_PUNCH_HOLE, s->size);
		s->zeroes = true; /* until it says otherwise */
	}
	if (readonly)
		s->discard = s->zeroes = s->unmap = false;
	return rc;
}

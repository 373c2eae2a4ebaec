/*
 * hvx-blk: one disk of a VM.  Invariant: it has the descriptors of one image, a channel to the vcpu and the doorbells;
 * no chain is looked at before the final seal.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "devices/blk/blk.h"
#include "devices/blk/seal.h"

static struct blk *blk_of(struct device *d)
{
	return (struct blk *)(void *)d; /* its first member */
}

/* ---- stores ---- */

static void open_files(struct blk *b, const int *fds, struct blk_store **stores, unsigned n)
{
	int rc = blk_uring_open(b, fds, n, stores);

	if (rc) {
		log_info("no io_uring here (%s): threads", strerror(-rc));
		rc = blk_threads_open(b, fds, n, stores);
	}
	if (rc)
		child_fail(&b->dev.child, HVX_EXIT_HOST, "cannot make the threads: %s", strerror(-rc));
}

static void look(struct blk *b, struct blk_store *s, int fd, bool readonly)
{
	int rc = blk_file_look(s, fd, readonly);

	if (rc)
		child_fail(&b->dev.child, HVX_EXIT_HOST, "cannot use the image: %s", strerror(-rc));
}

static void open_base(struct blk *b)
{
	const struct msg_blk_config *c = &b->dev.cfg.blk;
	int fds[] = {b->dev.fd[DEV_FD_BACKEND], b->dev.fd[DEV_FD_OVERLAY]};
	struct blk_store *stores[2];
	const char *why;

	if (c->nbd) {
		if (blk_nbd_open(b, fds[0], &b->base, &why))
			child_fail(&b->dev.child, HVX_EXIT_HOST, "cannot use the NBD server: %s", why);
		if (c->snapshot)
			open_files(b, fds + 1, &b->top, 1);
		return;
	}
	open_files(b, fds, stores, c->snapshot ? 2 : 1);
	b->base = stores[0];
	b->top = c->snapshot ? stores[1] : NULL;
	look(b, b->base, fds[0], c->readonly || c->snapshot);
}

static void open_stores(struct blk *b)
{
	int overlay = b->dev.fd[DEV_FD_OVERLAY];

	open_base(b);
	b->size = b->base->size / b->base->block * b->base->block;
	if (b->size != b->base->size)
		log_warn("the last %u bytes of the image are no whole block: the guest does not see them",
			 (unsigned)(b->base->size - b->size));
	if (b->dev.cfg.blk.bus == BLK_CDROM && b->base->block > 2048)
		child_fail(&b->dev.child, HVX_EXIT_HOST, "blocks of %u bytes are too large for a CD", b->base->block);
	if (!b->top)
		return;
	if (ftruncate(overlay, (off_t)b->size) < 0)
		child_fail(&b->dev.child, HVX_EXIT_HOST, "cannot make the snapshot's file that large: %s",
			   strerror(errno));
	look(b, b->top, overlay, false);
	if (blk_overlay_init(b))
		child_fail(&b->dev.child, HVX_EXIT_HOST, "no memory for the snapshot's map");
}

/* ---- what the monitor asks ---- */

static void on_command(struct device *d, enum msg_dev_op op)
{
	if (op != DEV_OP_RETRY)
		fatal(HVX_EXIT_FAIL, "a command that is none for disks");
	blk_retry(blk_of(d));
}

static void on_limits(struct device *d)
{
	blk_limits_changed(blk_of(d));
}

static void on_stats(struct device *d, struct msg_counters *m)
{
	const struct blk *b = blk_of(d);

#define X(field) device_count(m, #field, b->n.field);
	X(reads)
	X(writes)
	X(flushes)
	X(discards)
	X(zeroes)
	X(read_bytes)
	X(written_bytes)
	X(errors)
	X(refused)
	X(depth)
#undef X
	device_count(m, "inflight", b->inflight);
	device_count(m, "throttled", d->limit[0].throttled);
	device_count(m, "io_uring", !strcmp((b->top ? b->top : b->base)->ops->name, "io_uring"));
}

static struct device_ops ops = {
	.work = blk_work,
	.activate = blk_activate,
	.reset = blk_reset,
	.config_write = blk_config_write,
	.command = on_command,
	.limits = on_limits,
	.stats = on_stats,
};

int main(int argc, char **argv)
{
	static struct blk b = {
		.dev = {.child = {.program = "hvx-blk", .role = ROLE_BLK, .table = &blk_seal}, .ops = &ops}};

	signal(SIGXFSZ, SIG_IGN); /* beyond a limit of file sizes: an error like any other (EFBIG) */
	device_start(&b.dev, argc, argv);
	b.readonly = b.dev.cfg.blk.readonly;
	open_stores(&b);
	if (blk_requests_init(&b))
		child_fail(&b.dev.child, HVX_EXIT_HOST, "no memory for the timer");
	b.writeback = b.dev.cfg.blk.writeback;
	if (b.dev.cfg.blk.bus == BLK_VIRTIO)
		blk_offer(&b);
	else if (blk_ahci_init(&b, &ops))
		child_fail(&b.dev.child, HVX_EXIT_HOST, "no memory for the port");
	return device_run(&b.dev);
}

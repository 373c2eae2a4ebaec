/*
 * Disks and network cards: their files, processes and channels.  Invariant: each descriptor is
 * handed to exactly the one process that serves that card, and kept nowhere else.
 */
#include "monitor/card.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/err.h"
#include "common/log.h"
#include "monitor/backend.h"
#include "monitor/image.h"
#include "monitor/machine.h"
#include "monitor/ready.h"
#include "proto/shm.h"

#define SECTOR 512

static void drop(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static struct card *add(struct machine *m, enum msg_role role, int option, const char *id,
			const struct msg_dev_limits *limits)
{
	struct card *c = &m->card[m->ncards++];

	*c = (struct card){.role = role, .option = option, .id = id, .limits = *limits};
	c->backend = c->overlay = c->device_end = c->vcpu_end = c->page = c->kick = -1;
	return c;
}

/* A page that neither side can make shorter under the other's mapping. */
static int make_page(void)
{
	int fd = memfd_create("hvx-doorbells", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, SHM_PAGE) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		int rc = -errno;
		close(fd);
		return rc;
	}
	return fd;
}

static int wire(struct card *c)
{
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv) == 0) {
		c->device_end = sv[0];
		c->vcpu_end = sv[1];
		c->page = make_page();
		c->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	}
	if (c->device_end >= 0 && c->page >= 0 && c->kick >= 0)
		return 0;
	log_error("%s: channel: %s", c->id, strerror(errno));
	return HVX_EXIT_HOST;
}

static int open_disk(struct machine *m, struct card *c)
{
	struct disk_option *d = &m->cfg.disk[c->option];
	char err[DEVOPT_PATH_MAX + PATH_MAX + 512];

	if (image_open(d, m->cfg.allow_path, m->cfg.nallowed, &c->image, err, sizeof err)) {
		log_error("%s", err);
		return HVX_EXIT_CONFIG;
	}
	if (d->format == FORMAT_RAW) { /* its process gets the file itself */
		c->backend = image_take(c->image);
		c->image = NULL;
	}
	if (d->format == FORMAT_RAW && lseek(c->backend, 0, SEEK_END) < SECTOR)
		log_warn("disk %s: the image is empty: the guest sees a disk of 0 bytes", d->path);
	if (d->snapshot)
		c->overlay = image_overlay();
	if (!d->snapshot || c->overlay >= 0)
		return 0;
	log_error("disk %s: no file for the snapshot: %s", d->path, strerror(-c->overlay));
	return HVX_EXIT_HOST;
}

/* One more disk, whose contents are made when there is a loop (backend.c). */
static int open_seed(struct machine *m)
{
	struct config *cfg = &m->cfg;
	struct disk_option *d = &cfg->disk[cfg->ndisks];
	char err[PATH_MAX + 256];

	if (seed_open(&m->seed, &cfg->seed, cfg->name, err, sizeof err)) {
		log_error("%s", err);
		return HVX_EXIT_CONFIG;
	}
	*d = (struct disk_option){
		.id = SEED_ID, .path = SEED_ID, .serial = SEED_ID, .format = FORMAT_RAW, .readonly = true};
	struct card *c = add(m, ROLE_BLK, (int)cfg->ndisks++, d->id, &d->limits);
	c->backend = m->seed.disk;
	m->seed.disk = -1;
	c->seed = true;
	return wire(c);
}

/* Without mac=: locally administered and the same at every start of a VM of this name. */
static void default_mac(uint8_t mac[6], const char *vm, const char *id)
{
	uint64_t h = 0xcbf29ce484222325ull; /* FNV-1a */

	for (const char *s = vm; *s; s++)
		h = (h ^ (uint8_t)*s) * 0x100000001b3ull;
	h = (h ^ '/') * 0x100000001b3ull;
	for (const char *s = id; *s; s++)
		h = (h ^ (uint8_t)*s) * 0x100000001b3ull;
	mac[0] = 0x52;
	for (int i = 1; i < 6; i++)
		mac[i] = (uint8_t)(h >> 8 * i);
}

static int make_calls(struct machine *m)
{
	for (unsigned n = msg_cpus_count(&m->cfg.cpus); m->ncalls < n; m->ncalls++)
		if (pipe2(m->call[m->ncalls], O_CLOEXEC | O_NONBLOCK)) {
			log_error("pipes for interrupts: %s", strerror(errno));
			return HVX_EXIT_HOST;
		}
	return 0;
}

int card_open_all(struct machine *m)
{
	struct config *cfg = &m->cfg;
	char err[DEVOPT_PATH_MAX + 256];
	struct msg_dev_limits part;
	int rc = 0;

	for (unsigned i = 0; i < cfg->nnets && !rc; i++) {
		struct card *c = add(m, ROLE_NET, (int)i, cfg->net[i].id, &cfg->net[i].limits);
		c->link_down = cfg->net[i].link_down;
		if (!cfg->net[i].has_mac)
			default_mac(cfg->net[i].mac, cfg->name, cfg->net[i].id);
		rc = backend_open_net(&cfg->net[i], &c->backend, err, sizeof err);
		if (!rc && forward_claim(&c->claim, &cfg->net[i], err, sizeof err))
			rc = HVX_EXIT_CONFIG;
		if (rc)
			log_error("%s", err);
		else
			rc = wire(c);
	}
	for (unsigned i = 0; i < cfg->ndisks && !rc; i++) {
		struct card *c = add(m, ROLE_BLK, (int)i, cfg->disk[i].id, bound_disk(m, i, &part));
		rc = open_disk(m, c);
		if (!rc)
			rc = wire(c);
	}
	if (!rc && cfg->seed.wanted)
		rc = open_seed(m);
	return rc || !m->ncards ? rc : make_calls(m);
}

int card_start_all(struct machine *m)
{
	int rc = 0;

	m->nprocs = PROC_CARDS + m->ncards; /* tools come after them */
	for (int i = 0; i < m->ncards && !rc; i++) {
		bool blk = m->card[i].role == ROLE_BLK;
		rc = backend_start(m, &m->card[i]);
		if (!rc)
			rc = machine_start_child(m, PROC_CARDS + i, blk ? "hvx-blk" : "hvx-net", m->card[i].id,
						 m->card[i].role);
	}
	return rc;
}

/* ---- configuration ---- */

static void add_fd(struct msg_dev_config *d, int *fds, enum msg_dev_fd kind, int fd)
{
	if (fd < 0)
		return;
	d->fds[d->nfds] = kind;
	fds[d->nfds++] = fd;
}

/* Without queues=: one a CPU, which pays (bench/NOTES). */
static uint32_t queues(const struct machine *m, uint32_t given)
{
	uint32_t n = given ? given : msg_cpus_count(&m->cfg.cpus);

	return n < MSG_PAIRS_MAX ? n : MSG_PAIRS_MAX;
}

static void describe_disk(const struct machine *m, struct msg_blk_config *b, const struct disk_option *o)
{
	b->bus = o->bus;
	b->queues = o->bus == BLK_VIRTIO ? queues(m, o->queues) : 1;
	b->readonly = o->readonly;
	b->writeback = !o->nocache;
	b->pause_error = o->pause_error;
	b->nbd = o->format != FORMAT_RAW;
	b->snapshot = o->snapshot;
	memcpy(b->serial, o->serial, sizeof b->serial);
}

static void describe_net(struct msg_net_config *n, const struct net_option *o)
{
	n->queues = o->queues ? o->queues : 1; /* more were not found to pay (bench/NOTES) */
	n->backend = o->backend;
	n->mtu = o->mtu;
	n->link_down = o->link_down;
	memcpy(n->mac, o->mac, sizeof n->mac);
}

int card_configure(struct machine *m, struct peer *p)
{
	static struct msg_dev_config d; /* large; there is one loop */
	struct card *c = p->card;
	int fds[MSG_FDS_MAX];

	if (!m->region || !p->proc->hello || c->configured || c->awaits)
		return 0;
	memset(&d, 0, sizeof d);
	snprintf(d.id, sizeof d.id, "%s", c->id);
	d.ram_size = m->cfg.memory;
	d.kind = c->role;
	d.limits = c->limits;
	if (c->role == ROLE_BLK)
		describe_disk(m, &d.blk, &m->cfg.disk[c->option]);
	else
		describe_net(&d.net, &m->cfg.net[c->option]);
	add_fd(&d, fds, DEV_FD_RAM, m->ram_fd);
	add_fd(&d, fds, DEV_FD_CONTROL, m->control_fd);
	add_fd(&d, fds, DEV_FD_CHANNEL, c->device_end);
	add_fd(&d, fds, DEV_FD_PAGE, c->page);
	add_fd(&d, fds, DEV_FD_KICK, c->kick);
	add_fd(&d, fds, DEV_FD_BACKEND, c->backend);
	add_fd(&d, fds, DEV_FD_OVERLAY, c->overlay);
	add_fd(&d, fds, DEV_FD_POOL, m->pool_fd);
	for (unsigned i = 0; i < m->ncalls; i++)
		add_fd(&d, fds, DEV_FD_CALL + i, m->call[i][1]);
	int rc = machine_send(m, p, MSG_DEV_CONFIG, pack_dev_config(&d, m->buf, sizeof m->buf), fds, (int)d.nfds);
	drop(&c->device_end);
	drop(&c->backend);
	drop(&c->overlay);
	c->configured = true;
	return rc;
}

bool card_all_configured(const struct machine *m)
{
	for (int i = 0; i < m->ncards; i++)
		if (!m->card[i].configured)
			return false;
	return true;
}

static int give_calls(struct machine *m)
{
	int fds[MSG_CPUS_MAX];

	for (unsigned i = 0; i < m->ncalls; i++)
		fds[i] = m->call[i][0];
	return m->ncalls ? machine_send(m, &m->child[PROC_VCPU], MSG_VCPU_CALLS, 0, fds, (int)m->ncalls) : 0;
}

int card_give_vcpu(struct machine *m)
{
	int rc = give_calls(m);

	for (int i = 0; i < m->ncards && !rc; i++) {
		struct card *c = &m->card[i];
		struct msg_vcpu_device d = {.slot = CARD_FIRST_SLOT + (uint32_t)i};
		const int fds[] = {c->vcpu_end, c->page, c->kick};
		snprintf(d.id, sizeof d.id, "%s", c->id);
		rc = machine_send(m, &m->child[PROC_VCPU], MSG_VCPU_DEVICE, pack_vcpu_device(&d, m->buf, sizeof m->buf),
				  fds, 3);
	}
	if (!rc)
		card_close_all(m);
	return rc;
}

void card_close_all(struct machine *m)
{
	for (int i = 0; i < m->ncards; i++) {
		struct card *c = &m->card[i];
		ready_forget(c);
		int *const fds[] = {&c->backend, &c->overlay, &c->device_end, &c->vcpu_end, &c->page, &c->kick};
		for (size_t k = 0; k < sizeof fds / sizeof fds[0]; k++)
			drop(fds[k]);
	}
	while (m->ncalls) {
		drop(&m->call[--m->ncalls][0]);
		drop(&m->call[m->ncalls][1]);
	}
}

void card_free_all(struct machine *m)
{
	card_close_all(m);
	for (int i = 0; i < m->ncards; i++) {
		image_free(m->card[i].image);
		m->card[i].image = NULL;
	}
}

struct card *card_find(struct machine *m, const char *id, struct peer **peer)
{
	for (int i = 0; i < m->ncards; i++) {
		*peer = &m->child[PROC_CARDS + i];
		if (!strcmp(m->card[i].id, id))
			return &m->card[i];
	}
	return NULL;
}

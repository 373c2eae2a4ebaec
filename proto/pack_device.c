/*
 * device.proto and the frames that tell the vcpu of cards: wire to validated plain struct, and
 * back.  Invariant: as in pack.c.
 */
#include "proto/pack_wire.h"

#include "device.pb-c.h"

/* An identifier that may stand in file names and log tags. */
static bool copy_id(char *dst, const char *src)
{
	return src[0] && copy_text(dst, MSG_ID_MAX, src);
}

int pack_vcpu_device(const struct msg_vcpu_device *m, uint8_t *buf, size_t len)
{
	Hvx__VcpuDevice w = HVX__VCPU_DEVICE__INIT;

	w.id = str(m->id);
	w.slot = m->slot;
	return put(&w.base, buf, len);
}

int unpack_vcpu_device(const uint8_t *buf, size_t len, struct msg_vcpu_device *m)
{
	UNPACK_BEGIN(VcpuDevice, vcpu_device);
	UNPACK_NEED(copy_id(m->id, w->id));
	UNPACK_NEED(w->slot >= 1 && w->slot <= 30);
	m->slot = w->slot;
	UNPACK_END();
}

/* ---- limits ---- */

static void limits_out(const struct msg_dev_limits *m, Hvx__DeviceLimits *w)
{
	hvx__device_limits__init(w);
	w->ops = m->ops;
	w->ops_burst = m->ops_burst;
	w->bytes = m->bytes;
	w->bytes_burst = m->bytes_burst;
}

static void limits_in(const Hvx__DeviceLimits *w, struct msg_dev_limits *m)
{
	*m = (struct msg_dev_limits){w->ops, w->ops_burst, w->bytes, w->bytes_burst};
}

int pack_dev_limits(const struct msg_dev_limits *m, uint8_t *buf, size_t len)
{
	Hvx__DeviceLimits w;

	limits_out(m, &w);
	return put(&w.base, buf, len);
}

int unpack_dev_limits(const uint8_t *buf, size_t len, struct msg_dev_limits *m)
{
	UNPACK_BEGIN(DeviceLimits, device_limits);
	limits_in(w, m);
	UNPACK_END();
}

/* ---- configuration ---- */

static void blk_out(const struct msg_blk_config *m, Hvx__BlkConfig *w)
{
	hvx__blk_config__init(w);
	w->readonly = m->readonly;
	w->writeback = m->writeback;
	w->pause_error = m->pause_error;
	w->serial = str(m->serial);
	w->nbd = m->nbd;
	w->snapshot = m->snapshot;
}

static bool blk_in(const Hvx__BlkConfig *w, struct msg_blk_config *m)
{
	m->readonly = w->readonly;
	m->writeback = w->writeback;
	m->pause_error = w->pause_error;
	m->nbd = w->nbd;
	m->snapshot = w->snapshot;
	return known_only(&w->base) && copy_text(m->serial, sizeof m->serial, w->serial);
}

static void net_out(const struct msg_net_config *m, Hvx__NetConfig *w)
{
	hvx__net_config__init(w);
	w->backend = m->backend;
	w->mac.data = (uint8_t *)(uintptr_t)m->mac;
	w->mac.len = sizeof m->mac;
	w->mtu = m->mtu;
	w->link_down = m->link_down;
}

static bool net_in(const Hvx__NetConfig *w, struct msg_net_config *m)
{
	if (!known_only(&w->base) || w->backend < NET_PASST || w->backend >= NET_BACKEND_COUNT ||
	    w->mac.len != sizeof m->mac || (w->mac.data[0] & 1))
		return false;
	if (w->mtu && (w->mtu < 68 || w->mtu > 65535))
		return false;
	memcpy(m->mac, w->mac.data, sizeof m->mac);
	m->backend = w->backend;
	m->mtu = w->mtu;
	m->link_down = w->link_down;
	return true;
}

static bool dev_fds_in(const Hvx__DeviceConfig *w, struct msg_dev_config *m)
{
	uint32_t seen = 0;

	if (w->n_fds > MSG_FDS_MAX)
		return false;
	for (size_t i = 0; i < w->n_fds; i++) {
		uint32_t k = w->fds[i];
		if (k == 0 || k >= DEV_FD_COUNT || (seen & (1u << k)))
			return false;
		seen |= 1u << k;
		m->fds[i] = k;
	}
	m->nfds = (uint32_t)w->n_fds;
	/* each but the overlay, which goes with a snapshot of an image file */
	const uint32_t all = (1u << DEV_FD_COUNT) - 2, overlay = 1u << DEV_FD_OVERLAY;
	return (seen | overlay) == all && !!(seen & overlay) == (m->kind == ROLE_BLK && m->blk.snapshot);
}

int pack_dev_config(const struct msg_dev_config *m, uint8_t *buf, size_t len)
{
	Hvx__DeviceConfig w = HVX__DEVICE_CONFIG__INIT;
	Hvx__BlkConfig blk;
	Hvx__NetConfig net;
	Hvx__DeviceLimits limits;
	uint32_t fds[MSG_FDS_MAX];

	for (uint32_t i = 0; i < m->nfds; i++)
		fds[i] = m->fds[i];
	blk_out(&m->blk, &blk);
	net_out(&m->net, &net);
	limits_out(&m->limits, &limits);
	w.id = str(m->id);
	w.ram_size = m->ram_size;
	w.n_fds = m->nfds;
	w.fds = fds;
	w.blk = m->kind == ROLE_BLK ? &blk : NULL;
	w.net = m->kind == ROLE_NET ? &net : NULL;
	w.limits = &limits;
	return put(&w.base, buf, len);
}

int unpack_dev_config(const uint8_t *buf, size_t len, struct msg_dev_config *m)
{
	UNPACK_BEGIN(DeviceConfig, device_config);
	UNPACK_NEED(copy_id(m->id, w->id));
	UNPACK_NEED(ram_size_ok(w->ram_size));
	UNPACK_NEED(!w->blk != !w->net && w->limits && known_only(&w->limits->base));
	m->kind = w->blk ? ROLE_BLK : ROLE_NET;
	UNPACK_NEED(w->blk ? blk_in(w->blk, &m->blk) : net_in(w->net, &m->net));
	UNPACK_NEED(dev_fds_in(w, m));
	limits_in(w->limits, &m->limits);
	m->ram_size = w->ram_size;
	UNPACK_END();
}

/* ---- later ---- */

int pack_dev_command(const struct msg_dev_command *m, uint8_t *buf, size_t len)
{
	Hvx__DeviceCommand w = HVX__DEVICE_COMMAND__INIT;

	w.op = m->op;
	return put(&w.base, buf, len);
}

int unpack_dev_command(const uint8_t *buf, size_t len, struct msg_dev_command *m)
{
	UNPACK_BEGIN(DeviceCommand, device_command);
	UNPACK_NEED(w->op >= DEV_OP_RETRY && w->op < DEV_OP_COUNT);
	m->op = w->op;
	UNPACK_END();
}

int pack_dev_event(const struct msg_dev_event *m, uint8_t *buf, size_t len)
{
	Hvx__DeviceEvent w = HVX__DEVICE_EVENT__INIT;

	w.kind = m->kind;
	w.text = str(m->text);
	return put(&w.base, buf, len);
}

int unpack_dev_event(const uint8_t *buf, size_t len, struct msg_dev_event *m)
{
	UNPACK_BEGIN(DeviceEvent, device_event);
	UNPACK_NEED(w->kind >= DEV_EVENT_IO_ERROR && w->kind < DEV_EVENT_COUNT);
	UNPACK_NEED(copy_text(m->text, sizeof m->text, w->text));
	m->kind = w->kind;
	UNPACK_END();
}

int pack_dev_stats(const struct msg_counters *m, uint8_t *buf, size_t len)
{
	Hvx__DeviceStats w = HVX__DEVICE_STATS__INIT;
	Hvx__Counter c[MSG_COUNTERS_MAX], *p[MSG_COUNTERS_MAX];

	counters_out(m, c, p);
	w.n_counters = m->n;
	w.counters = p;
	return put(&w.base, buf, len);
}

int unpack_dev_stats(const uint8_t *buf, size_t len, struct msg_counters *m)
{
	UNPACK_BEGIN(DeviceStats, device_stats);
	UNPACK_NEED(counters_in(w->n_counters, w->counters, false, m));
	UNPACK_END();
}

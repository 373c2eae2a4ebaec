/*
 * The messages of device.proto.  Invariant: as in pack.c.
 */
#include "proto/field.h"

#include "device.pb-c.h"

static const struct field dev_limits_rows[] = {
	ANY(DeviceLimits, msg_dev_limits, ops),
	ANY(DeviceLimits, msg_dev_limits, ops_burst),
	ANY(DeviceLimits, msg_dev_limits, bytes),
	ANY(DeviceLimits, msg_dev_limits, bytes_burst),
};
MESSAGE(dev_limits, DeviceLimits, device_limits, msg_dev_limits, NULL)

static const struct field blk_config_rows[] = {
	FLAG(BlkConfig, msg_blk_config, readonly),
	FLAG(BlkConfig, msg_blk_config, writeback),
	FLAG(BlkConfig, msg_blk_config, pause_error),
	TEXT(BlkConfig, msg_blk_config, serial),
	FLAG(BlkConfig, msg_blk_config, nbd),
	FLAG(BlkConfig, msg_blk_config, snapshot),
	NUM(BlkConfig, msg_blk_config, bus, BLK_VIRTIO, BLK_BUSES - 1),
	NUM(BlkConfig, msg_blk_config, queues, 1, MSG_PAIRS_MAX),
};
TABLE(blk_config, BlkConfig, blk_config, msg_blk_config, NULL);

static bool mtu_ok(uint64_t n)
{
	return !n || (n >= 68 && n <= 65535);
}

static bool net_config_ok(const void *p)
{
	const struct msg_net_config *m = p;

	return !(m->mac[0] & 1); /* that would be a group's address */
}

static const struct field net_config_rows[] = {
	NUM(NetConfig, msg_net_config, backend, NET_PASST, NET_BACKEND_COUNT - 1),
	EXACT(NetConfig, msg_net_config, mac),
	NUM_IF(NetConfig, msg_net_config, mtu, mtu_ok),
	FLAG(NetConfig, msg_net_config, link_down),
	NUM(NetConfig, msg_net_config, queues, 1, MSG_PAIRS_MAX),
};
TABLE(net_config, NetConfig, net_config, msg_net_config, net_config_ok);

/* One of the two kinds; and all descriptors but the overlay, which goes with a snapshot of an image file, the pool, which is
 * there if pages are merged, and the pipes of CPUs that there are not. */
static bool dev_config_ok(const void *p)
{
	const struct msg_dev_config *m = p;
	const uint64_t every = (2ull << DEV_FD_CALL) - 2, overlay = 1ull << DEV_FD_OVERLAY, pool = 1ull << DEV_FD_POOL;
	uint64_t seen = 0;

	for (uint32_t i = 0; i < m->nfds; i++)
		seen |= 1ull << m->fds[i];
	const uint64_t calls = seen >> DEV_FD_CALL; /* from the first on, without a gap */
	return m->kind && ((seen & every) | overlay | pool) == every && !(calls & (calls + 1)) &&
	       !!(seen & overlay) == (m->kind == ROLE_BLK && m->blk.snapshot);
}

static const struct field dev_config_rows[] = {
	ID(DeviceConfig, msg_dev_config, id),
	NUM_IF(DeviceConfig, msg_dev_config, ram_size, field_ram_size),
	NUM_SET(DeviceConfig, fds, msg_dev_config, fds, nfds, 1, DEV_FD_COUNT - 1),
	CASE(DeviceConfig, msg_dev_config, blk, blk_config_table, kind, ROLE_BLK),
	CASE(DeviceConfig, msg_dev_config, net, net_config_table, kind, ROLE_NET),
	SUB(DeviceConfig, msg_dev_config, limits, dev_limits_table),
};
MESSAGE(dev_config, DeviceConfig, device_config, msg_dev_config, dev_config_ok)

static const struct field dev_command_rows[] = {
	NUM(DeviceCommand, msg_dev_command, op, DEV_OP_RETRY, DEV_OP_COUNT - 1),
};
MESSAGE(dev_command, DeviceCommand, device_command, msg_dev_command, NULL)

static const struct field dev_event_rows[] = {
	NUM(DeviceEvent, msg_dev_event, kind, DEV_EVENT_IO_ERROR, DEV_EVENT_COUNT - 1),
	TEXT(DeviceEvent, msg_dev_event, text),
};
MESSAGE(dev_event, DeviceEvent, device_event, msg_dev_event, NULL)

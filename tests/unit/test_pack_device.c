/* Messages of cards: round trips, truncation at every length, and everything that must not get through. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <string.h>

#include "common/ipc.h"
#include "proto/pack.h"
#include "proto/shm.h"

static uint8_t buf[IPC_MAX_DATA];

/* Packs @in, which must not read back. */
#define REFUSED(fn, in)                                                                   \
	do {                                                                              \
		int n_ = pack_##fn(in, buf, sizeof buf);                                  \
		CU_ASSERT_TRUE(n_ >= 0 && unpack_##fn(buf, (size_t)n_, &out) == -EPROTO); \
	} while (0)

/* Packs @in, which must read back as it was, but never when something is missing or added. */
#define ROUND_TRIP(fn, in)                                                          \
	do {                                                                        \
		int n_ = pack_##fn(in, buf, sizeof buf);                            \
		CU_ASSERT_FATAL(n_ > 0);                                            \
		CU_ASSERT_EQUAL(unpack_##fn(buf, (size_t)n_, &out), 0);             \
		CU_ASSERT_EQUAL(memcmp(in, &out, sizeof out), 0);                   \
		CU_ASSERT_EQUAL(unpack_##fn(buf, (size_t)n_ - 1, &out), -EPROTO);   \
		memcpy(buf + n_, "\x78\x01", 2); /* field 15, which there is not */ \
		CU_ASSERT_EQUAL(unpack_##fn(buf, (size_t)n_ + 2, &out), -EPROTO);   \
		CU_ASSERT_EQUAL(pack_##fn(in, buf, (size_t)n_ - 1), -EMSGSIZE);     \
	} while (0)

static void test_offer(void)
{
	static struct msg_virtio_offer in, out;

	in = (struct msg_virtio_offer){
		.device_id = 2, .features = ~0ull, .nqueues = MSG_QUEUES_MAX, .config_len = MSG_VCONFIG_MAX};
	for (unsigned i = 0; i < MSG_QUEUES_MAX; i++)
		in.queue_max[i] = 1u << i % 11;
	memset(in.config, 0xa5, sizeof in.config);
	ROUND_TRIP(virtio_offer, &in);
	in.queue_max[3] = 0;
	REFUSED(virtio_offer, &in);
	in.queue_max[3] = 3;
	REFUSED(virtio_offer, &in);
	in.queue_max[3] = 2 * MSG_QUEUE_SIZE_MAX;
	REFUSED(virtio_offer, &in);
	in.queue_max[3] = 1;
	in.nqueues = 0;
	REFUSED(virtio_offer, &in);
	in.nqueues = 1;
	in.device_id = 0;
	REFUSED(virtio_offer, &in);
	in.device_id = MSG_OFFER_ATAPI + 1; /* would be another PCI device number */
	REFUSED(virtio_offer, &in);
}

static void test_activate(void)
{
	static struct msg_virtio_activate in, out;

	in = (struct msg_virtio_activate){.features = 1ull << 32, .nqueues = MSG_QUEUES_MAX};
	for (unsigned i = 0; i < MSG_QUEUES_MAX; i++)
		in.queue[i] = (struct msg_virtio_queue){MSG_QUEUES_MAX - 1 - i, 64, ~0ull - i, i, 1ull << i};
	ROUND_TRIP(virtio_activate, &in);
	in.queue[2].index = in.queue[3].index; /* twice */
	REFUSED(virtio_activate, &in);
	in.queue[2].index = MSG_QUEUES_MAX;
	REFUSED(virtio_activate, &in);
	in.queue[2].index = MSG_QUEUES_MAX - 3;
	in.queue[2].size = 0;
	REFUSED(virtio_activate, &in);
	in.queue[2].size = 96;
	REFUSED(virtio_activate, &in);
	in.queue[2].size = 64;
	in.nqueues = 0; /* a driver may do without */
	memset(in.queue, 0, sizeof in.queue);
	ROUND_TRIP(virtio_activate, &in);
}

static void test_config(void)
{
	static struct msg_virtio_config in, out;

	in = (struct msg_virtio_config){.offset = 32, .len = 1, .data = {7}};
	ROUND_TRIP(virtio_config, &in);
	in.offset = MSG_VCONFIG_MAX - 1;
	ROUND_TRIP(virtio_config, &in);
	in.offset = MSG_VCONFIG_MAX;
	REFUSED(virtio_config, &in);
	in.offset = ~0u;
	REFUSED(virtio_config, &in);
	memset(&in, 1, sizeof in);
	in.offset = 0, in.len = MSG_VCONFIG_MAX;
	ROUND_TRIP(virtio_config, &in);
	in.offset = 1;
	REFUSED(virtio_config, &in);
}

static void test_invalidate(void)
{
	static struct msg_virtio_invalidate in, out;

	in = (struct msg_virtio_invalidate){.id = ~0u, .nranges = MSG_RANGES_MAX};
	for (unsigned i = 0; i < MSG_RANGES_MAX; i++)
		in.range[i].gpa = ~0ull - i, in.range[i].len = ~0ull; /* the largest fit */
	ROUND_TRIP(virtio_invalidate, &in);
	in.range[9].len = 0;
	REFUSED(virtio_invalidate, &in);
	in = (struct msg_virtio_invalidate){.id = 3};
	ROUND_TRIP(virtio_invalidate, &in);
}

static void test_reset(void)
{
	struct msg_virtio_reset in = {77}, out;

	ROUND_TRIP(virtio_reset, &in);
}

static void test_broken(void)
{
	static struct msg_virtio_broken in = {"a chain with a loop"}, out;

	ROUND_TRIP(virtio_broken, &in);
	strcpy(in.reason, "a\nforged line");
	REFUSED(virtio_broken, &in);
}

static void test_card(void)
{
	static struct msg_vcpu_device in = {"blk0", 1}, out;

	ROUND_TRIP(vcpu_device, &in);
	in.slot = 31; /* the LPC bridge's */
	REFUSED(vcpu_device, &in);
	in.slot = 0;
	REFUSED(vcpu_device, &in);
	in = (struct msg_vcpu_device){"", 2};
	REFUSED(vcpu_device, &in);
}

static void test_command(void)
{
	struct msg_dev_command in = {DEV_OP_LINK_DOWN}, out;

	ROUND_TRIP(dev_command, &in);
	in.op = DEV_OP_COUNT;
	REFUSED(dev_command, &in);
}

static void test_event(void)
{
	static struct msg_dev_event in = {DEV_EVENT_IO_ERROR, "read at byte 5: EIO"}, out;

	ROUND_TRIP(dev_event, &in);
	in.kind = 0;
	REFUSED(dev_event, &in);
	in = (struct msg_dev_event){DEV_EVENT_IO_ERROR, "\x1b[2J"};
	REFUSED(dev_event, &in);
}

static void test_limits(void)
{
	struct msg_dev_limits in = {1, 2, 3, 4}, out;

	ROUND_TRIP(dev_limits, &in);
}

static void make_config(struct msg_dev_config *c, enum msg_role kind)
{
	*c = (struct msg_dev_config){.id = "x", .ram_size = 64 << 20, .kind = kind};
	if (kind == ROLE_BLK)
		c->blk = (struct msg_blk_config){.readonly = true, .queues = 1, .serial = "12345678901234567890"};
	else
		c->net = (struct msg_net_config){
			.backend = NET_TAP, .mac = {0x52, 1, 2, 3, 4, 5}, .mtu = 9000, .queues = 8};
	for (unsigned i = DEV_FD_RAM; i < DEV_FD_OVERLAY; i++)
		c->fds[c->nfds++] = i;
	c->fds[c->nfds++] = DEV_FD_CALL;
}

static void test_dev_config(void)
{
	static struct msg_dev_config in, out;

	make_config(&in, ROLE_BLK);
	ROUND_TRIP(dev_config, &in);
	in.fds[in.nfds++] = DEV_FD_POOL;
	ROUND_TRIP(dev_config, &in);
	in.nfds--;
	in.blk.snapshot = true; /* without the file for it */
	REFUSED(dev_config, &in);
	in.fds[in.nfds++] = DEV_FD_OVERLAY;
	ROUND_TRIP(dev_config, &in);
	in.blk.snapshot = false; /* and the other way round */
	REFUSED(dev_config, &in);
	make_config(&in, ROLE_BLK);
	for (unsigned i = DEV_FD_CALL + 1; i <= DEV_FD_CALL_LAST; i++)
		in.fds[in.nfds++] = i;
	ROUND_TRIP(dev_config, &in);
	in.nfds--;
	in.fds[in.nfds - 1] = DEV_FD_CALL_LAST; /* with a gap before it */
	REFUSED(dev_config, &in);
	make_config(&in, ROLE_BLK);
	in.fds[2] = in.fds[3];
	REFUSED(dev_config, &in);
	make_config(&in, ROLE_BLK);
	in.fds[2] = DEV_FD_COUNT;
	REFUSED(dev_config, &in);
	make_config(&in, ROLE_BLK);
	in.nfds--;
	REFUSED(dev_config, &in);
	make_config(&in, ROLE_BLK);
	in.ram_size = 4097;
	REFUSED(dev_config, &in);
	make_config(&in, ROLE_NET);
	ROUND_TRIP(dev_config, &in);
	in.net.mac[0] |= 1; /* a group's address */
	REFUSED(dev_config, &in);
	make_config(&in, ROLE_NET);
	in.net.mtu = 67;
	REFUSED(dev_config, &in);
	in.net.mtu = 65536;
	REFUSED(dev_config, &in);
	in.net.mtu = 0;
	in.net.backend = NET_BACKEND_COUNT;
	REFUSED(dev_config, &in);
	make_config(&in, ROLE_VCPU); /* neither of the two */
	REFUSED(dev_config, &in);
}

CU_ErrorCode suite_pack_device(void)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} tests[] = {
		{"offer", test_offer},   {"activate", test_activate},        {"configuration space", test_config},
		{"reset", test_reset},   {"invalidate", test_invalidate},    {"broken", test_broken},
		{"card", test_card},     {"command", test_command},          {"event", test_event},
		{"limits", test_limits}, {"configuration", test_dev_config},
	};
	CU_pSuite s = CU_add_suite("pack_device", NULL, NULL);

	for (size_t i = 0; s && i < sizeof tests / sizeof tests[0]; i++)
		if (!CU_add_test(s, tests[i].name, tests[i].fn))
			break;
	return CU_get_error();
}

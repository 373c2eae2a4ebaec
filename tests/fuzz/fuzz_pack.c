/*
 * Fuzz target: messages.  The same bytes are given to the reader of every kind of message.
 *
 * Property: what a reader lets through packs again, and the packed message reads back as the same.
 */
#include <errno.h>
#include <string.h>

#include "common/ipc.h"
#include "common/text.h"
#include "proto/pack.h"
#include "proto/shm.h"
#include "tests/fuzz/fuzz.h"

static uint8_t wire[IPC_MAX_DATA];

#define X(fn, type)                                                \
	static void try_##fn(const uint8_t *data, size_t len)      \
	{                                                          \
		static struct type m, again;                       \
		int n = unpack_##fn(data, len, &m);                \
                                                                   \
		FUZZ_CHECK(n == 0 || n == -EPROTO);                \
		if (n)                                             \
			return;                                    \
		n = pack_##fn(&m, wire, sizeof wire);              \
		FUZZ_CHECK(n >= 0 && (size_t)n <= sizeof wire);    \
		FUZZ_CHECK(!unpack_##fn(wire, (size_t)n, &again)); \
		FUZZ_CHECK(!memcmp(&m, &again, sizeof m));         \
	}
PACK_KINDS(X)
#undef X

static void try_text(const uint8_t *data, size_t len)
{
	char s[256], clean[300];

	if (len >= sizeof s)
		len = sizeof s - 1;
	memcpy(s, data, len);
	s[len] = 0;
	text_clean(clean, sizeof clean, s, strlen(s));
	FUZZ_CHECK(text_is_clean(clean));
	if (len >= 2)
		pack_type_name((uint16_t)(data[0] | data[1] << 8));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
#define X(fn, type) try_##fn(data, len);
	PACK_KINDS(X)
#undef X
	try_text(data, len);
	return 0;
}

/* ---- seeds: a message of each kind ---- */
static void fill_counters(struct msg_counters *m, uint32_t n)
{
	m->n = n;
	for (uint32_t i = 0; i < n; i++) {
		snprintf(m->c[i].name, sizeof m->c[i].name, "counter-%u", i);
		m->c[i].value = 1ull << (i % 64);
	}
}

static int seed_vcpu_config(uint8_t *buf, uint32_t nfds)
{
	static struct msg_vcpu_config m;

	m = (struct msg_vcpu_config){.name = "vm1",
				     .ram_size = 64 << 20,
				     .cpus = {1, 2, 1},
				     .cmdline = "console=ttyS0 quiet",
				     .debug_exit = true,
				     .reboot = true,
				     .trace = 5,
				     .nfds = nfds};
	for (uint32_t i = 0; i < nfds; i++)
		m.fds[i] = (enum msg_fd)(FD_RAM + i);
	if (nfds >= FD_INITRD)
		m.nmodules = nfds - FD_INITRD < MSG_MODULES_MAX ? nfds - FD_INITRD + 1 : MSG_MODULES_MAX;
	return pack_vcpu_config(&m, buf, FUZZ_MAX_LEN);
}

static int seed_status(uint8_t *buf, uint32_t nprocs)
{
	static struct msg_status m;

	m = (struct msg_status){.name = "vm1",
				.state = "running",
				.console = "/dev/pts/3",
				.ram_size = 64 << 20,
				.uptime_ms = 123456,
				.cpus = {1, 1, 1},
				.boots = 1,
				.strict = true,
				.nprocs = nprocs};
	for (uint32_t i = 0; i < nprocs; i++) {
		snprintf(m.proc[i].name, sizeof m.proc[i].name, "hvx-%u", i);
		m.proc[i].pid = 1000 + i;
		m.proc[i].layers = 3;
	}
	return pack_status_reply(&m, buf, FUZZ_MAX_LEN);
}

static int seed_counters(uint8_t *buf, uint32_t n)
{
	static struct msg_counters m;

	memset(&m, 0, sizeof m);
	fill_counters(&m, n);
	return pack_vcpu_stats(&m, buf, FUZZ_MAX_LEN);
}

static int seed_dev_config(uint8_t *buf, enum msg_role kind)
{
	static struct msg_dev_config m;

	m = (struct msg_dev_config){
		.id = "card0",
		.ram_size = 64 << 20,
		.kind = kind,
		.blk = {.writeback = true, .queues = 2, .serial = "0123456789"},
		.net = {.backend = NET_PASST, .mac = {0x52, 1, 2, 3, 4, 5}, .mtu = 1500, .queues = 4},
		.limits = {1, 2, 3, 4}};
	for (unsigned i = DEV_FD_RAM; i < DEV_FD_OVERLAY; i++)
		m.fds[m.nfds++] = (enum msg_dev_fd)i;
	m.fds[m.nfds++] = DEV_FD_CALL;
	return pack_dev_config(&m, buf, FUZZ_MAX_LEN);
}

static int seed_invalidate(uint8_t *buf, uint32_t n)
{
	static struct msg_virtio_invalidate m;

	m = (struct msg_virtio_invalidate){.id = 1, .nranges = n};
	for (uint32_t i = 0; i < n; i++)
		m.range[i].gpa = i * 4096ull, m.range[i].len = 4096;
	return pack_virtio_invalidate(&m, buf, FUZZ_MAX_LEN);
}

#define SEED(fn, type, ...) pack_##fn(&(struct type){__VA_ARGS__}, buf, FUZZ_MAX_LEN)

/* Messages of cards; 0 when there are no more. */
static int seed_card(unsigned i, uint8_t *buf)
{
	switch (i) {
	case 0: return SEED(vcpu_device, msg_vcpu_device, "blk0", 1);
	case 1: return seed_dev_config(buf, ROLE_BLK);
	case 2: return seed_dev_config(buf, ROLE_NET);
	case 3: return SEED(dev_limits, msg_dev_limits, 1000, 100, 1 << 20, 1 << 16);
	case 4: return SEED(dev_command, msg_dev_command, DEV_OP_LINK_UP);
	case 5: return SEED(dev_event, msg_dev_event, DEV_EVENT_IO_ERROR, "write at byte 512: no space");
	case 6:
		return SEED(virtio_offer, msg_virtio_offer, .device_id = 2, .features = 1ull << 28, .nqueues = 2,
			    .queue_max = {128, 256}, .config_len = 60);
	case 7:
		return SEED(virtio_activate, msg_virtio_activate, .features = 1ull << 32, .nqueues = 2,
			    .queue = {{0, 128, 0x1000, 0x2000, 0x3000}, {1, 64, 0x4000, 0x5000, 0x6000}});
	case 8: return SEED(virtio_reset, msg_virtio_reset, 5);
	case 9: return SEED(virtio_config, msg_virtio_config, .offset = 32, .len = 1, .data = {1});
	case 10: return SEED(virtio_broken, msg_virtio_broken, "a chain with a loop");
	case 11: return seed_invalidate(buf, 3);
	case 12: return seed_invalidate(buf, MSG_RANGES_MAX);
	default: return 0;
	}
}

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	int n = -1;

	switch (i) {
	case 0: n = SEED(hello, msg_hello, 1, ROLE_VCPU, "0.1"); break;
	case 1: n = SEED(sealed, msg_sealed, 3, "landlock"); break;
	case 2: n = SEED(failed, msg_failed, 4, "kernel: the file is empty"); break;
	case 3:
		n = SEED(mem_config, msg_mem_config, .ram_size = 512 << 20, .rom_size = 2 << 20, .channel = true,
			 .merge = true, .rate = 20);
		break;
	case 4: n = SEED(mem_region, msg_mem_region, 64 << 20, shm_layout(64 << 20).total); break;
	case 5:
		n = SEED(mem_stats, msg_mem_stats, .pages_total = 131072, .pages_present = 1000, .sharing = 24,
			 .members = 2);
		break;
	case 6: n = seed_vcpu_config(buf, FD_COUNT - FD_RAM); break;
	case 7: n = seed_vcpu_config(buf, 3); break;
	case 8: n = SEED(vcpu_running, msg_vcpu_running, 1, WINDOW_KERNEL); break;
	case 9: n = SEED(vcpu_exit, msg_vcpu_exit, EXIT_DEBUG, 42); break;
	case 10: n = SEED(vcpu_command, msg_vcpu_command, OP_BALLOON, 64 << 20); break;
	case 11: n = SEED(vcpu_state, msg_vcpu_state, true, "watchdog"); break;
	case 12: n = seed_counters(buf, 5); break;
	case 13: n = seed_counters(buf, MSG_COUNTERS_MAX); break;
	case 14:
		n = SEED(request, msg_request_head, .version = 1, .op = REQ_LIMIT,
			 .limit = {"blk0", LIMIT_OPS | LIMIT_BYTES, {.ops = 1, .bytes = 2}});
		break;
	case 15: n = SEED(reply, msg_reply, 1, "no such VM"); break;
	case 16: n = seed_status(buf, 2); break;
	case 17: n = seed_status(buf, MSG_PROCS_MAX); break;
	case 18:
		n = SEED(mem_change, msg_mem_change, .id = 1, .op = MEM_OP_REPORT, .nranges = 2,
			 .range = {{5, 1}, {512, 512}});
		break;
	case 19: n = SEED(mem_changed, msg_mem_changed, 7); break;
	default: n = seed_card(i - 20, buf);
	}
	if (!n)
		return 0;
	FUZZ_CHECK(n > 0);
	return (size_t)n;
}

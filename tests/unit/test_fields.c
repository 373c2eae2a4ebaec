/*
 * The field tables of proto/: every field of the plain struct and of the .proto has its row, and each row refuses what is just
 * outside of the limits that are told here once more.
 */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/ipc.h"
#include "common/sandbox.h"
#include "proto/field.h"
#include "proto/shm.h"

#define X(fn, type) &fn##_table,
static const struct field_table *const tables[] = {PACK_KINDS(X) FIELD_PARTS(X)};
#undef X
#define TABLES (sizeof tables / sizeof tables[0])

static uint8_t buf[IPC_MAX_DATA];
static _Alignas(16) uint8_t host[1 << 17], back[1 << 17];

/* ---- every field has a row ---- */

static bool type_fits(const struct field *f, const ProtobufCFieldDescriptor *d)
{
	switch (f->kind) {
	case FIELD_NUM:
		return d->type == (f->size == 8   ? PROTOBUF_C_TYPE_UINT64
				   : f->size == 4 ? PROTOBUF_C_TYPE_UINT32
						  : PROTOBUF_C_TYPE_BOOL);
	case FIELD_BITS: return f->size == 4 && d->type == PROTOBUF_C_TYPE_UINT32;
	case FIELD_TEXT: return d->type == PROTOBUF_C_TYPE_STRING;
	case FIELD_STRING:
	case FIELD_EXACT:
	case FIELD_BYTES: return d->type == PROTOBUF_C_TYPE_BYTES;
	case FIELD_SUB:
	case FIELD_CASE:
		return d->type == PROTOBUF_C_TYPE_MESSAGE && d->descriptor == f->sub->wire && f->sub->size == f->size;
	}
	return false;
}

/* Rows that are not the field of their name in the .proto. */
static unsigned wire_faults(const struct field_table *t)
{
	unsigned bad = t->n != t->wire->n_fields;

	for (const struct field *f = t->rows; f < t->rows + t->n; f++) {
		const ProtobufCFieldDescriptor *d = protobuf_c_message_descriptor_get_field_by_name(t->wire, f->name);
		bad += !d || d->offset != f->wire || !type_fits(f, d) ||
		       f->list != (d->label == PROTOBUF_C_LABEL_REPEATED) ||
		       (f->list && d->quantifier_offset != f->wire_n) ||
		       f->oneof != !!(d->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) ||
		       (f->oneof && (d->quantifier_offset != f->wire_n || d->id != f->min));
	}
	return bad;
}

/* Fields of the plain struct that the rows fill; rows that overlap or leave it count as -100. */
static int host_fields(const struct field_table *t)
{
	int n = 0;

	for (const struct field *f = t->rows; f < t->rows + t->n; f++) {
		bool counts = f->list || f->kind == FIELD_BYTES || f->kind == FIELD_CASE;
		n += (f->beside || !f->size ? 0 : 1) + counts; /* those without arguments share an empty one */
		if (f->host + f->size + (f->list ? (f->at_most - 1) * f->stride : 0) > t->size)
			n -= 100;
		for (const struct field *o = t->rows; o < f; o++) {
			if (o->host < f->host + f->size && f->host < o->host + o->size)
				n -= 100;
			if (counts && o->host_n == f->host_n && (o->list || o->kind == FIELD_CASE)) {
				n--; /* one length, or one kind, for both */
				break;
			}
		}
	}
	return n;
}

/*
 * The compiler counts fields: an initializer with one value too few or too many for @type is an error.  So whoever adds a field
 * comes by here, and then has to add the row.
 */
#define HAS_FIELDS(id, type, count, ...)                               \
	do {                                                           \
		static struct type probe = {__VA_ARGS__};              \
		(void)probe;                                           \
		CU_ASSERT_EQUAL(host_fields(&id##_table), count);      \
		CU_ASSERT_EQUAL(id##_table.size, sizeof(struct type)); \
		checked++;                                             \
	} while (0)

static void test_covered(void)
{
	unsigned checked = 0;

	for (unsigned i = 0; i < TABLES; i++)
		CU_ASSERT_EQUAL(wire_faults(tables[i]), 0);
	HAS_FIELDS(hello, msg_hello, 3, 0, 0, {0});
	HAS_FIELDS(sealed, msg_sealed, 2, 0, {0});
	HAS_FIELDS(failed, msg_failed, 2, 0, {0});
	HAS_FIELDS(mem_config, msg_mem_config, 5, 0, 0, 0, 0, 0);
	HAS_FIELDS(mem_region, msg_mem_region, 2, 0, 0);
	HAS_FIELDS(mem_stats, msg_mem_stats, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
	HAS_FIELDS(mem_change, msg_mem_change, 4, 0, 0, 0, {});
	HAS_FIELDS(mem_changed, msg_mem_changed, 1, 0);
	HAS_FIELDS(mem_withdraw, msg_mem_withdraw, 4, 0, 0, 0, {});
	HAS_FIELDS(mem_withdrawn, msg_mem_withdrawn, 1, 0);
	HAS_FIELDS(mem_tune, msg_mem_tune, 2, 0, 0);
	HAS_FIELDS(mem_group, msg_mem_group, 1, 0);
	HAS_FIELDS(mem_join, msg_mem_join, 1, 0);
	HAS_FIELDS(stub_config, msg_stub_config, 1, 0);
	HAS_FIELDS(group_join, msg_group_join, 4, 0, {0}, 0, 0);
	HAS_FIELDS(group_joined, msg_group_joined, 2, 0, 0);
	HAS_FIELDS(group_info, msg_group_info, 9 + 1, {0}, 0, 0, 0, 0, 0, 0, 0, 0, {});
	HAS_FIELDS(group_member, msg_member, 1, {0});
	HAS_FIELDS(vcpu_config, msg_vcpu_config, 17, {0}, 0, {0}, {0}, 0, 0, 0, 0, 0, {}, 0, 0, {}, 0, 0, {}, {});
	HAS_FIELDS(vcpu_running, msg_vcpu_running, 2, 0, 0);
	HAS_FIELDS(vcpu_exit, msg_vcpu_exit, 2, 0, 0);
	HAS_FIELDS(vcpu_command, msg_vcpu_command, 2, 0, 0);
	HAS_FIELDS(vcpu_state, msg_vcpu_state, 2, 0, {0});
	HAS_FIELDS(vcpu_stats, msg_counters, 2, 0, {});
	HAS_FIELDS(vcpu_device, msg_vcpu_device, 2, {0}, 0);
	HAS_FIELDS(dev_config, msg_dev_config, 8, {0}, 0, 0, {}, 0, {}, {}, {});
	HAS_FIELDS(dev_limits, msg_dev_limits, 4, 0, 0, 0, 0);
	HAS_FIELDS(dev_command, msg_dev_command, 1, 0);
	HAS_FIELDS(dev_event, msg_dev_event, 2, 0, {0});
	HAS_FIELDS(dev_stats, msg_counters, 2, 0, {});
	HAS_FIELDS(virtio_offer, msg_virtio_offer, 6, 0, 0, 0, {}, 0, {});
	HAS_FIELDS(virtio_activate, msg_virtio_activate, 5, 0, 0, 0, 0, {});
	HAS_FIELDS(virtio_reset, msg_virtio_reset, 1, 0);
	HAS_FIELDS(virtio_config, msg_virtio_config, 3, 0, 0, {});
	HAS_FIELDS(virtio_broken, msg_virtio_broken, 1, {0});
	HAS_FIELDS(virtio_invalidate, msg_virtio_invalidate, 3, 0, 0, {});
	HAS_FIELDS(request, msg_request_head, 7, 0, 0, {}, {}, {}, {}, {}, {});
	HAS_FIELDS(vcpu_screen, msg_screen, 5, 0, 0, 0, 0, {});
	HAS_FIELDS(screen_reply, msg_screen, 5, 0, 0, 0, 0, {});
	HAS_FIELDS(reply, msg_reply, 2, 0, {0});
	HAS_FIELDS(status_reply, msg_status, 21, {0}, {0}, {0}, {0}, {0}, 0, 0, {0}, 0, 0, 0, 0, 0, {}, 0, {}, {0}, {0},
		   0, 0, 0);
	HAS_FIELDS(stats_reply, msg_counters, 2, 0, {});
	HAS_FIELDS(pages, msg_pages, 2, 0, 0);
	HAS_FIELDS(local, msg_local, 5, 0, 0, 0, 0, 0);
	HAS_FIELDS(cpus, msg_cpus, 3, 0, 0, 0);
	HAS_FIELDS(firmware, msg_firmware, 3, {0}, 0, 0);
	HAS_FIELDS(counter, msg_counter, 2, {0}, 0);
	HAS_FIELDS(named_counter, msg_counter, 2, {0}, 0);
	HAS_FIELDS(process, msg_process, 4, {0}, 0, 0, 0);
	HAS_FIELDS(nothing, msg_nothing, 0, );
	HAS_FIELDS(request_console, msg_request_console, 1, 0);
	HAS_FIELDS(rates, msg_dev_limits, 4, 0, 0, 0, 0);
	HAS_FIELDS(request_limit, msg_request_limit, 4, {0}, 0, {}, {});
	HAS_FIELDS(vm_limits, msg_vm_limits, 7, 0, 0, 0, 0, 0, {}, 0);
	HAS_FIELDS(limit_info, msg_limit_info, 4, {0}, 0, {0}, {0});
	HAS_FIELDS(request_link, msg_request_link, 2, {0}, 0);
	HAS_FIELDS(request_balloon, msg_request_balloon, 1, 0);
	HAS_FIELDS(request_resize, msg_request_resize, 2, 0, 0);
	HAS_FIELDS(blk_config, msg_blk_config, 8, 0, 0, 0, 0, 0, 0, 0, {0});
	HAS_FIELDS(net_config, msg_net_config, 5, 0, {}, 0, 0, 0);
	HAS_FIELDS(virtio_queue, msg_virtio_queue, 5, 0, 0, 0, 0, 0);
	HAS_FIELDS(range, msg_range, 2, 0, 0);
	CU_ASSERT_EQUAL(checked, TABLES);
}

/* ---- each row by itself ---- */

/* Every limit there is; a number that is not here may be anything. */
static const struct edge {
	const char *name;
	uint64_t lo, hi; /* of a text: lo is the shortest; of BITS: hi are those that may be set */
	uint32_t least;  /* of a list */
	bool once;
} edges[] = {
	{"hello.role", ROLE_MEMSVC, ROLE_STUB, 0, false},
	{"sealed.layers", 0, SANDBOX_ALL, 0, false},
	{"failed.status", 1, 255, 0, false},
	{"mem_config.ram_size", SHM_PAGE, SHM_MAX_RAM, 0, false},
	{"mem_config.rate", 0, MSG_MERGE_RATE_MAX, 0, false},
	{"stub_config.ram_size", SHM_PAGE, SHM_MAX_RAM, 0, false},
	{"mem_group.rate", 0, MSG_MERGE_RATE_MAX, 0, false},
	{"mem_join.ram_size", SHM_PAGE, SHM_MAX_RAM, 0, false},
	{"group_join.name", 1, 0, 0, false},
	{"group_join.ram_size", SHM_PAGE, SHM_MAX_RAM, 0, false},
	{"group_joined.layers", 0, SANDBOX_ALL, 0, false},
	{"group_info.name", 1, 0, 0, false},
	{"group_info.layers", 0, SANDBOX_ALL, 0, false},
	{"group_info.rate", 0, 10000, 0, false},
	{"group_member.name", 1, 0, 0, false},
	{"mem_tune.rate", 0, MSG_MERGE_RATE_MAX, 0, false},
	{"mem_tune.pressure", MEM_PRESSURE_SAME, MEM_PRESSURE_OVER, 0, false},
	{"mem_config.rom_size", 0, SHM_MAX_ROM, 0, false},
	{"mem_change.op", MEM_OP_BALLOON, MEM_OP_RETURN_ALL, 0, false},
	{"vcpu_config.ram_size", SHM_PAGE, SHM_MAX_RAM, 0, false},
	{"cpus.sockets", 1, MSG_CPUS_MAX, 0, false},
	{"cpus.cores", 1, MSG_CPUS_MAX, 0, false},
	{"cpus.threads", 1, MSG_CPUS_MAX, 0, false},
	{"vcpu_config.fds", FD_RAM, FD_STUB_LAST, 0, true},
	{"vcpu_config.devices", 0, MSG_DEVICES_MAX, 0, false},
	{"vcpu_config.windows", WINDOWS_AUTO, WINDOWS_KERNEL, 0, false},
	{"vcpu_config.direct", DIRECT_NEVER, DIRECT_ALWAYS, 0, false},
	{"vcpu_running.boots", 1, UINT32_MAX, 0, false},
	{"vcpu_running.windows", WINDOW_UNKNOWN, WINDOW_MERGED, 0, false},
	{"status_reply.windows", WINDOW_UNKNOWN, WINDOW_MERGED, 0, false},
	{"status_reply.direct", DIRECT_NEVER, DIRECT_ALWAYS, 0, false},
	{"vcpu_exit.kind", EXIT_POWEROFF, EXIT_DEBUG, 0, false},
	{"vcpu_exit.code", 0, 255, 0, false},
	{"vcpu_command.op", OP_PAUSE, OP_SCREEN, 0, false},
	{"vcpu_device.id", 1, 0, 0, false},
	{"vcpu_device.slot", 1, 30, 0, false},
	{"dev_config.id", 1, 0, 0, false},
	{"dev_config.ram_size", SHM_PAGE, SHM_MAX_RAM, 0, false},
	{"dev_config.fds", DEV_FD_RAM, DEV_FD_CALL_LAST, 0, true},
	{"dev_command.op", DEV_OP_RETRY, DEV_OP_LINK_DOWN, 0, false},
	{"dev_event.kind", DEV_EVENT_IO_ERROR, DEV_EVENT_LINK_LOST, 0, false},
	{"virtio_offer.device_id", 1, MSG_OFFER_ATAPI, 0, false},
	{"blk_config.bus", BLK_VIRTIO, BLK_BUSES - 1, 0, false},
	{"blk_config.queues", 1, MSG_PAIRS_MAX, 0, false},
	{"net_config.queues", 1, MSG_PAIRS_MAX, 0, false},
	{"virtio_offer.queue_max", 1, MSG_QUEUE_SIZE_MAX, 1, false},
	{"rates.ops", 0, MSG_RATE_MAX, 0, false},
	{"rates.ops_burst", 0, MSG_RATE_MAX, 0, false},
	{"rates.bytes", 0, MSG_RATE_MAX, 0, false},
	{"rates.bytes_burst", 0, MSG_RATE_MAX, 0, false},
	{"vm_limits.given", 0, VM_LIMIT_ALL, 0, false},
	{"vm_limits.merge", 0, MSG_MERGE_RATE_MAX, 0, false},
	{"vm_limits.cpu", 0, MSG_CPU_MAX, 0, false},
	{"vm_limits.weight", 0, MSG_WEIGHT_MAX, 0, false},
	{"vm_limits.pids", 0, MSG_PIDS_MAX, 0, false},
	{"limit_info.name", 1, 0, 0, false},
	{"request_limit.given", 0, LIMIT_ALL, 0, false},
	{"request_link.id", 1, 0, 0, false},
	{"request_balloon.bytes", MSG_BALLOON_MIN, SHM_MAX_RAM, 0, false},
	{"request_resize.columns", 0, UINT16_MAX, 0, false},
	{"request_resize.rows", 0, UINT16_MAX, 0, false},
	{"reply.status", 0, 255, 0, false},
	{"pages.first", 0, SHM_MAX_RAM / SHM_PAGE - 1, 0, false},
	{"pages.count", 1, SHM_MAX_RAM / SHM_PAGE, 0, false},
	{"local.rng_bytes", 0, MSG_RATE_MAX, 0, false},
	{"local.rng_burst", 0, MSG_RATE_MAX, 0, false},
	{"local.watchdog", WATCHDOG_OFF, WATCHDOG_NONE, 0, false},
	{"vcpu_screen.columns", 0, 132, 0, false},
	{"vcpu_screen.rows", 0, 60, 0, false},
	{"screen_reply.columns", 0, 132, 0, false},
	{"screen_reply.rows", 0, 60, 0, false},
	{"counter.name", 1, 0, 0, false},
	{"named_counter.name", 1, 0, 0, false},
	{"process.layers", 0, SANDBOX_ALL | SANDBOX_UNWANTED(SANDBOX_ALL), 0, false},
	{"net_config.backend", NET_PASST, NET_SWITCH, 0, false},
	{"net_config.mtu", 0, 65535, 0, false},
	{"virtio_queue.index", 0, MSG_QUEUES_MAX - 1, 0, false},
	{"virtio_queue.size", 1, MSG_QUEUE_SIZE_MAX, 0, false},
	{"range.len", 1, UINT64_MAX, 0, false},
};

static char what[80]; /* the row under test */

static struct edge edge_of(const struct field *f)
{
	const uint64_t most = f->size == 8 ? UINT64_MAX : f->size == 1 ? 1 : UINT32_MAX;

	for (unsigned i = 0; i < sizeof edges / sizeof edges[0]; i++)
		if (!strcmp(edges[i].name, what))
			return edges[i];
	return (struct edge){what, 0, f->kind == FIELD_TEXT ? 0 : most, 0, false};
}

/* Packs host by a table of @by alone, reads it by one of @f: is it let through? */
static bool through(const struct field_table *t, const struct field *by, const struct field *f)
{
	const struct field_table out = {t->name, t->wire, by, by ? 1 : 0, t->size, NULL};
	const struct field_table in = {t->name, t->wire, f, 1, t->size, NULL};
	int n = field_pack(&out, host, buf, sizeof buf);

	return n >= 0 && field_unpack(&in, buf, (size_t)n, back) == 0;
}

static void say(bool right, const char *why)
{
	if (!right)
		printf("\n  %s: %s\n", what, why);
	CU_ASSERT(right);
}

static void put(const struct field *f, unsigned i, uint64_t v)
{
	memcpy(host + f->host + i * f->stride, &v, f->size); /* little endian */
}

static void put_n(const struct field *f, uint32_t n)
{
	memcpy(host + f->host_n, &n, sizeof n);
}

static void try_number(const struct field_table *t, const struct field *f, const struct edge *e)
{
	const uint64_t most = f->size == 8 ? UINT64_MAX : UINT32_MAX;

	if (f->list)
		put_n(f, 1);
	put(f, 0, e->lo);
	say(through(t, f, f) && !memcmp(back + f->host, host + f->host, f->size), "the least is refused");
	put(f, 0, e->hi);
	say(through(t, f, f) && !memcmp(back + f->host, host + f->host, f->size), "the most is refused");
	put(f, 0, e->lo - 1);
	say(!e->lo || !through(t, f, f), "less than the least");
	put(f, 0, e->hi + 1);
	say(f->size == 1 || e->hi == most || !through(t, f, f), "more than the most");
	put(f, 0, e->lo);
}

static void try_bits(const struct field_table *t, const struct field *f, const struct edge *e)
{
	for (unsigned b = 0; b < 32; b++) {
		put(f, 0, 1u << b);
		say(through(t, f, f) == (e->hi >> b & 1), "a bit");
	}
}

static void try_text(const struct field_table *t, const struct field *f, const struct edge *e)
{
	char *s = (char *)host + f->host;

	say(through(t, f, f) == (e->lo == 0), "empty");
	memset(s, 'x', f->size);
	say(!through(t, f, f), "longer than its room");
	s[f->size - 1] = '\0';
	say(through(t, f, f) && !strcmp((char *)back + f->host, s), "as long as its room");
	strcpy(s, "a\x1b");
	say(through(t, f, f) == (f->kind == FIELD_STRING), "an escape");
}

/* Bytes of other lengths than the row's, which is EXACT, and a zero in the midst. */
static void try_bytes(const struct field_table *t, const struct field *f)
{
	struct field other = *f;

	other.kind = FIELD_EXACT;
	memset(host + f->host, 7, f->size + 1);
	say(through(t, &other, f) == (f->kind != FIELD_STRING), "its room, full");
	other.size++;
	say(!through(t, &other, f), "a byte too many");
	other.size = f->size - 1;
	say(through(t, &other, f) == (f->kind != FIELD_EXACT), "a byte less");
	host[f->host] = 0;
	say(!through(t, &other, f) || f->kind == FIELD_BYTES, "a zero");
}

/* Nothing there; and a part with a field that its .proto lacks, which alone makes the difference. */
static void try_part(const struct field_table *t, const struct field *f)
{
	const struct field_table lax = {f->sub->name, f->sub->wire, NULL, 0, f->sub->size, NULL};
	const unsigned id = protobuf_c_message_descriptor_get_field_by_name(t->wire, f->name)->id;
	struct field easy = *f;
	const struct field_table in = {t->name, t->wire, &easy, 1, t->size, NULL};
	const uint8_t raw[] = {(uint8_t)(id << 3 | 2), 2, 0x78, 1}, empty[] = {(uint8_t)(id << 3 | 2), 0};

	easy.sub = &lax;
	say(through(t, NULL, f) == (f->list || f->kind == FIELD_CASE), "absent");
	say(field_unpack(&in, empty, sizeof empty, back) == 0, "empty");
	say(field_unpack(&in, raw, sizeof raw, back) == -EPROTO, "unknown field of a part");
	if (f->kind == FIELD_CASE) {
		uint32_t kind;
		CU_ASSERT_EQUAL(field_unpack(&in, empty, sizeof empty, back), 0);
		memcpy(&kind, back + f->host_n, 4);
		CU_ASSERT_EQUAL(kind, f->min);
	}
}

/* The names of a kernel's modules and their arguments are two lists of one length. */
static void test_beside(void)
{
	struct field rows[2];
	unsigned n = 0;

	for (unsigned i = 0; i < vcpu_config_table.n; i++)
		if (vcpu_config_table.rows[i].kind == FIELD_STRING && vcpu_config_table.rows[i].list)
			rows[n++] = vcpu_config_table.rows[i];
	CU_ASSERT_EQUAL_FATAL(n, 2);
	const struct field_table t = {"", vcpu_config_table.wire, rows, 2, vcpu_config_table.size, NULL};
	CU_ASSERT_EQUAL(field_unpack(&t, (const uint8_t *)"\x5a\0\x62\0", 4, back), 0);
	CU_ASSERT_EQUAL(((struct msg_vcpu_config *)back)->nmodules, 1);
	CU_ASSERT_EQUAL(field_unpack(&t, (const uint8_t *)"\x5a\0\x62\0\x62\0", 6, back), -EPROTO);
	CU_ASSERT_EQUAL(field_unpack(&t, (const uint8_t *)"\x5a\0", 2, back), -EPROTO);
	CU_ASSERT_EQUAL(field_unpack(&t, (const uint8_t *)"\x62\0", 2, back), -EPROTO);
}

/* How many, with elements that may be anything. */
static void try_list(const struct field_table *t, const struct field *f, const struct edge *e)
{
	const struct field_table lax = {"", f->sub ? f->sub->wire : NULL, NULL, 0, f->sub ? f->sub->size : 0, NULL};
	struct field easy = *f, wide;

	easy.sub = f->sub ? &lax : NULL;
	easy.ok = NULL, easy.min = 0, easy.max = UINT64_MAX, easy.once = easy.beside = false;
	wide = easy;
	wide.at_most++;
	memset(host, 0, sizeof host);
	for (uint32_t n = 0; n <= f->at_most + 1; n++) {
		put_n(f, n);
		say(through(t, &wide, &easy) == (n >= e->least && n <= f->at_most), "how many");
		say(through(t, &easy, &easy) == (n >= e->least && n <= f->at_most), "how many, to pack");
	}
	const struct field_table out = {t->name, t->wire, &easy, 1, t->size, NULL};
	say(field_pack(&out, host, buf, sizeof buf) == -EMSGSIZE, "packs more than it has");
	if (f->kind == FIELD_NUM) {
		put_n(f, 2);
		put(f, 0, e->lo);
		put(f, 1, e->lo);
		say(through(t, f, f) == !e->once, "twice");
		put(f, 1, e->hi);
		say(through(t, f, f), "two of them");
	}
}

static void try_row(const struct field_table *t, const struct field *f)
{
	snprintf(what, sizeof what, "%s.%s", t->name, f->name);
	const struct edge e = edge_of(f);

	memset(host, 0, sizeof host);
	switch (f->kind) {
	case FIELD_NUM: try_number(t, f, &e); break;
	case FIELD_BITS: try_bits(t, f, &e); break;
	case FIELD_STRING:
		if (!f->list)
			try_bytes(t, f);
		/* fall through */
	case FIELD_TEXT:
		memset(host, 0, sizeof host);
		if (!f->list)
			try_text(t, f, &e);
		break;
	case FIELD_EXACT:
	case FIELD_BYTES: try_bytes(t, f); break;
	case FIELD_SUB:
	case FIELD_CASE: try_part(t, f); break;
	}
	if (f->list)
		try_list(t, f, &e);
}

static void test_rows(void)
{
	unsigned found = 0;

	for (unsigned i = 0; i < TABLES; i++)
		for (const struct field *f = tables[i]->rows; f < tables[i]->rows + tables[i]->n; f++) {
			try_row(tables[i], f);
			found += edge_of(f).name != what;
		}
	CU_ASSERT_EQUAL(found, sizeof edges / sizeof edges[0]); /* none names a row that is gone */
}

static void test_unknown(void)
{
	for (unsigned i = 0; i < TABLES; i++) {
		const struct field_table lax = {"", tables[i]->wire, NULL, 0, tables[i]->size, NULL};
		CU_ASSERT_EQUAL(field_unpack(&lax, buf, 0, back), 0);
		CU_ASSERT_EQUAL(field_unpack(&lax, (const uint8_t *)"\x78\x01", 2, back), -EPROTO);
	}
}

/* Of the two kinds of card exactly one: neither, both. */
static void test_case(void)
{
	static const struct field_table lax = {"", NULL, NULL, 0, 0, NULL};
	struct field_table blk = lax, net = lax;
	struct field rows[2];
	unsigned n = 0;

	for (unsigned i = 0; i < dev_config_table.n; i++)
		if (dev_config_table.rows[i].kind == FIELD_CASE)
			rows[n++] = dev_config_table.rows[i];
	CU_ASSERT_EQUAL_FATAL(n, 2);
	blk.wire = rows[0].sub->wire, rows[0].sub = &blk;
	net.wire = rows[1].sub->wire, rows[1].sub = &net;
	const struct field_table t = {"", dev_config_table.wire, rows, 2, dev_config_table.size, NULL};
	CU_ASSERT_EQUAL(field_unpack(&t, (const uint8_t *)"\x22\0", 2, back), 0);
	CU_ASSERT_EQUAL(((struct msg_dev_config *)back)->kind, ROLE_BLK);
	CU_ASSERT_EQUAL(field_unpack(&t, (const uint8_t *)"\x2a\0", 2, back), 0);
	CU_ASSERT_EQUAL(((struct msg_dev_config *)back)->kind, ROLE_NET);
	CU_ASSERT_EQUAL(field_unpack(&t, (const uint8_t *)"\x22\0\x2a\0", 4, back), -EPROTO);
}

/* A request is one of its kinds, whose arguments alone are filled; none is no request. */
static void test_oneof(void)
{
	static struct msg_request_head in, out;

	for (int op = REQ_STATUS; op < REQ_COUNT; op++) {
		in = (struct msg_request_head){.version = 1,
					       .op = (enum msg_request)op,
					       .console = {true},
					       .limit = {"blk0", LIMIT_BYTES, {.bytes = 5}},
					       .link = {"net0", true},
					       .balloon = {MSG_BALLOON_MIN},
					       .resize = {80, 25}};
		int n = pack_request(&in, buf, sizeof buf);
		CU_ASSERT_FATAL(n > 0);
		CU_ASSERT_EQUAL(unpack_request(buf, (size_t)n, &out), 0);
		CU_ASSERT_EQUAL(out.op, (enum msg_request)op);
		CU_ASSERT_EQUAL(out.console.second, op == REQ_CONSOLE);
		CU_ASSERT_EQUAL(out.limit.limits.bytes, op == REQ_LIMIT ? 5 : 0);
		CU_ASSERT_EQUAL(out.link.up, op == REQ_LINK);
		CU_ASSERT_EQUAL(out.balloon.bytes, op == REQ_BALLOON ? MSG_BALLOON_MIN : 0);
		CU_ASSERT_EQUAL(out.resize.columns, op == REQ_RESIZE ? 80 : 0);
	}
	CU_ASSERT_EQUAL(unpack_request((const uint8_t *)"\x08\x01", 2, &out), -EPROTO);
	in.op = REQ_LIMIT;
	in.limit.limits.ops = MSG_RATE_MAX + 1; /* a client's rates have a limit, the monitor's own have none */
	int n = pack_request(&in, buf, sizeof buf);
	CU_ASSERT_EQUAL(unpack_request(buf, (size_t)n, &out), -EPROTO);
}

static int limit_request(const char *id, uint32_t given, uint32_t vm)
{
	struct msg_request_head in = {.version = 1, .op = REQ_LIMIT, .limit = {.given = given, .vm = {.given = vm}}},
				out;

	snprintf(in.limit.id, sizeof in.limit.id, "%s", id);
	int n = pack_request(&in, buf, sizeof buf);
	return n < 0 ? n : unpack_request(buf, (size_t)n, &out);
}

/* A limit is a device's or the VM's. */
static void test_limit(void)
{
	CU_ASSERT_EQUAL(limit_request("blk0", LIMIT_OPS, 0), 0);
	CU_ASSERT_EQUAL(limit_request("", 0, VM_LIMIT_CPU), 0);
	CU_ASSERT_EQUAL(limit_request("blk0", LIMIT_OPS, VM_LIMIT_CPU), -EPROTO);
	CU_ASSERT_EQUAL(limit_request("", LIMIT_OPS, VM_LIMIT_CPU), -EPROTO);
	CU_ASSERT_EQUAL(limit_request("", 0, 0), -EPROTO);
}

CU_ErrorCode suite_fields(void)
{
	CU_pSuite s = CU_add_suite("fields", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_covered) || !CU_ADD_TEST(s, test_rows) || !CU_ADD_TEST(s, test_unknown) ||
	    !CU_ADD_TEST(s, test_case) || !CU_ADD_TEST(s, test_beside) || !CU_ADD_TEST(s, test_oneof) ||
	    !CU_ADD_TEST(s, test_limit))
		return CU_get_error();
	return CUE_SUCCESS;
}

/*
 * Wire to validated plain struct, and back.  Invariant: what unpack_x() lets
 * through is in range in every field, terminated in every string, and re-packs to a
 * message this file would accept; unknown fields are an error, since both ends
 * speak the same version.
 */
#include "proto/pack.h"

#include <errno.h>
#include <string.h>

#include "common/ipc.h"
#include "common/sandbox.h"
#include "proto/shm.h"

#include "proto/pack_wire.h"

#include "control.pb-c.h"
#include "hello.pb-c.h"
#include "memsvc.pb-c.h"
#include "vcpu.pb-c.h"

const char *pack_type_name(uint16_t type)
{
	switch (type) {
#define X(n, v) \
	case v: return #n;
		MSG_TYPES(X)
#undef X
	default: return NULL;
	}
}

/* ---- hello.proto ---- */

int pack_hello(const struct msg_hello *m, uint8_t *buf, size_t len)
{
	Hvx__Hello w = HVX__HELLO__INIT;

	w.version = m->version;
	w.role = m->role;
	w.release = str(m->release);
	return put(&w.base, buf, len);
}

int unpack_hello(const uint8_t *buf, size_t len, struct msg_hello *m)
{
	UNPACK_BEGIN(Hello, hello);
	UNPACK_NEED(w->role >= ROLE_MEMSVC && w->role < ROLE_CLIENT);
	UNPACK_NEED(copy_text(m->release, sizeof m->release, w->release));
	m->version = w->version;
	m->role = w->role;
	UNPACK_END();
}

int pack_sealed(const struct msg_sealed *m, uint8_t *buf, size_t len)
{
	Hvx__Sealed w = HVX__SEALED__INIT;

	w.layers = m->layers;
	w.missing = str(m->missing);
	return put(&w.base, buf, len);
}

int unpack_sealed(const uint8_t *buf, size_t len, struct msg_sealed *m)
{
	UNPACK_BEGIN(Sealed, sealed);
	UNPACK_NEED(!(w->layers & ~SANDBOX_ALL));
	UNPACK_NEED(copy_text(m->missing, sizeof m->missing, w->missing));
	m->layers = w->layers;
	UNPACK_END();
}

int pack_failed(const struct msg_failed *m, uint8_t *buf, size_t len)
{
	Hvx__Failed w = HVX__FAILED__INIT;

	w.status = m->status;
	w.text = str(m->text);
	return put(&w.base, buf, len);
}

int unpack_failed(const uint8_t *buf, size_t len, struct msg_failed *m)
{
	UNPACK_BEGIN(Failed, failed);
	UNPACK_NEED(w->status > 0 && w->status < 256);
	UNPACK_NEED(copy_text(m->text, sizeof m->text, w->text));
	m->status = w->status;
	UNPACK_END();
}

/* ---- memsvc.proto ---- */

int pack_mem_config(const struct msg_mem_config *m, uint8_t *buf, size_t len)
{
	Hvx__MemConfig w = HVX__MEM_CONFIG__INIT;

	w.ram_size = m->ram_size;
	w.balloon = m->balloon;
	return put(&w.base, buf, len);
}

int unpack_mem_config(const uint8_t *buf, size_t len, struct msg_mem_config *m)
{
	UNPACK_BEGIN(MemConfig, mem_config);
	UNPACK_NEED(ram_size_ok(w->ram_size));
	m->ram_size = w->ram_size;
	m->balloon = w->balloon;
	UNPACK_END();
}

int pack_mem_region(const struct msg_mem_region *m, uint8_t *buf, size_t len)
{
	Hvx__MemRegion w = HVX__MEM_REGION__INIT;

	w.ram_size = m->ram_size;
	w.control_size = m->control_size;
	return put(&w.base, buf, len);
}

int unpack_mem_region(const uint8_t *buf, size_t len, struct msg_mem_region *m)
{
	UNPACK_BEGIN(MemRegion, mem_region);
	UNPACK_NEED(ram_size_ok(w->ram_size));
	UNPACK_NEED(w->control_size == shm_layout(w->ram_size).total);
	m->ram_size = w->ram_size;
	m->control_size = w->control_size;
	UNPACK_END();
}

int pack_mem_stats(const struct msg_mem_stats *m, uint8_t *buf, size_t len)
{
	Hvx__MemStats w = HVX__MEM_STATS__INIT;

	w.pages_total = m->pages_total;
	w.pages_present = m->pages_present;
	w.host_bytes = m->host_bytes;
	w.pages_ballooned = m->pages_ballooned;
	w.pages_punched = m->pages_punched;
	return put(&w.base, buf, len);
}

int unpack_mem_stats(const uint8_t *buf, size_t len, struct msg_mem_stats *m)
{
	UNPACK_BEGIN(MemStats, mem_stats);
	UNPACK_NEED(w->pages_present <= w->pages_total && w->pages_ballooned <= w->pages_total);
	m->pages_total = w->pages_total;
	m->pages_present = w->pages_present;
	m->host_bytes = w->host_bytes;
	m->pages_ballooned = w->pages_ballooned;
	m->pages_punched = w->pages_punched;
	UNPACK_END();
}

int pack_mem_change(const struct msg_mem_change *m, uint8_t *buf, size_t len)
{
	Hvx__MemChange w = HVX__MEM_CHANGE__INIT;
	Hvx__MemRange r[MSG_RANGES_MAX], *p[MSG_RANGES_MAX];

	for (uint32_t i = 0; i < m->nranges; i++) {
		hvx__mem_range__init(&r[i]);
		r[i].first = m->range[i].first;
		r[i].count = m->range[i].count;
		p[i] = &r[i];
	}
	w.id = m->id;
	w.op = m->op;
	w.n_ranges = m->nranges;
	w.ranges = p;
	return put(&w.base, buf, len);
}

static bool page_range_ok(const Hvx__MemRange *r)
{
	const uint64_t max = SHM_MAX_RAM / SHM_PAGE;

	return known_only(&r->base) && r->count && r->count <= max && r->first <= max - r->count;
}

int unpack_mem_change(const uint8_t *buf, size_t len, struct msg_mem_change *m)
{
	UNPACK_BEGIN(MemChange, mem_change);
	UNPACK_NEED(w->op >= MEM_OP_BALLOON && w->op < MEM_OP_COUNT);
	UNPACK_NEED(w->n_ranges <= MSG_RANGES_MAX && (w->n_ranges == 0) == (w->op == MEM_OP_RETURN_ALL));
	for (size_t i = 0; i < w->n_ranges; i++) {
		UNPACK_NEED(page_range_ok(w->ranges[i]));
		m->range[i].first = w->ranges[i]->first;
		m->range[i].count = w->ranges[i]->count;
	}
	m->id = w->id;
	m->op = w->op;
	m->nranges = (uint32_t)w->n_ranges;
	UNPACK_END();
}

int pack_mem_changed(const struct msg_mem_changed *m, uint8_t *buf, size_t len)
{
	Hvx__MemChanged w = HVX__MEM_CHANGED__INIT;

	w.id = m->id;
	return put(&w.base, buf, len);
}

int unpack_mem_changed(const uint8_t *buf, size_t len, struct msg_mem_changed *m)
{
	UNPACK_BEGIN(MemChanged, mem_changed);
	m->id = w->id;
	UNPACK_END();
}

/* ---- vcpu.proto ---- */

static void local_out(const struct msg_local *m, Hvx__LocalDevices *w)
{
	hvx__local_devices__init(w);
	w->rng = m->rng;
	w->rng_bytes = m->rng_bytes;
	w->rng_burst = m->rng_burst;
	w->balloon = m->balloon;
	w->watchdog = m->watchdog;
}

static bool local_in(const Hvx__LocalDevices *w, struct msg_local *m)
{
	if (!w)
		return false;
	m->rng = w->rng;
	m->rng_bytes = w->rng_bytes;
	m->rng_burst = w->rng_burst;
	m->balloon = w->balloon;
	m->watchdog = w->watchdog;
	return known_only(&w->base) && (w->rng_bytes | w->rng_burst) <= MSG_RATE_MAX && w->watchdog < WATCHDOG_COUNT;
}

static ProtobufCBinaryData bytes_of(const char *s)
{
	return (ProtobufCBinaryData){strlen(s), (uint8_t *)str(s)};
}

int pack_vcpu_config(const struct msg_vcpu_config *m, uint8_t *buf, size_t len)
{
	Hvx__VcpuConfig w = HVX__VCPU_CONFIG__INIT;
	Hvx__LocalDevices local;
	ProtobufCBinaryData names[MSG_MODULES_MAX], args[MSG_MODULES_MAX];
	uint32_t fds[MSG_FDS_MAX];

	for (uint32_t i = 0; i < m->nfds; i++)
		fds[i] = m->fds[i];
	for (uint32_t i = 0; i < m->nmodules; i++) {
		names[i] = bytes_of(m->module[i].name);
		args[i] = bytes_of(m->module[i].args);
	}
	w.n_module_names = w.n_module_args = m->nmodules;
	w.module_names = names;
	w.module_args = args;
	w.name = str(m->name);
	w.ram_size = m->ram_size;
	w.cpus = m->cpus;
	w.cmdline = bytes_of(m->cmdline);
	w.debug_exit = m->debug_exit;
	w.exact_flags = m->exact_flags;
	w.reboot = m->reboot;
	w.trace = m->trace;
	w.devices = m->devices;
	local_out(&m->local, &local);
	w.local = &local;
	w.n_fds = m->nfds;
	w.fds = fds;
	return put(&w.base, buf, len);
}

static bool fds_ok(const Hvx__VcpuConfig *w, struct msg_vcpu_config *m)
{
	const uint32_t initrds = ((1u << MSG_MODULES_MAX) - 1) << FD_INITRD;
	uint32_t seen = 0;

	if (w->n_fds > MSG_FDS_MAX)
		return false;
	for (size_t i = 0; i < w->n_fds; i++) {
		uint32_t k = w->fds[i];
		if (k == 0 || k >= FD_COUNT || (seen & (1u << k)))
			return false;
		seen |= 1u << k;
		m->fds[i] = k;
	}
	m->nfds = (uint32_t)w->n_fds;
	const uint32_t need = 1u << FD_RAM | 1u << FD_CONTROL | 1u << FD_KERNEL;
	return (seen & need) == need && (seen & initrds) == ((1u << m->nmodules) - 1) << FD_INITRD;
}

/* An absent one has no data at all; @dst is zeroed. */
static bool copy_cmdline(char *dst, size_t room, const ProtobufCBinaryData *src)
{
	if (!src->len)
		return true;
	if (src->len >= room || memchr(src->data, 0, src->len))
		return false;
	memcpy(dst, src->data, src->len);
	return true;
}

static bool modules_in(const Hvx__VcpuConfig *w, struct msg_vcpu_config *m)
{
	if (w->n_module_names > MSG_MODULES_MAX || w->n_module_args != w->n_module_names)
		return false;
	m->nmodules = (uint32_t)w->n_module_names;
	for (uint32_t i = 0; i < m->nmodules; i++) {
		struct msg_module *d = &m->module[i];

		if (!copy_cmdline(d->name, sizeof d->name, &w->module_names[i]) ||
		    !copy_cmdline(d->args, sizeof d->args, &w->module_args[i]))
			return false;
	}
	return true;
}

int unpack_vcpu_config(const uint8_t *buf, size_t len, struct msg_vcpu_config *m)
{
	UNPACK_BEGIN(VcpuConfig, vcpu_config);
	UNPACK_NEED(ram_size_ok(w->ram_size));
	UNPACK_NEED(w->cpus >= 1 && w->cpus <= 64);
	UNPACK_NEED(copy_text(m->name, sizeof m->name, w->name));
	UNPACK_NEED(copy_cmdline(m->cmdline, sizeof m->cmdline, &w->cmdline));
	UNPACK_NEED(modules_in(w, m));
	UNPACK_NEED(fds_ok(w, m));
	UNPACK_NEED(w->devices <= MSG_DEVICES_MAX);
	UNPACK_NEED(local_in(w->local, &m->local));
	m->devices = w->devices;
	m->ram_size = w->ram_size;
	m->cpus = w->cpus;
	m->debug_exit = w->debug_exit;
	m->exact_flags = w->exact_flags;
	m->reboot = w->reboot;
	m->trace = w->trace;
	UNPACK_END();
}

int pack_vcpu_running(const struct msg_vcpu_running *m, uint8_t *buf, size_t len)
{
	Hvx__VcpuRunning w = HVX__VCPU_RUNNING__INIT;

	w.boots = m->boots;
	return put(&w.base, buf, len);
}

int unpack_vcpu_running(const uint8_t *buf, size_t len, struct msg_vcpu_running *m)
{
	UNPACK_BEGIN(VcpuRunning, vcpu_running);
	UNPACK_NEED(w->boots > 0);
	m->boots = w->boots;
	UNPACK_END();
}

int pack_vcpu_exit(const struct msg_vcpu_exit *m, uint8_t *buf, size_t len)
{
	Hvx__VcpuExit w = HVX__VCPU_EXIT__INIT;

	w.kind = m->kind;
	w.code = m->code;
	return put(&w.base, buf, len);
}

int unpack_vcpu_exit(const uint8_t *buf, size_t len, struct msg_vcpu_exit *m)
{
	UNPACK_BEGIN(VcpuExit, vcpu_exit);
	UNPACK_NEED(w->kind >= EXIT_POWEROFF && w->kind < EXIT_COUNT);
	UNPACK_NEED(w->code < 256);
	m->kind = w->kind;
	m->code = w->code;
	UNPACK_END();
}

int pack_vcpu_command(const struct msg_vcpu_command *m, uint8_t *buf, size_t len)
{
	Hvx__VcpuCommand w = HVX__VCPU_COMMAND__INIT;

	w.op = m->op;
	w.value = m->value;
	return put(&w.base, buf, len);
}

int unpack_vcpu_command(const uint8_t *buf, size_t len, struct msg_vcpu_command *m)
{
	UNPACK_BEGIN(VcpuCommand, vcpu_command);
	UNPACK_NEED(w->op >= OP_PAUSE && w->op < OP_COUNT);
	m->op = w->op;
	m->value = w->value;
	UNPACK_END();
}

int pack_vcpu_state(const struct msg_vcpu_state *m, uint8_t *buf, size_t len)
{
	Hvx__VcpuState w = HVX__VCPU_STATE__INIT;

	w.paused = m->paused;
	w.reason = str(m->reason);
	return put(&w.base, buf, len);
}

int unpack_vcpu_state(const uint8_t *buf, size_t len, struct msg_vcpu_state *m)
{
	UNPACK_BEGIN(VcpuState, vcpu_state);
	UNPACK_NEED(copy_text(m->reason, sizeof m->reason, w->reason));
	m->paused = w->paused;
	UNPACK_END();
}

int pack_vcpu_stats(const struct msg_counters *m, uint8_t *buf, size_t len)
{
	Hvx__VcpuStats w = HVX__VCPU_STATS__INIT;
	Hvx__Counter c[MSG_COUNTERS_MAX], *p[MSG_COUNTERS_MAX];

	counters_out(m, c, p);
	w.n_counters = m->n;
	w.counters = p;
	return put(&w.base, buf, len);
}

int unpack_vcpu_stats(const uint8_t *buf, size_t len, struct msg_counters *m)
{
	UNPACK_BEGIN(VcpuStats, vcpu_stats);
	UNPACK_NEED(counters_in(w->n_counters, w->counters, false, m));
	UNPACK_END();
}

/* ---- control.proto ---- */

int pack_request(const struct msg_request_head *m, uint8_t *buf, size_t len)
{
	Hvx__Request w = HVX__REQUEST__INIT;

	w.version = m->version;
	w.op = m->op;
	w.id = str(m->id);
	w.text = str(m->text);
	return put(&w.base, buf, len);
}

int unpack_request(const uint8_t *buf, size_t len, struct msg_request_head *m)
{
	UNPACK_BEGIN(Request, request);
	UNPACK_NEED(w->op >= REQ_STATUS && w->op < REQ_COUNT);
	UNPACK_NEED(copy_text(m->id, sizeof m->id, w->id) && copy_text(m->text, sizeof m->text, w->text));
	m->version = w->version;
	m->op = w->op;
	UNPACK_END();
}

int pack_reply(const struct msg_reply *m, uint8_t *buf, size_t len)
{
	Hvx__Reply w = HVX__REPLY__INIT;

	w.status = m->status;
	w.text = str(m->text);
	return put(&w.base, buf, len);
}

int unpack_reply(const uint8_t *buf, size_t len, struct msg_reply *m)
{
	UNPACK_BEGIN(Reply, reply);
	UNPACK_NEED(w->status < 256);
	UNPACK_NEED(copy_text(m->text, sizeof m->text, w->text));
	m->status = w->status;
	UNPACK_END();
}

int pack_status_reply(const struct msg_status *m, uint8_t *buf, size_t len)
{
	Hvx__StatusReply w = HVX__STATUS_REPLY__INIT;
	Hvx__ProcessInfo info[MSG_PROCS_MAX], *p[MSG_PROCS_MAX];

	for (uint32_t i = 0; i < m->nprocs; i++) {
		hvx__process_info__init(&info[i]);
		info[i].name = str(m->proc[i].name);
		info[i].pid = m->proc[i].pid;
		info[i].layers = m->proc[i].layers;
		info[i].silent = m->proc[i].silent;
		p[i] = &info[i];
	}
	w.name = str(m->name);
	w.state = str(m->state);
	w.console = str(m->console);
	w.second_console = str(m->second);
	w.reason = str(m->reason);
	w.ram_size = m->ram_size;
	w.uptime_ms = m->uptime_ms;
	w.cpus = m->cpus;
	w.boots = m->boots;
	w.strict = m->strict;
	w.n_processes = m->nprocs;
	w.processes = p;
	return put(&w.base, buf, len);
}

static bool procs_in(const Hvx__StatusReply *w, struct msg_status *m)
{
	if (w->n_processes > MSG_PROCS_MAX)
		return false;
	for (size_t i = 0; i < w->n_processes; i++) {
		const Hvx__ProcessInfo *p = w->processes[i];
		if (!known_only(&p->base) || (p->layers & ~(SANDBOX_ALL | SANDBOX_UNWANTED(SANDBOX_ALL))) ||
		    !copy_text(m->proc[i].name, sizeof m->proc[i].name, p->name))
			return false;
		m->proc[i].pid = p->pid;
		m->proc[i].layers = p->layers;
		m->proc[i].silent = p->silent;
	}
	m->nprocs = (uint32_t)w->n_processes;
	return true;
}

int unpack_status_reply(const uint8_t *buf, size_t len, struct msg_status *m)
{
	UNPACK_BEGIN(StatusReply, status_reply);
	UNPACK_NEED(copy_text(m->name, sizeof m->name, w->name));
	UNPACK_NEED(copy_text(m->state, sizeof m->state, w->state));
	UNPACK_NEED(copy_text(m->console, sizeof m->console, w->console));
	UNPACK_NEED(copy_text(m->second, sizeof m->second, w->second_console));
	UNPACK_NEED(copy_text(m->reason, sizeof m->reason, w->reason));
	UNPACK_NEED(procs_in(w, m));
	m->ram_size = w->ram_size;
	m->uptime_ms = w->uptime_ms;
	m->cpus = w->cpus;
	m->boots = w->boots;
	m->strict = w->strict;
	UNPACK_END();
}

int pack_stats_reply(const struct msg_counters *m, uint8_t *buf, size_t len)
{
	Hvx__StatsReply w = HVX__STATS_REPLY__INIT;
	Hvx__Counter c[MSG_COUNTERS_MAX], *p[MSG_COUNTERS_MAX];

	counters_out(m, c, p);
	w.n_counters = m->n;
	w.counters = p;
	return put(&w.base, buf, len);
}

int unpack_stats_reply(const uint8_t *buf, size_t len, struct msg_counters *m)
{
	UNPACK_BEGIN(StatsReply, stats_reply);
	UNPACK_NEED(counters_in(w->n_counters, w->counters, true, m));
	UNPACK_END();
}

int unpack_empty(size_t len)
{
	return len == 0 ? 0 : -EPROTO;
}

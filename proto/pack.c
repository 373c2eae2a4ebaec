/*
 * The messages of hello.proto, memsvc.proto, vcpu.proto and control.proto: a table of fields for each.  Invariant: a row says
 * all that a field may be; what a function checks is only how fields depend on each other.
 */
#include "proto/pack.h"

#include <errno.h>
#include <string.h>

#include "common/sandbox.h"
#include "proto/field.h"
#include "proto/shm.h"

#include "control.pb-c.h"
#include "device.pb-c.h"
#include "group.pb-c.h"
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

int unpack_empty(size_t len)
{
	return len == 0 ? 0 : -EPROTO;
}

bool field_ram_size(uint64_t n)
{
	return n && n <= SHM_MAX_RAM && n % SHM_PAGE == 0;
}

/* ---- hello.proto ---- */

static const struct field hello_rows[] = {
	ANY(Hello, msg_hello, version),
	NUM(Hello, msg_hello, role, ROLE_MEMSVC, ROLE_CLIENT - 1),
	TEXT(Hello, msg_hello, release),
};
MESSAGE(hello, Hello, hello, msg_hello, NULL)

static const struct field sealed_rows[] = {
	BITS(Sealed, msg_sealed, layers, SANDBOX_ALL),
	TEXT(Sealed, msg_sealed, missing),
};
MESSAGE(sealed, Sealed, sealed, msg_sealed, NULL)

static const struct field failed_rows[] = {
	NUM(Failed, msg_failed, status, 1, 255),
	TEXT(Failed, msg_failed, text),
};
MESSAGE(failed, Failed, failed, msg_failed, NULL)

/* ---- memsvc.proto ---- */

/* Merging needs the vcpu. */
static bool mem_config_ok(const void *p)
{
	const struct msg_mem_config *m = p;

	return m->channel || !m->merge;
}

static const struct field mem_config_rows[] = {
	NUM_IF(MemConfig, msg_mem_config, ram_size, field_ram_size),
	FLAG(MemConfig, msg_mem_config, channel),
	FLAG(MemConfig, msg_mem_config, merge),
	NUM(MemConfig, msg_mem_config, rate, 0, MSG_MERGE_RATE_MAX),
	NUM(MemConfig, msg_mem_config, rom_size, 0, SHM_MAX_ROM),
};
MESSAGE(mem_config, MemConfig, mem_config, msg_mem_config, mem_config_ok)

static bool region_ok(const void *p)
{
	const struct msg_mem_region *m = p;

	return m->ram_size <= SHM_MAX_RAM + SHM_MAX_ROM && m->ram_size % SHM_PAGE == 0 && m->ram_size &&
	       m->control_size == shm_layout(m->ram_size).total;
}

static const struct field mem_region_rows[] = {
	ANY(MemRegion, msg_mem_region, ram_size),
	ANY(MemRegion, msg_mem_region, control_size),
};
MESSAGE(mem_region, MemRegion, mem_region, msg_mem_region, region_ok)

static bool mem_stats_ok(const void *p)
{
	const struct msg_mem_stats *m = p;

	return m->pages_present <= m->pages_total && m->pages_ballooned <= m->pages_total &&
	       m->sharing <= m->pages_total;
}

static const struct field mem_stats_rows[] = {
	ANY(MemStats, msg_mem_stats, pages_total),   ANY(MemStats, msg_mem_stats, pages_present),
	ANY(MemStats, msg_mem_stats, host_bytes),    ANY(MemStats, msg_mem_stats, pages_ballooned),
	ANY(MemStats, msg_mem_stats, pages_punched), ANY(MemStats, msg_mem_stats, scanned),
	ANY(MemStats, msg_mem_stats, sharing),       ANY(MemStats, msg_mem_stats, shared),
	ANY(MemStats, msg_mem_stats, unshared),      ANY(MemStats, msg_mem_stats, unstable),
	ANY(MemStats, msg_mem_stats, unmerged),      ANY(MemStats, msg_mem_stats, saved_bytes),
	ANY(MemStats, msg_mem_stats, members),       ANY(MemStats, msg_mem_stats, group_sharing),
	ANY(MemStats, msg_mem_stats, share),
};
MESSAGE(mem_stats, MemStats, mem_stats, msg_mem_stats, mem_stats_ok)

#define PAGES_MAX (SHM_MAX_RAM / SHM_PAGE)

static bool pages_ok(const void *p)
{
	const struct msg_pages *m = p;

	return m->first <= PAGES_MAX - m->count;
}

static const struct field pages_rows[] = {
	NUM(MemRange, msg_pages, first, 0, PAGES_MAX - 1),
	NUM(MemRange, msg_pages, count, 1, PAGES_MAX),
};
TABLE(pages, MemRange, mem_range, msg_pages, pages_ok);

static bool mem_change_ok(const void *p)
{
	const struct msg_mem_change *m = p;

	return (m->nranges == 0) == (m->op == MEM_OP_RETURN_ALL);
}

static const struct field mem_change_rows[] = {
	ANY(MemChange, msg_mem_change, id),
	NUM(MemChange, msg_mem_change, op, MEM_OP_BALLOON, MEM_OP_COUNT - 1),
	SUB_LIST(MemChange, ranges, msg_mem_change, range, nranges, pages_table),
};
MESSAGE(mem_change, MemChange, mem_change, msg_mem_change, mem_change_ok)

static const struct field mem_changed_rows[] = {
	ANY(MemChanged, msg_mem_changed, id),
};
MESSAGE(mem_changed, MemChanged, mem_changed, msg_mem_changed, NULL)

static bool mem_withdraw_ok(const void *p)
{
	const struct msg_mem_withdraw *m = p;

	return m->nranges || m->pool;
}

static const struct field mem_withdraw_rows[] = {
	ANY(MemWithdraw, msg_mem_withdraw, id),
	FLAG(MemWithdraw, msg_mem_withdraw, pool),
	SUB_LIST(MemWithdraw, ranges, msg_mem_withdraw, range, nranges, pages_table),
};
MESSAGE(mem_withdraw, MemWithdraw, mem_withdraw, msg_mem_withdraw, mem_withdraw_ok)

static const struct field mem_withdrawn_rows[] = {
	ANY(MemWithdrawn, msg_mem_withdrawn, id),
};
MESSAGE(mem_withdrawn, MemWithdrawn, mem_withdrawn, msg_mem_withdrawn, NULL)

static const struct field mem_tune_rows[] = {
	NUM(MemTune, msg_mem_tune, rate, 0, MSG_MERGE_RATE_MAX),
	NUM(MemTune, msg_mem_tune, pressure, 0, MEM_PRESSURE_COUNT - 1),
};
MESSAGE(mem_tune, MemTune, mem_tune, msg_mem_tune, NULL)

static const struct field mem_group_rows[] = {
	NUM(MemGroup, msg_mem_group, rate, 0, MSG_MERGE_RATE_MAX),
};
MESSAGE(mem_group, MemGroup, mem_group, msg_mem_group, NULL)

static const struct field stub_config_rows[] = {
	NUM_IF(StubConfig, msg_stub_config, ram_size, field_ram_size),
};
MESSAGE(stub_config, StubConfig, stub_config, msg_stub_config, NULL)

static const struct field mem_join_rows[] = {
	NUM_IF(MemJoin, msg_mem_join, ram_size, field_ram_size),
};
MESSAGE(mem_join, MemJoin, mem_join, msg_mem_join, NULL)

/* ---- group.proto ---- */

static const struct field group_join_rows[] = {
	ANY(GroupJoin, msg_group_join, version),
	ID(GroupJoin, msg_group_join, name),
	NUM_IF(GroupJoin, msg_group_join, ram_size, field_ram_size),
	FLAG(GroupJoin, msg_group_join, strict),
};
MESSAGE(group_join, GroupJoin, group_join, msg_group_join, NULL)

static const struct field group_joined_rows[] = {
	ANY(GroupJoined, msg_group_joined, pid),
	BITS(GroupJoined, msg_group_joined, layers, SANDBOX_ALL),
};
MESSAGE(group_joined, GroupJoined, group_joined, msg_group_joined, NULL)

static const struct field group_member_rows[] = {
	ID(GroupMember, msg_member, name),
};
TABLE(group_member, GroupMember, group_member, msg_member, NULL);

static const struct field group_info_rows[] = {
	ID(GroupInfo, msg_group_info, name),
	ANY(GroupInfo, msg_group_info, pid),
	BITS(GroupInfo, msg_group_info, layers, SANDBOX_ALL),
	ANY(GroupInfo, msg_group_info, shared),
	ANY(GroupInfo, msg_group_info, sharing),
	ANY(GroupInfo, msg_group_info, saved_bytes),
	ANY(GroupInfo, msg_group_info, scanned),
	NUM(GroupInfo, msg_group_info, rate, 0, 10000),
	SUB_LIST(GroupInfo, members, msg_group_info, member, nmembers, group_member_table),
};
MESSAGE(group_info, GroupInfo, group_info, msg_group_info, NULL)

/* ---- vcpu.proto ---- */

static const struct field local_rows[] = {
	FLAG(LocalDevices, msg_local, rng),
	NUM(LocalDevices, msg_local, rng_bytes, 0, MSG_RATE_MAX),
	NUM(LocalDevices, msg_local, rng_burst, 0, MSG_RATE_MAX),
	FLAG(LocalDevices, msg_local, balloon),
	NUM(LocalDevices, msg_local, watchdog, 0, WATCHDOG_COUNT - 1),
};
TABLE(local, LocalDevices, local_devices, msg_local, NULL);

static bool cpus_ok(const void *p)
{
	return msg_cpus_count(p) <= MSG_CPUS_MAX;
}

static const struct field cpus_rows[] = {
	NUM(Cpus, msg_cpus, sockets, 1, MSG_CPUS_MAX),
	NUM(Cpus, msg_cpus, cores, 1, MSG_CPUS_MAX),
	NUM(Cpus, msg_cpus, threads, 1, MSG_CPUS_MAX),
};
TABLE(cpus, Cpus, cpus, msg_cpus, cpus_ok);

static const struct field firmware_rows[] = {
	STRING(Firmware, msg_firmware, order),
	FLAG(Firmware, msg_firmware, menu),
	FLAG(Firmware, msg_firmware, keep),
};
TABLE(firmware, Firmware, firmware, msg_firmware, NULL);

/* The descriptors that every vcpu needs are there, and one for each module. */
static bool vcpu_config_ok(const void *p)
{
	const struct msg_vcpu_config *m = p;
	const uint32_t need = 1u << FD_RAM | 1u << FD_CONTROL, start = 1u << FD_KERNEL | 1u << FD_FIRMWARE;
	const uint32_t initrds = ((1u << MSG_MODULES_MAX) - 1) << FD_INITRD;
	uint32_t seen = 0;

	for (uint32_t i = 0; i < m->nfds; i++)
		seen |= 1u << m->fds[i];
	return (seen & need) == need && (seen & start) && (seen & initrds) == ((1u << m->nmodules) - 1) << FD_INITRD;
}

static const struct field vcpu_config_rows[] = {
	TEXT(VcpuConfig, msg_vcpu_config, name),
	NUM_IF(VcpuConfig, msg_vcpu_config, ram_size, field_ram_size),
	SUB(VcpuConfig, msg_vcpu_config, cpus, cpus_table),
	STRING(VcpuConfig, msg_vcpu_config, cmdline),
	FLAG(VcpuConfig, msg_vcpu_config, debug_exit),
	FLAG(VcpuConfig, msg_vcpu_config, reboot),
	ANY(VcpuConfig, msg_vcpu_config, trace),
	NUM_SET(VcpuConfig, fds, msg_vcpu_config, fds, nfds, 1, FD_COUNT - 1),
	NUM(VcpuConfig, msg_vcpu_config, devices, 0, MSG_DEVICES_MAX),
	FLAG(VcpuConfig, msg_vcpu_config, exact_flags),
	STRING_LIST(VcpuConfig, module_names, msg_vcpu_config, module, name, nmodules, .beside = false),
	STRING_LIST(VcpuConfig, module_args, msg_vcpu_config, module, args, nmodules, .beside = true),
	NUM(VcpuConfig, msg_vcpu_config, windows, 0, WINDOWS_COUNT - 1),
	NUM(VcpuConfig, msg_vcpu_config, direct, 0, DIRECT_COUNT - 1),
	SUB(VcpuConfig, msg_vcpu_config, local, local_table),
	SUB(VcpuConfig, msg_vcpu_config, firmware, firmware_table),
};
MESSAGE(vcpu_config, VcpuConfig, vcpu_config, msg_vcpu_config, vcpu_config_ok)

static const struct field vcpu_device_rows[] = {
	ID(VcpuDevice, msg_vcpu_device, id),
	NUM(VcpuDevice, msg_vcpu_device, slot, 1, 30),
};
MESSAGE(vcpu_device, VcpuDevice, vcpu_device, msg_vcpu_device, NULL)

static const struct field vcpu_running_rows[] = {
	NUM(VcpuRunning, msg_vcpu_running, boots, 1, UINT32_MAX),
	NUM(VcpuRunning, msg_vcpu_running, windows, 0, WINDOW_STATE_COUNT - 1),
};
MESSAGE(vcpu_running, VcpuRunning, vcpu_running, msg_vcpu_running, NULL)

static const struct field vcpu_exit_rows[] = {
	NUM(VcpuExit, msg_vcpu_exit, kind, EXIT_POWEROFF, EXIT_COUNT - 1),
	NUM(VcpuExit, msg_vcpu_exit, code, 0, 255),
};
MESSAGE(vcpu_exit, VcpuExit, vcpu_exit, msg_vcpu_exit, NULL)

static const struct field vcpu_command_rows[] = {
	NUM(VcpuCommand, msg_vcpu_command, op, OP_PAUSE, OP_COUNT - 1),
	ANY(VcpuCommand, msg_vcpu_command, value),
};
MESSAGE(vcpu_command, VcpuCommand, vcpu_command, msg_vcpu_command, NULL)

static const struct field vcpu_state_rows[] = {
	FLAG(VcpuState, msg_vcpu_state, paused),
	TEXT(VcpuState, msg_vcpu_state, reason),
};
MESSAGE(vcpu_state, VcpuState, vcpu_state, msg_vcpu_state, NULL)

/* ---- the display ---- */

static bool screen_ok(const void *p)
{
	const struct msg_screen *m = p;

	for (uint32_t i = 0; i < m->len; i++)
		if (m->text[i] < ' ' || m->text[i] > '~')
			return false;
	return m->len == (uint64_t)m->columns * m->rows && !(m->graphics && m->len);
}

static const struct field vcpu_screen_rows[] = {
	FLAG(Screen, msg_screen, graphics),
	NUM(Screen, msg_screen, columns, 0, 132),
	NUM(Screen, msg_screen, rows, 0, 60),
	BYTES(Screen, msg_screen, text, len),
};
MESSAGE(vcpu_screen, Screen, screen, msg_screen, screen_ok)
#define screen_reply_rows vcpu_screen_rows
MESSAGE(screen_reply, Screen, screen, msg_screen, screen_ok)

/* ---- counters ---- */

static const char low[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-";
static const char all[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";

/* A counter's name is a word in a list, a JSON key and somebody's shell variable. */
static bool counter_ok(const void *p)
{
	const char *name = ((const struct msg_counter *)p)->name;

	return name[strspn(name, low)] == '\0';
}

/* To a client: ids that the user chose are in front of the names. */
static bool named_counter_ok(const void *p)
{
	const char *name = ((const struct msg_counter *)p)->name;

	return name[strspn(name, all)] == '\0';
}

static const struct field counter_rows[] = {
	ID(Counter, msg_counter, name),
	ANY(Counter, msg_counter, value),
};
#define named_counter_rows counter_rows
TABLE(counter, Counter, counter, msg_counter, counter_ok);
TABLE(named_counter, Counter, counter, msg_counter, named_counter_ok);

static const struct field vcpu_stats_rows[] = {
	SUB_LIST(VcpuStats, counters, msg_counters, c, n, counter_table),
};
MESSAGE(vcpu_stats, VcpuStats, vcpu_stats, msg_counters, NULL)

static const struct field dev_stats_rows[] = {
	SUB_LIST(DeviceStats, counters, msg_counters, c, n, counter_table),
};
MESSAGE(dev_stats, DeviceStats, device_stats, msg_counters, NULL)

static const struct field stats_reply_rows[] = {
	SUB_LIST(StatsReply, counters, msg_counters, c, n, named_counter_table),
};
MESSAGE(stats_reply, StatsReply, stats_reply, msg_counters, NULL)

/* ---- control.proto ---- */

static const struct field nothing_rows[] = {};
TABLE(nothing, Nothing, nothing, msg_nothing, NULL);

static const struct field request_console_rows[] = {
	FLAG(RequestConsole, msg_request_console, second),
};
TABLE(request_console, RequestConsole, request_console, msg_request_console, NULL);

static const struct field rates_rows[] = {
	NUM(DeviceLimits, msg_dev_limits, ops, 0, MSG_RATE_MAX),
	NUM(DeviceLimits, msg_dev_limits, ops_burst, 0, MSG_RATE_MAX),
	NUM(DeviceLimits, msg_dev_limits, bytes, 0, MSG_RATE_MAX),
	NUM(DeviceLimits, msg_dev_limits, bytes_burst, 0, MSG_RATE_MAX),
};
TABLE(rates, DeviceLimits, device_limits, msg_dev_limits, NULL);

static const struct field vm_limits_rows[] = {
	BITS(VmLimits, msg_vm_limits, given, VM_LIMIT_ALL),         NUM(VmLimits, msg_vm_limits, cpu, 0, MSG_CPU_MAX),
	NUM(VmLimits, msg_vm_limits, weight, 0, MSG_WEIGHT_MAX),    ANY(VmLimits, msg_vm_limits, memory),
	NUM(VmLimits, msg_vm_limits, pids, 0, MSG_PIDS_MAX),        SUB(VmLimits, msg_vm_limits, io, rates_table),
	NUM(VmLimits, msg_vm_limits, merge, 0, MSG_MERGE_RATE_MAX),
};
TABLE(vm_limits, VmLimits, vm_limits, msg_vm_limits, NULL);

/* Of a device or of the VM, not of both. */
static bool request_limit_ok(const void *p)
{
	const struct msg_request_limit *m = p;

	return m->id[0] ? !m->vm.given : m->vm.given && !m->given;
}

static const struct field request_limit_rows[] = {
	TEXT(RequestLimit, msg_request_limit, id),
	BITS(RequestLimit, msg_request_limit, given, LIMIT_ALL),
	SUB(RequestLimit, msg_request_limit, limits, rates_table),
	SUB(RequestLimit, msg_request_limit, vm, vm_limits_table),
};
TABLE(request_limit, RequestLimit, request_limit, msg_request_limit, request_limit_ok);

static const struct field request_link_rows[] = {
	ID(RequestLink, msg_request_link, id),
	FLAG(RequestLink, msg_request_link, up),
};
TABLE(request_link, RequestLink, request_link, msg_request_link, NULL);

static bool balloon_size_ok(uint64_t n)
{
	return n >= MSG_BALLOON_MIN && field_ram_size(n);
}

static const struct field request_balloon_rows[] = {
	NUM_IF(RequestBalloon, msg_request_balloon, bytes, balloon_size_ok),
};
TABLE(request_balloon, RequestBalloon, request_balloon, msg_request_balloon, NULL);

static const struct field request_resize_rows[] = {
	NUM(RequestResize, msg_request_resize, columns, 0, UINT16_MAX),
	NUM(RequestResize, msg_request_resize, rows, 0, UINT16_MAX),
};
TABLE(request_resize, RequestResize, request_resize, msg_request_resize, NULL);

static bool request_ok(const void *p)
{
	return ((const struct msg_request_head *)p)->op != 0;
}

#define ASKS(f, host, t, val) ONEOF(Request, f, msg_request_head, host, t, what_case, op, val)
static const struct field request_rows[] = {
	ANY(Request, msg_request_head, version),
	ASKS(status, nothing, nothing_table, REQ_STATUS),
	ASKS(stats, nothing, nothing_table, REQ_STATS),
	ASKS(pause, nothing, nothing_table, REQ_PAUSE),
	ASKS(resume, nothing, nothing_table, REQ_RESUME),
	ASKS(stop, nothing, nothing_table, REQ_STOP),
	ASKS(kill, nothing, nothing_table, REQ_KILL),
	ASKS(console, console, request_console_table, REQ_CONSOLE),
	ASKS(limit, limit, request_limit_table, REQ_LIMIT),
	ASKS(link, link, request_link_table, REQ_LINK),
	ASKS(balloon, balloon, request_balloon_table, REQ_BALLOON),
	ASKS(resize, resize, request_resize_table, REQ_RESIZE),
	ASKS(screen, nothing, nothing_table, REQ_SCREEN),
};
MESSAGE(request, Request, request, msg_request_head, request_ok)

static const struct field reply_rows[] = {
	NUM(Reply, msg_reply, status, 0, 255),
	TEXT(Reply, msg_reply, text),
};
MESSAGE(reply, Reply, reply, msg_reply, NULL)

static const struct field process_rows[] = {
	TEXT(ProcessInfo, msg_process, name),
	ANY(ProcessInfo, msg_process, pid),
	BITS(ProcessInfo, msg_process, layers, SANDBOX_ALL | SANDBOX_UNWANTED(SANDBOX_ALL)),
	FLAG(ProcessInfo, msg_process, silent),
};
TABLE(process, ProcessInfo, process_info, msg_process, NULL);

static const struct field limit_info_rows[] = {
	ID(LimitInfo, msg_limit_info, name),
	ANY(LimitInfo, msg_limit_info, value),
	TEXT(LimitInfo, msg_limit_info, unit),
	TEXT(LimitInfo, msg_limit_info, keeper),
};
TABLE(limit_info, LimitInfo, limit_info, msg_limit_info, NULL);

static const struct field status_reply_rows[] = {
	TEXT(StatusReply, msg_status, name),
	TEXT(StatusReply, msg_status, state),
	ANY(StatusReply, msg_status, ram_size),
	SUB(StatusReply, msg_status, cpus, cpus_table),
	ANY(StatusReply, msg_status, boots),
	ANY(StatusReply, msg_status, uptime_ms),
	TEXT(StatusReply, msg_status, console),
	FLAG(StatusReply, msg_status, strict),
	SUB_LIST(StatusReply, processes, msg_status, proc, nprocs, process_table),
	TEXT(StatusReply, msg_status, second),
	TEXT(StatusReply, msg_status, reason),
	SUB_LIST(StatusReply, limits, msg_status, limit, nlimits, limit_info_table),
	TEXT(StatusReply, msg_status, cgroup),
	NUM(StatusReply, msg_status, windows, 0, WINDOW_STATE_COUNT - 1),
	NUM(StatusReply, msg_status, direct, 0, DIRECT_COUNT - 1),
	TEXT(StatusReply, msg_status, merge),
	ANY(StatusReply, msg_status, resident),
	ANY(StatusReply, msg_status, shared),
	ANY(StatusReply, msg_status, guarantee),
};
MESSAGE(status_reply, StatusReply, status_reply, msg_status, NULL)

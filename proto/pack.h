/*
 * Messages as plain validated structs.  See pack.c.
 */
#ifndef HVX_PACK_H
#define HVX_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Frame types (struct ipc_header.type), all conversations. */
#define MSG_TYPES(X)               \
	X(HELLO, 1)                \
	X(SEALED, 2)               \
	X(FAILED, 3)               \
	X(MEM_CONFIG, 16)          \
	X(MEM_GET, 17)             \
	X(MEM_REGION, 18)          \
	X(MEM_STATS_GET, 19)       \
	X(MEM_STATS, 20)           \
	X(MEM_CHANGE, 21)          \
	X(MEM_CHANGED, 22)         \
	X(MEM_WITHDRAW, 23)        \
	X(MEM_WITHDRAWN, 24)       \
	X(MEM_TUNE, 25)            \
	X(MEM_GROUP, 26)           \
	X(MEM_JOIN, 27)            \
	X(VCPU_CONFIG, 32)         \
	X(VCPU_RUNNING, 33)        \
	X(VCPU_EXIT, 34)           \
	X(VCPU_COMMAND, 35)        \
	X(VCPU_STATE, 36)          \
	X(VCPU_STATS_GET, 37)      \
	X(VCPU_STATS, 38)          \
	X(VCPU_DEVICE, 39)         \
	X(VCPU_SCREEN, 40)         \
	X(VCPU_CALLS, 41)          \
	X(REQUEST, 48)             \
	X(REPLY, 49)               \
	X(STATUS_REPLY, 50)        \
	X(STATS_REPLY, 51)         \
	X(SCREEN_REPLY, 52)        \
	X(DEV_CONFIG, 64)          \
	X(DEV_COMMAND, 65)         \
	X(DEV_LIMITS, 66)          \
	X(DEV_EVENT, 67)           \
	X(DEV_STATS_GET, 68)       \
	X(DEV_STATS, 69)           \
	X(VIRTIO_OFFER, 80)        \
	X(VIRTIO_ACTIVATE, 81)     \
	X(VIRTIO_RESET, 82)        \
	X(VIRTIO_RESET_DONE, 83)   \
	X(VIRTIO_CONFIG_WRITE, 84) \
	X(VIRTIO_CONFIG, 85)       \
	X(VIRTIO_BROKEN, 86)       \
	X(VIRTIO_INVALIDATE, 87)   \
	X(VIRTIO_INVALIDATED, 88)  \
	X(GROUP_JOIN, 96)          \
	X(GROUP_JOINED, 97)        \
	X(GROUP_ASK, 98)           \
	X(GROUP_INFO, 99)          \
	X(STUB_CONFIG, 112)
enum msg_type {
#define X(n, v) MSG_##n = v,
	MSG_TYPES(X)
#undef X
};

/* Roles; also senders in the monitor's permit table. */
enum msg_role { ROLE_MEMSVC = 1, ROLE_VCPU, ROLE_BLK, ROLE_NET, ROLE_STUB, ROLE_CLIENT };

/* What a descriptor sent with VCPU_CONFIG is. */
enum msg_fd {
	FD_RAM = 1,
	FD_CONTROL,
	FD_KERNEL,
	FD_INITRD, /* and those behind it, MSG_MODULES_MAX kinds */
	FD_INITRD_LAST = FD_INITRD + 7,
	FD_CONSOLE_IN,
	FD_CONSOLE_OUT,
	FD_TRACE,
	FD_DEBUGCON,
	FD_MEMSVC, /* channel to hvx-memsvc: MEM_CHANGE, MEM_CHANGED, MEM_WITHDRAW, MEM_WITHDRAWN */
	FD_VCONSOLE_IN,
	FD_VCONSOLE_OUT,
	FD_FIRMWARE, /* instead of a kernel */
	FD_NVRAM,    /* what it keeps, for reading and writing; or only its template, for reading */
	FD_VGAROM,   /* the display's BIOS */
	FD_NETROM,   /* what starts from network cards, for a BIOS */
	FD_POOL,     /* merged pages, to be read only */
	FD_STUB,     /* channel to an hvx-stub (proto/stub.h); and those behind it, MSG_STUBS of them */
	FD_STUB_LAST = FD_STUB + 3,
	FD_COUNT
};

/* What a descriptor sent with DEV_CONFIG is. */
enum msg_dev_fd {
	DEV_FD_RAM = 1,
	DEV_FD_CONTROL,
	DEV_FD_CHANNEL, /* virtio.proto, to the vcpu */
	DEV_FD_PAGE,    /* struct shm_doorbells */
	DEV_FD_KICK,    /* eventfd: the guest has work */
	DEV_FD_BACKEND, /* image, NBD socket, tap, passt's stream, a switch's listening or connected socket */
	DEV_FD_OVERLAY, /* where a snapshot's writes go */
	DEV_FD_POOL,    /* merged pages, to be read only */
	DEV_FD_CALL,    /* pipe: CPU 0 is to be interrupted; and those behind it, one a CPU */
	DEV_FD_CALL_LAST = DEV_FD_CALL + 31,
	DEV_FD_COUNT
};
enum msg_net_backend { NET_PASST = 1, NET_TAP, NET_SWITCH, NET_BACKEND_COUNT };
enum msg_dev_op { DEV_OP_RETRY = 1, DEV_OP_LINK_UP, DEV_OP_LINK_DOWN, DEV_OP_COUNT };
enum msg_dev_news { DEV_EVENT_IO_ERROR = 1, DEV_EVENT_LINK_LOST, DEV_EVENT_COUNT };

enum msg_exit { EXIT_POWEROFF = 1, EXIT_RESET, EXIT_TRIPLE_FAULT, EXIT_DEBUG, EXIT_COUNT };
enum msg_op {
	OP_PAUSE = 1,
	OP_RESUME,
	OP_POWER_BUTTON,
	OP_QUIT,
	OP_BALLOON,
	OP_CONSOLE_SIZE,
	OP_CPU_LIMIT,
	OP_CPU_CHARGE,
	OP_SCREEN,
	OP_COUNT
};
/* What a guest does with its pages: into the balloon, reported as free, out of the balloon, all out of it. */
enum msg_mem_op { MEM_OP_BALLOON = 1, MEM_OP_REPORT, MEM_OP_RETURN, MEM_OP_RETURN_ALL, MEM_OP_COUNT };
enum msg_mem_pressure { MEM_PRESSURE_SAME, MEM_PRESSURE_SHORT, MEM_PRESSURE_OVER, MEM_PRESSURE_COUNT };
/* What becomes of a VM whose watchdog runs out. */
enum msg_watchdog { WATCHDOG_OFF, WATCHDOG_RESET, WATCHDOG_POWEROFF, WATCHDOG_PAUSE, WATCHDOG_NONE, WATCHDOG_COUNT };
/* Is ring 3 run as it is: --direct. */
enum msg_direct { DIRECT_NEVER, DIRECT_AUTO, DIRECT_ALWAYS, DIRECT_COUNT };
#define MSG_STUBS 4 /* processes for it */
/* How translated code reaches memory without a check: --windows; what came of it. */
enum msg_windows { WINDOWS_AUTO, WINDOWS_OFF, WINDOWS_KERNEL, WINDOWS_COUNT };
enum msg_window_state {
	WINDOW_UNKNOWN,
	WINDOW_NOT_WANTED,
	WINDOW_KERNEL,
	WINDOW_NO_PLACE,
	WINDOW_CPUS,
	WINDOW_MERGED,
	WINDOW_STATE_COUNT
};
enum msg_request { /* the numbers of the oneof in control.proto */
		   REQ_STATUS = 2,
		   REQ_STATS,
		   REQ_PAUSE,
		   REQ_RESUME,
		   REQ_STOP,
		   REQ_KILL,
		   REQ_CONSOLE,
		   REQ_LIMIT,
		   REQ_LINK,
		   REQ_BALLOON,
		   REQ_RESIZE,
		   REQ_SCREEN,
		   REQ_COUNT
};

#define MSG_NAME_MAX       64
#define MSG_TEXT_MAX       512
#define MSG_CMDLINE_MAX    4096
#define MSG_COUNTERS_MAX   1280
#define MSG_PROCS_MAX      56
#define MSG_FDS_MAX        48
#define MSG_MODULES_MAX    8 /* initial ramdisks, or modules of a multiboot kernel */
#define MSG_MODULE_MAX     512
#define MSG_ORDER_MAX      1024 /* a path of 40 characters for each device */
#define MSG_ID_MAX         32   /* of a device */
#define MSG_SERIAL_MAX     21   /* 20 characters, virtio 1.2 5.2.6.1 */
#define MSG_DEVICES_MAX    24   /* cards of one VM that are processes */
#define MSG_QUEUES_MAX     17   /* of a card: two a pair, and the one that controls them */
#define MSG_PAIRS_MAX      8    /* queues= of a disk or a card */
#define MSG_QUEUE_SIZE_MAX 1024
#define MSG_VCONFIG_MAX    256 /* device configuration space */
#define MSG_RANGES_MAX     512
#define MSG_SCREEN_MAX     (132 * 60) /* characters of a display */
#define MSG_BALLOON_MIN    (1ull << 20)
#define MSG_RATE_MAX       (1ull << 41) /* of a limit */
#define MSG_MERGE_RATE_MAX 100u         /* percent of a CPU */

struct msg_hello {
	uint32_t version;
	enum msg_role role;
	char release[32];
};
struct msg_sealed {
	uint32_t layers;
	char missing[MSG_TEXT_MAX];
};
struct msg_failed {
	uint32_t status;
	char text[MSG_TEXT_MAX];
};
struct msg_mem_config {
	uint64_t ram_size, rom_size;
	bool channel;  /* a descriptor comes along: the channel to the vcpu */
	bool merge;    /* and, after it, the pool to be written */
	uint32_t rate; /* percent of a CPU at most; 0: the default */
};
struct msg_mem_region {
	uint64_t ram_size /* with the ROM */, control_size;
};
struct msg_mem_stats {
	uint64_t pages_total, pages_present, host_bytes, pages_ballooned, pages_punched;
	/* merging: see memsvc.proto */
	uint64_t scanned, sharing, shared, unshared, unstable, unmerged, saved_bytes;
	uint32_t members;
	uint64_t group_sharing;
	uint32_t share; /* hundredths of a percent of a CPU */
};
struct msg_stub_config { /* with two descriptors: RAM, the channel to the vcpu */
	uint64_t ram_size;
};
struct msg_mem_group {
	uint32_t rate; /* as in mem_config */
};
struct msg_mem_join {
	uint64_t ram_size;
};
#define MSG_GROUP_MAX 128 /* VMs */
struct msg_group_join {
	uint32_t version;
	char name[MSG_NAME_MAX];
	uint64_t ram_size;
	bool strict;
};
struct msg_group_joined {
	uint32_t pid, layers; /* hvx-memsvc's */
};
struct msg_group_info {
	char name[MSG_NAME_MAX];
	uint32_t pid, layers;
	uint64_t shared, sharing, saved_bytes, scanned;
	uint32_t rate; /* hundredths of a percent of a CPU */
	uint32_t nmembers;
	struct msg_member {
		char name[MSG_NAME_MAX];
	} member[MSG_GROUP_MAX];
};
struct msg_mem_tune {
	uint32_t rate;     /* 0: as it is */
	uint32_t pressure; /* MEM_PRESSURE_* */
};
struct msg_pages { /* of RAM, not guest-physical */
	uint64_t first, count;
};
struct msg_mem_change {
	uint32_t id;
	enum msg_mem_op op;
	uint32_t nranges; /* none with RETURN_ALL, else at least one */
	struct msg_pages range[MSG_RANGES_MAX];
};
struct msg_mem_changed {
	uint32_t id;
};
struct msg_mem_withdraw {
	uint32_t id;
	bool pool; /* all merged pages, too */
	uint32_t nranges;
	struct msg_pages range[MSG_RANGES_MAX];
};
struct msg_mem_withdrawn {
	uint32_t id;
};
struct msg_local { /* devices that the vcpu process serves itself */
	bool rng;
	uint64_t rng_bytes, rng_burst; /* a second; 0: no limit, a tenth of a second's worth */
	bool balloon;
	enum msg_watchdog watchdog; /* OFF: there is none */
};
#define MSG_CPUS_MAX 32
struct msg_cpus {
	uint32_t sockets, cores, threads; /* cores a socket, threads a core; their product is at most MSG_CPUS_MAX */
};
static inline uint32_t msg_cpus_count(const struct msg_cpus *c)
{
	return c->sockets * c->cores * c->threads;
}
struct msg_module { /* what a kernel is told about an initrd or module */
	char name[MSG_MODULE_MAX], args[MSG_MODULE_MAX];
};
struct msg_firmware {              /* how it is to start the machine */
	char order[MSG_ORDER_MAX]; /* what to start from, a line each, the best first */
	bool menu;
	bool keep; /* what is written to FD_NVRAM's flash goes to the file */
};
struct msg_vcpu_config {
	char name[MSG_NAME_MAX];
	uint64_t ram_size;
	struct msg_cpus cpus;
	char cmdline[MSG_CMDLINE_MAX];
	bool debug_exit, reboot, exact_flags;
	uint32_t trace;
	uint32_t nfds;
	enum msg_fd fds[MSG_FDS_MAX]; /* each kind at most once */
	uint32_t devices;             /* so many VCPU_DEVICE frames follow */
	uint32_t nmodules;            /* FD_INITRD to FD_INITRD + nmodules - 1 are among the fds */
	struct msg_module module[MSG_MODULES_MAX];
	enum msg_windows windows;
	enum msg_direct direct;
	struct msg_local local;
	struct msg_firmware firmware;
};
/* Descriptors: channel, page of doorbells, kick (eventfd).  Before the first of them, if there is one, comes VCPU_CALLS, empty,
 * with the reading ends of the pipes by which all of them call, one a CPU. */
struct msg_vcpu_device {
	char id[MSG_ID_MAX];
	uint32_t slot; /* PCI device number, 1 to 30 */
};
struct msg_dev_limits {
	uint64_t ops, ops_burst, bytes, bytes_burst; /* a second; 0: none */
};
enum msg_blk_bus { BLK_VIRTIO, BLK_AHCI, BLK_CDROM, BLK_BUSES }; /* CDROM: ATAPI, on AHCI */
struct msg_blk_config {
	enum msg_blk_bus bus;
	bool readonly, writeback, pause_error, nbd, snapshot;
	uint32_t queues;
	char serial[MSG_SERIAL_MAX];
};
struct msg_net_config {
	enum msg_net_backend backend;
	uint8_t mac[6];
	uint32_t mtu; /* 0: the standard 1500, not told to the guest */
	bool link_down;
	uint32_t queues; /* pairs */
};
struct msg_dev_config {
	char id[MSG_ID_MAX];
	uint64_t ram_size;
	uint32_t nfds;
	enum msg_dev_fd fds[MSG_FDS_MAX]; /* each kind at most once */
	enum msg_role kind;               /* ROLE_BLK or ROLE_NET: which of the two is there */
	struct msg_blk_config blk;
	struct msg_net_config net;
	struct msg_dev_limits limits;
};
struct msg_dev_command {
	enum msg_dev_op op;
};
struct msg_dev_event {
	enum msg_dev_news kind;
	char text[MSG_TEXT_MAX];
};
struct msg_virtio_offer {
	uint32_t device_id;
	uint64_t features;
	uint32_t nqueues;
	uint32_t queue_max[MSG_QUEUES_MAX];
	uint32_t config_len;
	uint8_t config[MSG_VCONFIG_MAX];
};
struct msg_virtio_queue {
	uint32_t index, size;
	uint64_t desc, driver, device;
};
#define MSG_OFFER_ATA   0x80 /* device_id of what is no virtio device */
#define MSG_OFFER_ATAPI 0x81
struct msg_virtio_activate {
	uint64_t features;
	uint64_t list, fis; /* AHCI only */
	uint32_t nqueues;
	struct msg_virtio_queue queue[MSG_QUEUES_MAX]; /* each index at most once */
};
struct msg_virtio_reset { /* VIRTIO_RESET and VIRTIO_RESET_DONE */
	uint32_t generation;
};
struct msg_virtio_config { /* VIRTIO_CONFIG, and VIRTIO_CONFIG_WRITE with its offset */
	uint32_t offset, len;
	uint8_t data[MSG_VCONFIG_MAX];
};
struct msg_virtio_broken {
	char reason[MSG_TEXT_MAX];
};
struct msg_range {
	uint64_t gpa, len;
};
struct msg_virtio_invalidate { /* VIRTIO_INVALIDATE, and VIRTIO_INVALIDATED without ranges */
	uint32_t id, nranges;
	struct msg_range range[MSG_RANGES_MAX];
};
struct msg_vcpu_running {
	uint32_t boots;
	enum msg_window_state windows;
};
struct msg_vcpu_exit {
	enum msg_exit kind;
	uint32_t code;
};
struct msg_vcpu_command {
	enum msg_op op;
	/* balloon: bytes that the guest is to have; console size: columns << 16 | rows; CPU limit: percent of a CPU, 0: none;
	 * charge: ns that the VM's other processes have used of it */
	uint64_t value;
};
struct msg_vcpu_state {
	bool paused;
	char reason[MSG_NAME_MAX]; /* when it has paused by itself */
};
struct msg_screen {    /* VCPU_SCREEN and SCREEN_REPLY */
	bool graphics; /* then there is no text */
	uint32_t columns, rows;
	uint32_t len;                 /* columns * rows */
	uint8_t text[MSG_SCREEN_MAX]; /* printable ASCII */
};
struct msg_counter {
	char name[64]; /* an id, a dot, a name */
	uint64_t value;
};
struct msg_counters { /* VCPU_STATS, DEV_STATS and STATS_REPLY */
	uint32_t n;
	struct msg_counter c[MSG_COUNTERS_MAX];
};
/* What a limit command changes. */
enum msg_limit { LIMIT_OPS = 1, LIMIT_OPS_BURST = 2, LIMIT_BYTES = 4, LIMIT_BYTES_BURST = 8, LIMIT_ALL = 15 };
struct msg_nothing {
};
/* Of a whole VM. */
enum msg_vm_limit {
	VM_LIMIT_CPU = 1,
	VM_LIMIT_WEIGHT = 2,
	VM_LIMIT_MEMORY = 4,
	VM_LIMIT_PIDS = 8,
	VM_LIMIT_IO = 16,
	VM_LIMIT_MERGE = 32,
	VM_LIMIT_ALL = 63
};
#define MSG_CPU_MAX    100000u /* percent */
#define MSG_WEIGHT_MAX 10000u
#define MSG_PIDS_MAX   (1u << 22)
struct msg_vm_limits {  /* 0: none */
	uint32_t given; /* VM_LIMIT_* */
	uint32_t cpu;   /* percent of a CPU */
	uint32_t weight;
	uint64_t memory; /* bytes */
	uint32_t pids;
	struct msg_dev_limits io; /* of all disks together */
	uint32_t merge;           /* percent of a CPU for merging; 0: hvx-memsvc's default */
};
struct msg_request_limit {
	char id[MSG_ID_MAX]; /* empty: the VM */
	uint32_t given;      /* LIMIT_*, of the device */
	struct msg_dev_limits limits;
	struct msg_vm_limits vm;
};
struct msg_request_link {
	char id[MSG_ID_MAX];
	bool up;
};
struct msg_request_balloon {
	uint64_t bytes; /* in whole pages */
};
struct msg_request_console {
	bool second;
};
struct msg_request_resize {
	uint32_t columns, rows;
};
struct msg_request_head {
	uint32_t version;
	enum msg_request op; /* whose arguments are filled, if it has any */
	struct msg_nothing nothing;
	struct msg_request_console console;
	struct msg_request_limit limit;
	struct msg_request_link link;
	struct msg_request_balloon balloon;
	struct msg_request_resize resize;
};
struct msg_reply {
	uint32_t status;
	char text[MSG_TEXT_MAX];
};
struct msg_process {
	char name[MSG_NAME_MAX];
	uint32_t pid, layers;
	bool silent; /* it owes an answer */
};
struct msg_limit_info {
	char name[MSG_ID_MAX];
	uint64_t value;
	char unit[MSG_ID_MAX], keeper[MSG_NAME_MAX];
};
#define MSG_LIMITS_MAX 12
struct msg_status {
	char name[MSG_NAME_MAX], state[MSG_NAME_MAX], console[MSG_TEXT_MAX];
	char second[MSG_TEXT_MAX]; /* console; empty: there is none */
	char reason[MSG_TEXT_MAX]; /* why it is paused, if not by request */
	uint64_t ram_size, uptime_ms;
	struct msg_cpus cpus;
	uint32_t boots;
	enum msg_window_state windows;
	enum msg_direct direct;
	bool strict;
	uint32_t nprocs;
	struct msg_process proc[MSG_PROCS_MAX];
	uint32_t nlimits;
	struct msg_limit_info limit[MSG_LIMITS_MAX];
	char cgroup[MSG_TEXT_MAX];            /* directories of the VM's own; empty: there is none */
	char merge[MSG_NAME_MAX];             /* group, "self", or empty */
	uint64_t resident, shared, guarantee; /* bytes; of the VM's memory */
};

const char *pack_type_name(uint16_t type); /* for traces; NULL when unknown */

/*
 * pack_x: returns the number of bytes put in @buf (IPC_MAX_DATA of them are enough for any
 * message), or -EMSGSIZE.  unpack_x: 0, or -EPROTO when @buf is not exactly one message of this kind
 * with every field in range; *m is then unspecified.
 */
#define PACK_KINDS(X)                               \
	X(hello, msg_hello)                         \
	X(sealed, msg_sealed)                       \
	X(failed, msg_failed)                       \
	X(mem_config, msg_mem_config)               \
	X(mem_region, msg_mem_region)               \
	X(mem_stats, msg_mem_stats)                 \
	X(mem_change, msg_mem_change)               \
	X(mem_changed, msg_mem_changed)             \
	X(mem_withdraw, msg_mem_withdraw)           \
	X(mem_withdrawn, msg_mem_withdrawn)         \
	X(mem_tune, msg_mem_tune)                   \
	X(mem_group, msg_mem_group)                 \
	X(mem_join, msg_mem_join)                   \
	X(stub_config, msg_stub_config)             \
	X(group_join, msg_group_join)               \
	X(group_joined, msg_group_joined)           \
	X(group_info, msg_group_info)               \
	X(vcpu_config, msg_vcpu_config)             \
	X(vcpu_running, msg_vcpu_running)           \
	X(vcpu_exit, msg_vcpu_exit)                 \
	X(vcpu_command, msg_vcpu_command)           \
	X(vcpu_state, msg_vcpu_state)               \
	X(vcpu_stats, msg_counters)                 \
	X(vcpu_device, msg_vcpu_device)             \
	X(vcpu_screen, msg_screen)                  \
	X(dev_config, msg_dev_config)               \
	X(dev_limits, msg_dev_limits)               \
	X(dev_command, msg_dev_command)             \
	X(dev_event, msg_dev_event)                 \
	X(dev_stats, msg_counters)                  \
	X(virtio_offer, msg_virtio_offer)           \
	X(virtio_activate, msg_virtio_activate)     \
	X(virtio_reset, msg_virtio_reset)           \
	X(virtio_config, msg_virtio_config)         \
	X(virtio_broken, msg_virtio_broken)         \
	X(virtio_invalidate, msg_virtio_invalidate) \
	X(request, msg_request_head)                \
	X(reply, msg_reply)                         \
	X(status_reply, msg_status)                 \
	X(screen_reply, msg_screen)                 \
	X(stats_reply, msg_counters)
#define X(fn, type)                                                    \
	int pack_##fn(const struct type *m, uint8_t *buf, size_t len); \
	int unpack_##fn(const uint8_t *buf, size_t len, struct type *m);
PACK_KINDS(X)
#undef X

/* Messages without content (MEM_GET, the stats requests): 0 when the payload is empty, else -EPROTO. */
int unpack_empty(size_t len);

#endif

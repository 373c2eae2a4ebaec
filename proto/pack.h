/*
 * Messages as plain validated structs.  The only module that knows protobuf-c.
 * See pack.c.
 */
#ifndef HVX_PACK_H
#define HVX_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Frame types (struct ipc_header.type), all conversations. */
#define MSG_TYPES(X)          \
	X(HELLO, 1)           \
	X(SEALED, 2)          \
	X(FAILED, 3)          \
	X(MEM_CONFIG, 16)     \
	X(MEM_GET, 17)        \
	X(MEM_REGION, 18)     \
	X(MEM_STATS_GET, 19)  \
	X(MEM_STATS, 20)      \
	X(VCPU_CONFIG, 32)    \
	X(VCPU_RUNNING, 33)   \
	X(VCPU_EXIT, 34)      \
	X(VCPU_COMMAND, 35)   \
	X(VCPU_STATE, 36)     \
	X(VCPU_STATS_GET, 37) \
	X(VCPU_STATS, 38)     \
	X(REQUEST, 48)        \
	X(REPLY, 49)          \
	X(STATUS_REPLY, 50)   \
	X(STATS_REPLY, 51)
enum msg_type {
#define X(n, v) MSG_##n = v,
	MSG_TYPES(X)
#undef X
};

/* Roles; also senders in the monitor's permit table. */
enum msg_role { ROLE_MEMSVC = 1, ROLE_VCPU, ROLE_CLIENT };

/* What a descriptor sent with VCPU_CONFIG is. */
enum msg_fd {
	FD_RAM = 1,
	FD_CONTROL,
	FD_KERNEL,
	FD_INITRD,
	FD_CONSOLE_IN,
	FD_CONSOLE_OUT,
	FD_TRACE,
	FD_DEBUGCON,
	FD_COUNT
};

enum msg_exit { EXIT_POWEROFF = 1, EXIT_RESET, EXIT_TRIPLE_FAULT, EXIT_DEBUG, EXIT_COUNT };
enum msg_op { OP_PAUSE = 1, OP_RESUME, OP_POWER_BUTTON, OP_QUIT, OP_COUNT };
enum msg_request { REQ_STATUS = 1, REQ_STATS, REQ_PAUSE, REQ_RESUME, REQ_STOP, REQ_KILL, REQ_CONSOLE, REQ_COUNT };

#define MSG_NAME_MAX     64
#define MSG_TEXT_MAX     512
#define MSG_CMDLINE_MAX  4096
#define MSG_COUNTERS_MAX 96
#define MSG_PROCS_MAX    16
#define MSG_FDS_MAX      16

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
	uint64_t ram_size;
};
struct msg_mem_region {
	uint64_t ram_size, control_size;
};
struct msg_mem_stats {
	uint64_t pages_total, pages_present, host_bytes;
};
struct msg_vcpu_config {
	char name[MSG_NAME_MAX];
	uint64_t ram_size;
	uint32_t cpus;
	char cmdline[MSG_CMDLINE_MAX];
	bool debug_exit, reboot;
	uint32_t trace;
	uint32_t nfds;
	enum msg_fd fds[MSG_FDS_MAX]; /* each kind at most once */
};
struct msg_vcpu_running {
	uint32_t boots;
};
struct msg_vcpu_exit {
	enum msg_exit kind;
	uint32_t code;
};
struct msg_vcpu_command {
	enum msg_op op;
};
struct msg_vcpu_state {
	bool paused;
};
struct msg_counters { /* VCPU_STATS and STATS_REPLY */
	uint32_t n;
	struct {
		char name[40];
		uint64_t value;
	} c[MSG_COUNTERS_MAX];
};
struct msg_request_head {
	uint32_t version;
	enum msg_request op;
};
struct msg_reply {
	uint32_t status;
	char text[MSG_TEXT_MAX];
};
struct msg_status {
	char name[MSG_NAME_MAX], state[MSG_NAME_MAX], console[MSG_TEXT_MAX];
	uint64_t ram_size, uptime_ms;
	uint32_t cpus, boots;
	bool strict;
	uint32_t nprocs;
	struct {
		char name[MSG_NAME_MAX];
		uint32_t pid, layers;
	} proc[MSG_PROCS_MAX];
};

const char *pack_type_name(uint16_t type); /* for traces; NULL when unknown */

/*
 * pack_x: returns the number of bytes put in @buf (IPC_MAX_DATA of them are enough for any
 * message), or -EMSGSIZE.  unpack_x: 0, or -EPROTO when @buf is not exactly one message of this kind
 * with every field in range; *m is then unspecified.
 */
#define PACK_DECLARE(fn, type)                                         \
	int pack_##fn(const struct type *m, uint8_t *buf, size_t len); \
	int unpack_##fn(const uint8_t *buf, size_t len, struct type *m);
PACK_DECLARE(hello, msg_hello)
PACK_DECLARE(sealed, msg_sealed)
PACK_DECLARE(failed, msg_failed)
PACK_DECLARE(mem_config, msg_mem_config)
PACK_DECLARE(mem_region, msg_mem_region)
PACK_DECLARE(mem_stats, msg_mem_stats)
PACK_DECLARE(vcpu_config, msg_vcpu_config)
PACK_DECLARE(vcpu_running, msg_vcpu_running)
PACK_DECLARE(vcpu_exit, msg_vcpu_exit)
PACK_DECLARE(vcpu_command, msg_vcpu_command)
PACK_DECLARE(vcpu_state, msg_vcpu_state)
PACK_DECLARE(vcpu_stats, msg_counters)
PACK_DECLARE(request, msg_request_head)
PACK_DECLARE(reply, msg_reply)
PACK_DECLARE(status_reply, msg_status)
PACK_DECLARE(stats_reply, msg_counters)
#undef PACK_DECLARE

/* Makes @s fit to be a text in a message: control characters become '?'. */
void pack_clean(char *s);

/* Messages without content (MEM_GET, the stats requests): 0 when the payload is empty, else -EPROTO. */
int unpack_empty(size_t len);

#endif

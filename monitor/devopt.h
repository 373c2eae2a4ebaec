/*
 * What --disk= and --net= say.  See devopt.c.
 */
#ifndef HVX_MONITOR_DEVOPT_H
#define HVX_MONITOR_DEVOPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/pack.h"

#define DEVOPT_PATH_MAX 1024
#define DEVOPT_FORWARDS 16
#define DEVOPT_PORTS    256 /* of them all */
#define DEVOPT_MTU_MIN  576
#define DEVOPT_MTU_MAX  65521

enum disk_format {
	FORMAT_AUTO,
	FORMAT_RAW,
	FORMAT_QCOW2,
	FORMAT_VMDK,
	FORMAT_VDI,
	FORMAT_VHDX,
	FORMAT_VPC,
	FORMAT_COUNT
};

struct disk_option {
	char id[MSG_ID_MAX];
	char path[DEVOPT_PATH_MAX];
	enum disk_format format;
	enum msg_blk_bus bus;
	bool readonly, snapshot, nocache, pause_error;
	uint32_t queues; /* 0: not given */
	char serial[MSG_SERIAL_MAX];
	struct msg_dev_limits limits;
};

struct net_forward {
	bool udp;
	char addr[46];                  /* of the host; empty: every one */
	uint16_t host_port, guest_port; /* the first; then as many of each as there are */
	unsigned ports;                 /* 1 or more */
};

struct net_option {
	char id[MSG_ID_MAX];
	enum msg_net_backend backend;
	char target[DEVOPT_PATH_MAX]; /* the tap's name, the switch's socket */
	struct net_forward forward[DEVOPT_FORWARDS];
	unsigned nforwards;
	bool restricted, link_down, has_mac, create; /* create: the tap may be made */
	uint32_t queues;                             /* pairs; 0: not given */
	uint8_t mac[6];                              /* without has_mac: chosen by card_open_all() */
	uint32_t mtu;                                /* 0: 1500, not told to the guest */
	struct msg_dev_limits limits;
};

/* Fill *o from a list of `key=value` and switches with commas between; two commas stand for one in a value.
 * 0, or -EINVAL with a line in @err.  @o->id stays empty when no id is given. */
int devopt_disk(struct disk_option *o, const char *text, char *err, size_t len);
/* --cdrom: a file or a device, as it is. */
int devopt_cdrom(struct disk_option *o, const char *text, char *err, size_t len);
int devopt_net(struct net_option *o, const char *text, char *err, size_t len);

/* One limit, as --disk, --net and `limit` spell them: ops, ops-burst (packets, packets-burst for a card), bytes,
 * bytes-burst; the value a number with K, M, G or none. Its LIMIT_* bit is added to
 * *given.  -ENOENT when @key is no limit. */
int devopt_limit(struct msg_dev_limits *l, uint32_t *given, const char *key, const char *value, char *err, size_t len);

/* --rng: yes, no, or bytes= and bytes-burst=; NULL is yes.  A limit holds unless bytes=none. */
#define DEVOPT_RNG_BYTES (1ull << 20)
int devopt_rng(struct msg_local *l, const char *text, char *err, size_t len);

/* --cpus: N[,sockets=S][,cores=C][,threads=T]; what is not given follows from the rest: one thread a core, then one socket. */
int devopt_cpus(struct msg_cpus *o, const char *text, char *err, size_t len);

/* Would the two have the host's port for both?  @one_card: as passt sees it, whose ports are the same on every address. */
bool devopt_forwards_meet(const struct net_forward *a, const struct net_forward *b, bool one_card);

const char *devopt_format_name(enum disk_format f);
/* The format of this name; 0 or -ENOENT. */
int devopt_format_find(const char *name, enum disk_format *f);

#endif

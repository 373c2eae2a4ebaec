/*
 * Configuration of a VM: the same keys from the command line and from hvx.conf.
 * See config.c.
 */
#ifndef HVX_MONITOR_CONFIG_H
#define HVX_MONITOR_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "monitor/devopt.h"
#include "monitor/image.h"
#include "monitor/limits.h"
#include "monitor/seed.h"
#include "proto/pack.h"

#define CONFIG_PATH_MAX 4096
#define CONFIG_DISKS    16
#define CONFIG_NETS     8

enum config_console { CONSOLE_DEFAULT, CONSOLE_STDIO, CONSOLE_PTY, CONSOLE_FILE };

enum config_firmware { FIRMWARE_NONE, FIRMWARE_BIOS, FIRMWARE_UEFI, FIRMWARE_FILE };

struct config {
	char name[MSG_NAME_MAX];
	uint64_t memory; /* bytes */
	struct msg_cpus cpus;
	char kernel[CONFIG_PATH_MAX];
	struct config_initrd {
		char path[CONFIG_PATH_MAX], args[MSG_MODULE_MAX];
	} initrd[MSG_MODULES_MAX];
	unsigned ninitrds;
	char append[MSG_CMDLINE_MAX];
	enum config_firmware firmware; /* after config_check(): NONE starts the kernel by itself */
	char firmware_path[CONFIG_PATH_MAX];
	char nvram[CONFIG_PATH_MAX];
	char boot[MSG_ID_MAX]; /* disk, net or a device's id; empty: disks first, then the network */
	bool boot_menu;
	enum config_console console;
	char console_path[CONFIG_PATH_MAX];
	enum config_console second; /* --virtio-console; DEFAULT: there is none */
	char second_path[CONFIG_PATH_MAX];
	bool strict;    /* --sandbox */
	uint32_t trace; /* TRACE_* bits */
	char trace_file[CONFIG_PATH_MAX];
	bool no_reboot, debug_exit, exact_flags;
	enum msg_windows windows;
	enum msg_direct direct;
	char debugcon[CONFIG_PATH_MAX]; /* "stderr", a file, or empty */
	char pidfile[CONFIG_PATH_MAX];
	char log[CONFIG_PATH_MAX]; /* of a detached monitor; empty: syslog */
	struct disk_option disk[CONFIG_DISKS];
	struct net_option net[CONFIG_NETS];
	struct seed_option seed;
	unsigned ndisks, nnets, ncdroms;          /* CDs are among the disks */
	char allow_path[IMAGE_ALLOWED][PATH_MAX]; /* where images may find what they name, beside their own folder */
	unsigned nallowed;
	struct msg_local local; /* devices that hvx-vcpu serves itself */
	struct msg_vm_limits limits;
	struct limits_cpus affinity; /* if @affine */
	bool affine;
	char merge[MSG_NAME_MAX]; /* "self", a group, or empty: nothing is merged */
	bool balloon_auto;
	uint64_t guarantee; /* bytes of memory; 0: none */
	bool pause_short;   /* when the host is out of memory */
	uint64_t given;     /* config.c's own: bit a key that this source has set */
};

void config_init(struct config *c);

/* Sets @key (an option's name without the dashes) to @value; NULL stands for a switch without one.
 * 0, -ENOENT when there is no such key, -EINVAL when the value is wrong or the key was set by this source before and is not
 * one that can be repeated; @err tells. */
int config_set(struct config *c, const char *key, const char *value, char *err, size_t len);

/* What comes now is another source (the command line after a file): it may set again what was set, once. */
void config_next_source(struct config *c);

/* The name of key @i, NULL behind the last. */
const char *config_key(unsigned i);

/* Does @key take no value on the command line? */
bool config_is_switch(const char *key);

/* Reads a file of `key = value` lines, hvx.conf(5); 0, -EINVAL or another negative error. */
int config_load(struct config *c, const char *path, char *err, size_t len);
/* The same from memory; @where is for messages. */
int config_parse(struct config *c, const char *text, size_t n, const char *where, char *err, size_t len);

/* Is it complete and consistent?  Settles what follows from other settings.  0 or -EINVAL. */
int config_check(struct config *c, char *err, size_t len);

/* An amount of memory: amount_parse() in M; whole pages from 1M to 1024G.  0, -EINVAL or -ERANGE. */
int config_size(const char *v, uint64_t *bytes);

/* What a VM of @memory bytes takes of the host before its guest does anything with it: our tables (shm.h), and the 64 bytes a
 * page in which a guest's kernel describes it. */
uint64_t config_memory_cost(uint64_t memory);

/* A VM's name: 1 to 63 of [A-Za-z0-9._-], not starting with a dot or a dash. */
bool config_name_ok(const char *s);

#endif

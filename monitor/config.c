/*
 * Keys and values.  Invariant: what config_set() accepts needs no further
 * check of its form; config_check() looks only at what keys mean together.
 */
#include "monitor/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "monitor/amount.h"
#include "proto/shm.h"
#include "vcpu/trace.h"

#define MEMORY_MIN  (1ull << 20)
#define FILE_MAX    (64u << 10)
#define INITRD_ARGS ",args="
#define TEXT_(x)    #x
#define TEXT(x)     TEXT_(x)

void config_init(struct config *c)
{
	memset(c, 0, sizeof *c);
	c->memory = 512ull << 20;
	c->cpus = (struct msg_cpus){1, 1, 1};
	c->strict = true;
}

bool config_name_ok(const char *s)
{
	size_t n = strlen(s);

	if (n == 0 || n >= MSG_NAME_MAX || s[0] == '.' || s[0] == '-')
		return false;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr("._-", s[i]))
			return false;
	return true;
}

typedef int setter(struct config *c, const char *v, char *err, size_t len);

static int bad(char *err, size_t len, const char *what, const char *v)
{
	snprintf(err, len, "%s: '%.200s'", what, v);
	return -EINVAL;
}

static int set_name(struct config *c, const char *v, char *err, size_t len)
{
	if (!config_name_ok(v))
		return bad(err, len, "a name is 1 to 63 letters, digits, dots, dashes and underscores", v);
	snprintf(c->name, sizeof c->name, "%s", v);
	return 0;
}

int config_size(const char *v, uint64_t *bytes)
{
	uint64_t n;
	int rc = amount_parse(v, 'M', SHM_MAX_RAM, &n);

	if (rc)
		return rc;
	if (strchr(v, '.'))
		n -= n % SHM_PAGE; /* decimals are rarely meant so exactly */
	if (n < MEMORY_MIN || n % SHM_PAGE)
		return -ERANGE;
	*bytes = n;
	return 0;
}

uint64_t config_memory_cost(uint64_t memory)
{
	return shm_layout(memory).total + memory / SHM_PAGE * 64;
}

static int set_memory(struct config *c, const char *v, char *err, size_t len)
{
	int rc = config_size(v, &c->memory);

	if (!rc)
		return 0;
	return bad(err, len,
		   rc == -ERANGE ? "memory must be 1M to 1024G in whole pages of 4K"
				 : "memory is a number with K, M, G or T, such as 512M or 1.5GiB",
		   v);
}

static int set_cpus(struct config *c, const char *v, char *err, size_t len)
{
	return devopt_cpus(&c->cpus, v, err, len);
}

static int set_text(char *dst, size_t room, const char *v, char *err, size_t len)
{
	if (strlen(v) >= room)
		return bad(err, len, "too long", v);
	memcpy(dst, v, strlen(v) + 1);
	return 0;
}

static int set_kernel(struct config *c, const char *v, char *err, size_t len)
{
	return set_text(c->kernel, sizeof c->kernel, v, err, len);
}

static int set_firmware(struct config *c, const char *v, char *err, size_t len)
{
	c->firmware = !strcmp(v, "bios") ? FIRMWARE_BIOS : !strcmp(v, "uefi") ? FIRMWARE_UEFI : FIRMWARE_FILE;
	return set_text(c->firmware_path, sizeof c->firmware_path, v, err, len);
}

static int set_nvram(struct config *c, const char *v, char *err, size_t len)
{
	return set_text(c->nvram, sizeof c->nvram, v, err, len);
}

/* WHAT[,menu] or menu alone */
static int set_boot(struct config *c, const char *v, char *err, size_t len)
{
	const char *comma = strchr(v, ',');
	size_t n = comma ? (size_t)(comma - v) : strlen(v);

	c->boot_menu = comma || !strcmp(v, "menu");
	if (comma && strcmp(comma, ",menu"))
		return bad(err, len, "boot is disk, net or a device's id, then perhaps ,menu", v);
	if (n >= sizeof c->boot)
		return bad(err, len, "no device has such an id", v);
	snprintf(c->boot, sizeof c->boot, "%.*s", (int)n, strcmp(v, "menu") ? v : "");
	return 0;
}

/* FILE[,args=TEXT], once for each; an empty one forgets those before it. */
static int set_initrd(struct config *c, const char *v, char *err, size_t len)
{
	const char *args = strstr(v, INITRD_ARGS);
	size_t n = args ? (size_t)(args - v) : strlen(v);
	struct config_initrd *i = &c->initrd[c->ninitrds];

	if (!*v) {
		c->ninitrds = 0;
		return 0;
	}
	if (c->ninitrds == MSG_MODULES_MAX)
		return bad(err, len, "8 initrds at most", v);
	if (!n || n >= sizeof i->path)
		return bad(err, len, n ? "too long" : "initrd: FILE[,args=TEXT]", v);
	memcpy(i->path, v, n);
	i->path[n] = '\0';
	if (set_text(i->args, sizeof i->args, args ? args + strlen(INITRD_ARGS) : "", err, len))
		return -EINVAL;
	c->ninitrds++;
	return 0;
}

static int set_append(struct config *c, const char *v, char *err, size_t len)
{
	return set_text(c->append, sizeof c->append, v, err, len);
}

static int console_where(enum config_console *where, char *path, size_t room, const char *v, char *err, size_t len)
{
	if (!strcmp(v, "stdio"))
		*where = CONSOLE_STDIO;
	else if (!strcmp(v, "pty"))
		*where = CONSOLE_PTY;
	else if (!strncmp(v, "file:", 5) && v[5])
		*where = CONSOLE_FILE;
	else
		return bad(err, len, "a console is stdio, pty or file:PATH", v);
	return *where == CONSOLE_FILE ? set_text(path, room, v + 5, err, len) : 0;
}

static int set_console(struct config *c, const char *v, char *err, size_t len)
{
	return console_where(&c->console, c->console_path, sizeof c->console_path, v, err, len);
}

static int set_virtio_console(struct config *c, const char *v, char *err, size_t len)
{
	return console_where(&c->second, c->second_path, sizeof c->second_path, v, err, len);
}

static int set_sandbox(struct config *c, const char *v, char *err, size_t len)
{
	if (strcmp(v, "strict") && strcmp(v, "best"))
		return bad(err, len, "sandbox is strict or best", v);
	c->strict = !strcmp(v, "strict");
	return 0;
}

static int set_trace(struct config *c, const char *v, char *err, size_t len)
{
	c->trace = trace_parse(v);
	return c->trace ? 0 : bad(err, len, "trace is a list of exec,irq,mmio,mmu,exc,sys,pio or all", v);
}

static int set_trace_file(struct config *c, const char *v, char *err, size_t len)
{
	return set_text(c->trace_file, sizeof c->trace_file, v, err, len);
}

static int set_bool(bool *b, const char *v, char *err, size_t len)
{
	if (!v || !strcmp(v, "yes"))
		*b = true;
	else if (!strcmp(v, "no"))
		*b = false;
	else
		return bad(err, len, "must be yes or no", v);
	return 0;
}

static int set_no_reboot(struct config *c, const char *v, char *err, size_t len)
{
	return set_bool(&c->no_reboot, v, err, len);
}

static int set_debug_exit(struct config *c, const char *v, char *err, size_t len)
{
	return set_bool(&c->debug_exit, v, err, len);
}

static int set_exact_flags(struct config *c, const char *v, char *err, size_t len)
{
	return set_bool(&c->exact_flags, v, err, len);
}

static int set_windows(struct config *c, const char *v, char *err, size_t len)
{
	static const char *const names[WINDOWS_COUNT] = {"auto", "off", "kernel"};

	for (int i = 0; i < WINDOWS_COUNT; i++)
		if (!strcmp(v, names[i])) {
			c->windows = (enum msg_windows)i;
			return 0;
		}
	return bad(err, len, "windows is off, kernel or auto", v);
}

static int set_direct(struct config *c, const char *v, char *err, size_t len)
{
	static const char *const names[DIRECT_COUNT] = {"never", "auto", "always"};

	for (int i = 0; i < DIRECT_COUNT; i++)
		if (!strcmp(v, names[i])) {
			c->direct = (enum msg_direct)i;
			return 0;
		}
	return bad(err, len, "direct is never, auto or always", v);
}

static int set_debugcon(struct config *c, const char *v, char *err, size_t len)
{
	return set_text(c->debugcon, sizeof c->debugcon, v, err, len);
}

static int set_pidfile(struct config *c, const char *v, char *err, size_t len)
{
	return set_text(c->pidfile, sizeof c->pidfile, v, err, len);
}

static int set_log(struct config *c, const char *v, char *err, size_t len)
{
	return set_text(c->log, sizeof c->log, v, err, len);
}

/* The last of so many that begin alike gets the next number unless a name was given. */
/* "cpu7": in `stats`, too. */
static bool is_cpu(const char *id)
{
	return !strncmp(id, "cpu", 3) && id[3] && !id[3 + strspn(id + 3, "0123456789")];
}

static int take_id(const struct config *c, char *id, const char *prefix, unsigned n, char *err, size_t len)
{
	static const char *const ours[] = {"rng", "balloon", "console", "watchdog", "merge", SEED_ID}; /* in `stats` */

	if (!id[0])
		snprintf(id, MSG_ID_MAX, "%s%u", prefix, n);
	for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
		if (!strcmp(ours[i], id) || is_cpu(id))
			return bad(err, len, "this id is taken", id);
	for (unsigned i = 0; i < c->ndisks; i++)
		if (!strcmp(c->disk[i].id, id))
			return bad(err, len, "two devices with this id", id);
	for (unsigned i = 0; i < c->nnets; i++)
		if (!strcmp(c->net[i].id, id))
			return bad(err, len, "two devices with this id", id);
	return 0;
}

static int add_disk(struct config *c, const char *v, const char *prefix, bool cdrom, char *err, size_t len)
{
	struct disk_option *d = &c->disk[c->ndisks];

	if (c->ndisks == CONFIG_DISKS)
		return bad(err, len, "more than " TEXT(CONFIG_DISKS) " disks", v);
	int rc = (cdrom ? devopt_cdrom : devopt_disk)(d, v, err, len);
	if (!rc)
		rc = take_id(c, d->id, prefix, cdrom ? c->ncdroms : c->ndisks, err, len);
	c->ndisks += !rc;
	c->ncdroms += !rc && cdrom;
	return rc;
}

static int set_disk(struct config *c, const char *v, char *err, size_t len)
{
	return add_disk(c, v, "blk", false, err, len);
}

static int set_cdrom(struct config *c, const char *v, char *err, size_t len)
{
	return add_disk(c, v, "cd", true, err, len);
}

static int set_allow_path(struct config *c, const char *v, char *err, size_t len)
{
	if (c->nallowed == IMAGE_ALLOWED)
		return bad(err, len, "more than " TEXT(IMAGE_ALLOWED) " folders", v);
	int rc = set_text(c->allow_path[c->nallowed], sizeof c->allow_path[0], v, err, len);
	c->nallowed += !rc;
	return rc;
}

static int set_cloud_init(struct config *c, const char *v, char *err, size_t len)
{
	return seed_parse(&c->seed, v, err, len);
}

static int set_ssh_key(struct config *c, const char *v, char *err, size_t len)
{
	c->seed.wanted = true;
	return set_text(c->seed.key, sizeof c->seed.key, v, err, len);
}

static bool forwards_meet(const struct config *c, const struct net_option *n)
{
	for (unsigned i = 0; i < c->nnets; i++)
		for (unsigned k = 0; k < c->net[i].nforwards; k++)
			for (unsigned j = 0; j < n->nforwards; j++)
				if (devopt_forwards_meet(&c->net[i].forward[k], &n->forward[j], false))
					return true;
	return false;
}

static int set_net(struct config *c, const char *v, char *err, size_t len)
{
	struct net_option *n = &c->net[c->nnets];

	if (c->nnets == CONFIG_NETS)
		return bad(err, len, "more than " TEXT(CONFIG_NETS) " network cards", v);
	int rc = devopt_net(n, v, err, len);
	if (!rc && forwards_meet(c, n))
		return bad(err, len, "a port that another card forwards", v);
	if (!rc)
		rc = take_id(c, n->id, "net", c->nnets, err, len);
	c->nnets += !rc;
	return rc;
}

static int set_rng(struct config *c, const char *v, char *err, size_t len)
{
	return devopt_rng(&c->local, v, err, len);
}

static int set_watchdog(struct config *c, const char *v, char *err, size_t len)
{
	static const char *const actions[WATCHDOG_COUNT] = {"no", "reset", "poweroff", "pause", "none"};

	for (int i = 0; i < WATCHDOG_COUNT; i++)
		if (!strcmp(v, actions[i])) {
			c->local.watchdog = (enum msg_watchdog)i;
			return 0;
		}
	return bad(err, len, "watchdog is reset, poweroff, pause or none; no: there is none", v);
}

static int set_cpu_limit(struct config *c, const char *v, char *err, size_t len)
{
	return limits_set(&c->limits, "cpu-limit", v, err, len);
}

static int set_cpu_weight(struct config *c, const char *v, char *err, size_t len)
{
	return limits_set(&c->limits, "cpu-weight", v, err, len);
}

static int set_memory_limit(struct config *c, const char *v, char *err, size_t len)
{
	return limits_set(&c->limits, "memory-limit", v, err, len);
}

static int set_pids(struct config *c, const char *v, char *err, size_t len)
{
	return limits_set(&c->limits, "pids", v, err, len);
}

static int set_io_limit(struct config *c, const char *v, char *err, size_t len)
{
	return limits_set(&c->limits, "io-limit", v, err, len);
}

static int set_cpu_affinity(struct config *c, const char *v, char *err, size_t len)
{
	c->affine = true;
	return limits_cpus(&c->affinity, v) ? bad(err, len, "CPUs of the host, such as 0-3,8", v) : 0;
}

/* A group's name is as a VM's. */
static int set_merge(struct config *c, const char *v, char *err, size_t len)
{
	if (!config_name_ok(v))
		return bad(err, len,
			   "merge is no, self, or a group: 1 to 63 letters, digits, dots, dashes, underscores", v);
	snprintf(c->merge, sizeof c->merge, "%s", strcmp(v, "no") ? v : "");
	return 0;
}

static int set_merge_rate(struct config *c, const char *v, char *err, size_t len)
{
	return limits_set(&c->limits, "merge-rate", v, err, len);
}

/* What a value may say beside yes and no: the monitor decides how much the guest is to have. */
static int set_balloon(struct config *c, const char *v, char *err, size_t len)
{
	c->balloon_auto = v && !strcmp(v, "auto");
	return set_bool(&c->local.balloon, c->balloon_auto ? "yes" : v, err, len);
}

static int set_guarantee(struct config *c, const char *v, char *err, size_t len)
{
	return config_size(v, &c->guarantee) ? bad(err, len, "not an amount of memory", v) : 0;
}

static int set_memory_short(struct config *c, const char *v, char *err, size_t len)
{
	if (strcmp(v, "go-on") && strcmp(v, "pause"))
		return bad(err, len, "memory-short is go-on or pause", v);
	c->pause_short = !strcmp(v, "pause");
	return 0;
}

enum { SWITCH = 1, MAY_BE_EMPTY = 2, REPEATABLE = 4, VALUE_OPTIONAL = 8 };

static const struct key {
	const char *name;
	setter *set;
	unsigned flags; /* of those above */
} keys[] = {
	{"name", set_name, 0},
	{"memory", set_memory, 0},
	{"cpus", set_cpus, 0},
	{"kernel", set_kernel, 0},
	{"firmware", set_firmware, 0},
	{"nvram", set_nvram, 0},
	{"boot", set_boot, 0},
	{"initrd", set_initrd, MAY_BE_EMPTY | REPEATABLE},
	{"append", set_append, MAY_BE_EMPTY},
	{"console", set_console, 0},
	{"virtio-console", set_virtio_console, 0},
	{"sandbox", set_sandbox, 0},
	{"trace", set_trace, 0},
	{"trace-file", set_trace_file, 0},
	{"no-reboot", set_no_reboot, SWITCH},
	{"debug-exit", set_debug_exit, SWITCH},
	{"exact-flags", set_exact_flags, SWITCH},
	{"windows", set_windows, 0},
	{"direct", set_direct, 0},
	{"debugcon", set_debugcon, 0},
	{"pidfile", set_pidfile, 0},
	{"log", set_log, 0},
	{"disk", set_disk, REPEATABLE},
	{"cdrom", set_cdrom, REPEATABLE},
	{"allow-path", set_allow_path, REPEATABLE},
	{"cloud-init", set_cloud_init, 0},
	{"ssh-key", set_ssh_key, 0},
	{"net", set_net, REPEATABLE},
	{"rng", set_rng, VALUE_OPTIONAL},
	{"balloon", set_balloon, VALUE_OPTIONAL},
	{"watchdog", set_watchdog, 0},
	{"cpu-limit", set_cpu_limit, 0},
	{"cpu-weight", set_cpu_weight, 0},
	{"cpu-affinity", set_cpu_affinity, 0},
	{"memory-limit", set_memory_limit, 0},
	{"io-limit", set_io_limit, 0},
	{"pids", set_pids, 0},
	{"merge", set_merge, 0},
	{"merge-rate", set_merge_rate, 0},
	{"memory-guarantee", set_guarantee, 0},
	{"memory-short", set_memory_short, 0},
};
_Static_assert(sizeof keys / sizeof keys[0] <= 64, "a bit each in struct config's given");

static const struct key *find(const char *name)
{
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
		if (!strcmp(keys[i].name, name))
			return &keys[i];
	return NULL;
}

const char *config_key(unsigned i)
{
	return i < sizeof keys / sizeof keys[0] ? keys[i].name : NULL;
}

bool config_is_switch(const char *key)
{
	const struct key *k = find(key);

	return k && (k->flags & SWITCH);
}

int config_set(struct config *c, const char *key, const char *value, char *err, size_t len)
{
	const struct key *k = find(key);

	if (!k) {
		snprintf(err, len, "unknown setting '%.100s'", key);
		return -ENOENT;
	}
	if (!value && !(k->flags & (SWITCH | VALUE_OPTIONAL))) {
		snprintf(err, len, "%s needs a value", key);
		return -EINVAL;
	}
	if (value && !value[0] && !(k->flags & MAY_BE_EMPTY)) {
		snprintf(err, len, "%s needs a value", key);
		return -EINVAL;
	}
	if (!(k->flags & REPEATABLE) && (c->given >> (k - keys) & 1)) {
		snprintf(err, len, "%s is given twice", key);
		return -EINVAL;
	}
	int rc = k->set(c, value, err, len);
	if (!rc)
		c->given |= 1ull << (k - keys);
	return rc;
}

void config_next_source(struct config *c)
{
	c->given = 0;
}

static char *trim(char *s)
{
	while (*s == ' ' || *s == '\t')
		s++;
	size_t n = strlen(s);
	while (n && strchr(" \t\r", s[n - 1]))
		s[--n] = '\0';
	return s;
}

static int parse_line(struct config *c, char *line, char *err, size_t len)
{
	char *s = trim(line);

	if (!*s || *s == '#')
		return 0;
	char *eq = strchr(s, '=');
	if (!eq) {
		snprintf(err, len, "no '=' in the line");
		return -EINVAL;
	}
	*eq = '\0';
	return config_set(c, trim(s), trim(eq + 1), err, len) ? -EINVAL : 0;
}

int config_parse(struct config *c, const char *text, size_t n, const char *where, char *err, size_t len)
{
	unsigned no = 1;
	char line[FILE_MAX + 1], why[400];

	if (n > FILE_MAX || memchr(text, 0, n)) {
		snprintf(err, len, "%.500s: %s", where, n > FILE_MAX ? "longer than 64 KiB" : "not a text file");
		return -EINVAL;
	}
	for (size_t at = 0; at < n; no++) {
		const char *nl = memchr(text + at, '\n', n - at);
		size_t m = nl ? (size_t)(nl - text) - at : n - at;
		memcpy(line, text + at, m);
		line[m] = '\0';
		if (parse_line(c, line, why, sizeof why)) {
			snprintf(err, len, "%.500s:%u: %s", where, no, why);
			return -EINVAL;
		}
		at += m + 1;
	}
	return 0;
}

int config_load(struct config *c, const char *path, char *err, size_t len)
{
	char text[FILE_MAX + 1];
	size_t n = 0;
	ssize_t m = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0) {
		m = -errno;
		snprintf(err, len, "%.500s: %s", path, strerror(errno));
		return (int)m;
	}
	while (n < sizeof text && (m = read(fd, text + n, sizeof text - n)) > 0)
		n += (size_t)m;
	if (m < 0) {
		m = -errno;
		snprintf(err, len, "%.500s: %s", path, strerror(errno));
	}
	close(fd);
	if (m < 0)
		return (int)m;
	return config_parse(c, text, n, path, err, len);
}

static bool has_device(const struct config *c, const char *id)
{
	for (unsigned i = 0; i < c->ndisks; i++)
		if (!strcmp(c->disk[i].id, id))
			return true;
	for (unsigned i = 0; i < c->nnets; i++)
		if (!strcmp(c->net[i].id, id))
			return true;
	return false;
}

/* What a VM starts from: a kernel by itself, or what firmware finds. */
static int check_start(struct config *c, char *err, size_t len)
{
	const char *wrong = NULL;

	if (!c->kernel[0] && c->firmware == FIRMWARE_NONE && (c->ndisks || c->boot[0]))
		c->firmware = FIRMWARE_BIOS;
	if (!c->kernel[0] && c->firmware == FIRMWARE_NONE)
		wrong = "no kernel: name one with --kernel, or a disk to start from";
	else if (c->kernel[0] && c->firmware == FIRMWARE_BIOS)
		wrong = "a kernel starts by itself: --kernel needs no BIOS";
	else if (c->kernel[0] && c->firmware != FIRMWARE_NONE && c->ninitrds > 1)
		wrong = "firmware takes one initrd";
	else if (!c->kernel[0] && (c->ninitrds || c->append[0]))
		wrong = "initrd and append are a kernel's: name it with --kernel";
	else if (c->nvram[0] && c->firmware != FIRMWARE_UEFI && c->firmware != FIRMWARE_FILE)
		wrong = "nvram keeps what UEFI writes: it needs --firmware=uefi";
	else if ((c->boot[0] || c->boot_menu) && c->firmware == FIRMWARE_NONE)
		wrong = "boot is for firmware: the kernel has been chosen";
	else if (!strcmp(c->boot, "disk") && !c->ndisks)
		wrong = "boot=disk without a disk";
	else if (!strcmp(c->boot, "net") && !c->nnets)
		wrong = "boot=net without a network card";
	if (wrong) {
		snprintf(err, len, "%s", wrong);
		return -EINVAL;
	}
	if (!c->boot[0] || !strcmp(c->boot, "disk") || !strcmp(c->boot, "net") || has_device(c, c->boot))
		return 0;
	snprintf(err, len, "boot=%s: no disk or network card has this id", c->boot);
	return -EINVAL;
}

int config_check(struct config *c, char *err, size_t len)
{
	if (check_start(c, err, len))
		return -EINVAL;
	if (c->trace_file[0] && !c->trace) {
		snprintf(err, len, "trace-file without trace");
		return -EINVAL;
	}
	if (c->console == CONSOLE_STDIO && c->second == CONSOLE_STDIO) {
		snprintf(err, len, "console and virtio-console cannot both be stdio");
		return -EINVAL;
	}
	if (c->guarantee > c->memory) {
		snprintf(err, len, "memory-guarantee is more than memory");
		return -EINVAL;
	}
	if (c->limits.merge && !c->merge[0]) {
		snprintf(err, len, "merge-rate without merge");
		return -EINVAL;
	}
	if (c->direct && (c->merge[0] || msg_cpus_count(&c->cpus) > 1)) {
		snprintf(err, len, "direct=%s is not there yet for VMs %s",
			 c->direct == DIRECT_AUTO ? "auto" : "always",
			 c->merge[0] ? "whose pages are merged" : "with several CPUs");
		return -EINVAL;
	}
	if (c->seed.wanted && c->ndisks == CONFIG_DISKS) {
		snprintf(err, len, "cloud-init and ssh-key take the place of a disk: name one less");
		return -EINVAL;
	}
	if (c->debugcon[0] && !c->debug_exit && c->firmware == FIRMWARE_NONE) {
		snprintf(err, len, "debugcon without debug-exit or firmware");
		return -EINVAL;
	}
	return 0;
}

/*
 * The options of disks and network cards.  Invariant: nothing here looks at the
 * host; what is accepted is well formed, in range, and each key was given once.
 */
#include "monitor/devopt.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/amount.h"

#define KEYS_MAX 24
#define KEY_LEN  24 /* of the longest that there is, and more */

struct item {
	char key[DEVOPT_PATH_MAX]; /* may be a path that was given without path= */
	char value[DEVOPT_PATH_MAX];
	bool has_value;
};

static int bad(char *err, size_t len, const char *what, const char *v)
{
	snprintf(err, len, "%s: '%.200s'", what, v);
	return -EINVAL;
}

/* Takes the next item off *text; 1 when there was one, 0 at the end, or -EINVAL. */
static int next_item(const char **text, struct item *it, char *err, size_t len)
{
	char raw[KEY_LEN + sizeof it->value];
	size_t n = 0;
	const char *s = *text;

	if (!s)
		return 0;
	for (; *s && (*s != ',' || s[1] == ','); s++) {
		if (n == sizeof raw - 1)
			return bad(err, len, "too long", *text);
		raw[n++] = *s;
		s += *s == ',';
	}
	raw[n] = '\0';
	*text = *s ? s + 1 : NULL;
	char *eq = strchr(raw, '=');
	it->has_value = eq != NULL;
	if (eq)
		*eq++ = '\0';
	if (!raw[0] || strlen(raw) >= sizeof it->key || (eq && strlen(eq) >= sizeof it->value))
		return bad(err, len, "not an option", raw);
	memcpy(it->key, raw, strlen(raw) + 1);
	snprintf(it->value, sizeof it->value, "%.*s", (int)sizeof it->value - 1, eq ? eq : "");
	return 1;
}

int devopt_limit(struct msg_dev_limits *l, uint32_t *given, const char *key, const char *value, char *err, size_t len)
{
	const struct {
		const char *name;
		uint64_t *v;
		enum msg_limit bit;
	} keys[] = {{"ops", &l->ops, LIMIT_OPS},
		    {"packets", &l->ops, LIMIT_OPS},
		    {"ops-burst", &l->ops_burst, LIMIT_OPS_BURST},
		    {"packets-burst", &l->ops_burst, LIMIT_OPS_BURST},
		    {"bytes", &l->bytes, LIMIT_BYTES},
		    {"bytes-burst", &l->bytes_burst, LIMIT_BYTES_BURST}};

	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		if (strcmp(key, keys[i].name))
			continue;
		*given |= keys[i].bit;
		if (!strcmp(value, "none")) {
			*keys[i].v = 0;
			return 0;
		}
		return amount_parse(value, 0, 1ull << 40, keys[i].v)
			       ? bad(err, len, "a limit is a number with K, M, G or T, or none", value)
			       : 0;
	}
	return -ENOENT;
}

static int set_id(char *id, const char *v, char *err, size_t len)
{
	size_t n = strlen(v);
	bool ok = n > 0 && n < MSG_ID_MAX && isalpha((unsigned char)v[0]);

	for (size_t i = 0; i < n && ok; i++)
		ok = isalnum((unsigned char)v[i]) || strchr("._-", v[i]);
	if (!ok)
		return bad(err, len, "an id is a letter and up to 30 letters, digits, dots, dashes and underscores", v);
	snprintf(id, MSG_ID_MAX, "%.*s", MSG_ID_MAX - 1, v);
	return 0;
}

static const char *const formats[FORMAT_COUNT] = {"auto", "raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc"};

const char *devopt_format_name(enum disk_format f)
{
	return f < FORMAT_COUNT ? formats[f] : "?";
}

int devopt_format_find(const char *name, enum disk_format *f)
{
	for (int i = 0; i < FORMAT_COUNT; i++)
		if (!strcmp(formats[i], name)) {
			*f = (enum disk_format)i;
			return 0;
		}
	return -ENOENT;
}

static int one_of(const char *const *names, int n, const char *v)
{
	for (int i = 0; i < n; i++)
		if (!strcmp(names[i], v))
			return i;
	return -1;
}

/* ---- what both kinds have ---- */

typedef int setter(void *o, const char *v, char *err, size_t len);
struct key {
	const char *name;
	setter *set;
	bool is_switch, repeats;
};

static int apply(const struct key *k, void *o, const struct item *it, char *err, size_t len)
{
	if (k->is_switch && it->has_value)
		return bad(err, len, "takes no value", it->key);
	if (!k->is_switch && !it->value[0])
		return bad(err, len, "needs a value", it->key);
	return k->set(o, it->value, err, len);
}

/* @first: it is the whole text's first word; @file: and a file's name belongs behind this key. */
static int unknown(char *err, size_t len, const struct item *it, bool first, const char *file)
{
	if (!first)
		snprintf(err, len, "unknown option: '%.200s' (a comma within a value is written twice)", it->key);
	else if (file && !it->has_value)
		snprintf(err, len, "unknown option: '%.200s' (a file is given as %s=FILE)", it->key, file);
	else
		return bad(err, len, "unknown option", it->key);
	return -EINVAL;
}

static int parse(void *o, struct msg_dev_limits *l, const struct key *keys, const char *file, const char *text,
		 char *err, size_t len)
{
	const char *rest = text;
	char seen[KEYS_MAX][KEY_LEN];
	uint32_t given = 0;
	unsigned nseen = 0, n = 0;
	struct item it;
	int rc;

	while ((rc = next_item(&rest, &it, err, len)) > 0) {
		const struct key *k = keys;
		while (k->name && strcmp(k->name, it.key))
			k++;
		for (unsigned i = 0; i < nseen; i++)
			if (!strcmp(seen[i], it.key) && !k->repeats)
				return bad(err, len, "given twice", it.key);
		rc = k->name ? apply(k, o, &it, err, len) : devopt_limit(l, &given, it.key, it.value, err, len);
		if (rc == -ENOENT)
			return unknown(err, len, &it, !n, file);
		if (rc)
			return rc;
		if (nseen < KEYS_MAX)
			snprintf(seen[nseen++], KEY_LEN, "%.*s", KEY_LEN - 1, it.key);
		n++;
	}
	return rc;
}

static int set_queues(uint32_t *n, const char *v, char *err, size_t len)
{
	char *end;
	unsigned long q = strtoul(v, &end, 10);

	if (!isdigit((unsigned char)*v) || *end || !q || q > MSG_PAIRS_MAX)
		return bad(err, len, "queues are 1 to 8", v);
	*n = (uint32_t)q;
	return 0;
}
_Static_assert(MSG_PAIRS_MAX == 8, "what it says");

/* ---- disks ---- */

static int disk_path(void *o, const char *v, char *err, size_t len)
{
	struct disk_option *d = o;

	(void)err;
	(void)len;
	snprintf(d->path, sizeof d->path, "%s", v);
	return 0;
}

static int disk_format(void *o, const char *v, char *err, size_t len)
{
	struct disk_option *d = o;

	return devopt_format_find(v, &d->format)
		       ? bad(err, len, "format is auto, raw, qcow2, vmdk, vdi, vhdx or vpc", v)
		       : 0;
}

static int disk_readonly(void *o, const char *v, char *err, size_t len)
{
	(void)v, (void)err, (void)len;
	((struct disk_option *)o)->readonly = true;
	return 0;
}

static int disk_snapshot(void *o, const char *v, char *err, size_t len)
{
	(void)v, (void)err, (void)len;
	((struct disk_option *)o)->snapshot = true;
	return 0;
}

static int disk_cache(void *o, const char *v, char *err, size_t len)
{
	if (strcmp(v, "writeback") && strcmp(v, "none"))
		return bad(err, len, "cache is writeback or none", v);
	((struct disk_option *)o)->nocache = !strcmp(v, "none");
	return 0;
}

static int disk_on_error(void *o, const char *v, char *err, size_t len)
{
	if (strcmp(v, "report") && strcmp(v, "pause"))
		return bad(err, len, "on-error is report or pause", v);
	((struct disk_option *)o)->pause_error = !strcmp(v, "pause");
	return 0;
}

static int disk_serial(void *o, const char *v, char *err, size_t len)
{
	struct disk_option *d = o;

	for (const char *s = v; *s; s++)
		if (!isgraph((unsigned char)*s))
			return bad(err, len, "a serial number is up to 20 printable characters", v);
	if (strlen(v) >= sizeof d->serial)
		return bad(err, len, "a serial number is up to 20 printable characters", v);
	snprintf(d->serial, sizeof d->serial, "%s", v);
	return 0;
}

static int disk_bus(void *o, const char *v, char *err, size_t len)
{
	if (strcmp(v, "virtio") && strcmp(v, "ahci"))
		return bad(err, len, "bus is virtio or ahci", v);
	((struct disk_option *)o)->bus = strcmp(v, "ahci") ? BLK_VIRTIO : BLK_AHCI;
	return 0;
}

static int disk_queues(void *o, const char *v, char *err, size_t len)
{
	return set_queues(&((struct disk_option *)o)->queues, v, err, len);
}

static int disk_id(void *o, const char *v, char *err, size_t len)
{
	return set_id(((struct disk_option *)o)->id, v, err, len);
}

static const struct key disk_keys[] = {
	{"path", disk_path, false, false},
	{"format", disk_format, false, false},
	{"readonly", disk_readonly, true, false},
	{"snapshot", disk_snapshot, true, false},
	{"cache", disk_cache, false, false},
	{"on-error", disk_on_error, false, false},
	{"serial", disk_serial, false, false},
	{"id", disk_id, false, false},
	{"bus", disk_bus, false, false},
	{"queues", disk_queues, false, false},
	{NULL, NULL, false, false},
};

int devopt_disk(struct disk_option *o, const char *text, char *err, size_t len)
{
	memset(o, 0, sizeof *o);
	int rc = parse(o, &o->limits, disk_keys, "path", text, err, len);

	if (!rc && !o->path[0])
		return bad(err, len, "a disk needs path=FILE", text);
	if (!rc && o->readonly && o->snapshot)
		return bad(err, len, "a read-only disk has nothing to keep in a snapshot", text);
	if (!rc && o->readonly && o->bus == BLK_AHCI)
		return bad(err, len, "an ATA disk cannot tell that it is read-only: use snapshot", text);
	if (!rc && o->queues && o->bus == BLK_AHCI)
		return bad(err, len, "an ATA disk has no queues", text);
	return rc;
}

/* Two commas for one are of lists; here there is none: the name is as it is. */
int devopt_cdrom(struct disk_option *o, const char *text, char *err, size_t len)
{
	*o = (struct disk_option){.format = FORMAT_RAW, .readonly = true, .bus = BLK_CDROM};
	if (strlen(text) >= sizeof o->path)
		return bad(err, len, "too long", text);
	snprintf(o->path, sizeof o->path, "%s", text);
	return 0;
}

/* ---- network cards ---- */

static int set_backend(struct net_option *n, enum msg_net_backend b, const char *target, char *err, size_t len)
{
	if (n->backend)
		return bad(err, len, "a card has one of user, tap=, switch=", target);
	n->backend = b;
	snprintf(n->target, sizeof n->target, "%s", target);
	return 0;
}

static int net_user(void *o, const char *v, char *err, size_t len)
{
	return set_backend(o, NET_PASST, v, err, len);
}

static int net_tap(void *o, const char *v, char *err, size_t len)
{
	if (strlen(v) >= IFNAMSIZ || strpbrk(v, "/ %"))
		return bad(err, len, "not the name of a network interface", v);
	return set_backend(o, NET_TAP, v, err, len);
}

static int net_create(void *o, const char *v, char *err, size_t len)
{
	(void)v, (void)err, (void)len;
	((struct net_option *)o)->create = true;
	return 0;
}

static int net_switch(void *o, const char *v, char *err, size_t len)
{
	return set_backend(o, NET_SWITCH, v, err, len);
}

/* "80" or "8000-8010": the first and how many.  -EINVAL: not of that form; -ERANGE: no ports of that number. */
static int ports(const char *s, uint16_t *first, unsigned *n)
{
	char *end;
	unsigned long a, b;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	a = b = strtoul(s, &end, 10);
	if (*end == '-' && isdigit((unsigned char)end[1]))
		b = strtoul(end + 1, &end, 10);
	if (*end)
		return -EINVAL;
	if (!a || a > b || b > 65535)
		return -ERANGE;
	*first = (uint16_t)a;
	*n = (unsigned)(b - a + 1);
	return 0;
}

/* An address as the system writes it, so that equal ones are equal; localhost is one. */
static int address(char *out, size_t len, const char *s, bool v6)
{
	struct in6_addr a;

	if (!v6 && !strcmp(s, "localhost"))
		s = "127.0.0.1";
	if (!*s && !v6)
		return 0;
	if (inet_pton(v6 ? AF_INET6 : AF_INET, s, &a) != 1)
		return -EINVAL;
	return inet_ntop(v6 ? AF_INET6 : AF_INET, &a, out, (socklen_t)len) ? 0 : -EINVAL;
}

/* ADDR:PORTS:GUESTPORTS, taken apart in place. */
static int forward_parts(struct net_forward *f, const char *v, char *s, char *err, size_t len)
{
	static const char form[] = "forward is tcp:ADDRESS:PORT:GUESTPORT, or udp:, ports may be ranges";
	char *g = strrchr(s, ':'), *h;
	unsigned guests;

	if (g)
		*g++ = '\0';
	h = g ? strrchr(s, ':') : NULL;
	if (!h)
		return bad(err, len, form, v);
	*h++ = '\0';
	bool v6 = s[0] == '[';
	if (v6 && h[-2] != ']')
		return bad(err, len, form, v);
	if (v6)
		h[-2] = '\0';
	if (address(f->addr, sizeof f->addr, s + v6, v6))
		return bad(err, len, "not an address of this host", s + v6);
	int rc = ports(h, &f->host_port, &f->ports), rg = ports(g, &f->guest_port, &guests);
	if (rc || rg)
		return bad(err, len, rc == -ERANGE || (!rc && rg == -ERANGE) ? "no port, they are 1 to 65535" : form,
			   rc == -ERANGE          ? h
			   : rg == -ERANGE && !rc ? g
						  : v);
	if (guests != 1 && guests != f->ports)
		return bad(err, len, "not as many ports of the guest as of the host", g);
	if (f->guest_port + f->ports - 1 > 65535)
		return bad(err, len, "the guest's ports end beyond 65535", g);
	return 0;
}

/* 0.0.0.0 and :: are all of their family's, no address is all. */
static bool addresses_meet(const char *a, const char *b)
{
	bool a6 = strchr(a, ':'), b6 = strchr(b, ':');

	if (!a[0] || !b[0] || !strcmp(a, b))
		return true;
	return a6 == b6 && (!strcmp(a, a6 ? "::" : "0.0.0.0") || !strcmp(b, a6 ? "::" : "0.0.0.0"));
}

bool devopt_forwards_meet(const struct net_forward *a, const struct net_forward *b, bool one_card)
{
	return a->udp == b->udp && a->host_port < b->host_port + b->ports && b->host_port < a->host_port + a->ports &&
	       (one_card || addresses_meet(a->addr, b->addr));
}

/* tcp:ADDR:HOSTPORT:GUESTPORT; an IPv6 address in brackets, no address for all of them. */
static int net_forward(void *o, const char *v, char *err, size_t len)
{
	struct net_option *n = o;
	struct net_forward f = {.udp = v[0] == 'u'};
	unsigned total = 0;
	char s[96];

	if (n->nforwards == DEVOPT_FORWARDS)
		return bad(err, len, "more than 16 forwards", v);
	if (strlen(v) >= sizeof s || (strncmp(v, "tcp:", 4) && strncmp(v, "udp:", 4)))
		return bad(err, len, "forward is tcp: or udp:ADDRESS:PORT:GUESTPORT", v);
	snprintf(s, sizeof s, "%s", v + 4);
	int rc = forward_parts(&f, v, s, err, len);
	for (unsigned i = 0; i < n->nforwards && !rc; i++) {
		total += n->forward[i].ports;
		if (devopt_forwards_meet(&f, &n->forward[i], true))
			return bad(err, len, "a port that is forwarded twice", v);
	}
	if (!rc && total + f.ports > DEVOPT_PORTS)
		return bad(err, len, "more than 256 ports of one card", v);
	if (!rc)
		n->forward[n->nforwards++] = f;
	return rc;
}

static int net_restrict(void *o, const char *v, char *err, size_t len)
{
	(void)v, (void)err, (void)len;
	((struct net_option *)o)->restricted = true;
	return 0;
}

static int net_link(void *o, const char *v, char *err, size_t len)
{
	if (strcmp(v, "up") && strcmp(v, "down"))
		return bad(err, len, "link is up or down", v);
	((struct net_option *)o)->link_down = !strcmp(v, "down");
	return 0;
}

static int net_mac(void *o, const char *v, char *err, size_t len)
{
	struct net_option *n = o;
	bool ok = strlen(v) == 17, zero = true;

	for (int i = 0; i < 17 && ok; i++)
		ok = i % 3 == 2 ? v[i] == ':' : isxdigit((unsigned char)v[i]) != 0;
	for (int i = 0; i < 6 && ok; i++) {
		n->mac[i] = (uint8_t)strtoul(v + 3 * i, NULL, 16);
		zero = zero && !n->mac[i];
	}
	if (!ok || zero || (n->mac[0] & 1))
		return bad(err, len, "mac is six bytes like 52:54:00:12:34:56, not a group's", v);
	n->has_mac = true;
	return 0;
}

static int net_queues(void *o, const char *v, char *err, size_t len)
{
	return set_queues(&((struct net_option *)o)->queues, v, err, len);
}

static int net_mtu(void *o, const char *v, char *err, size_t len)
{
	uint64_t n;

	if (amount_parse(v, 0, DEVOPT_MTU_MAX, &n) || n < DEVOPT_MTU_MIN)
		return bad(err, len, "mtu is 576 to 65521", v);
	((struct net_option *)o)->mtu = (uint32_t)n;
	return 0;
}

static int net_id(void *o, const char *v, char *err, size_t len)
{
	return set_id(((struct net_option *)o)->id, v, err, len);
}

static const struct key net_keys[] = {
	{"user", net_user, true, false},
	{"tap", net_tap, false, false},
	{"create", net_create, true, false},
	{"switch", net_switch, false, false},
	{"forward", net_forward, false, true},
	{"mac", net_mac, false, false},
	{"restrict", net_restrict, true, false},
	{"link", net_link, false, false},
	{"mtu", net_mtu, false, false},
	{"queues", net_queues, false, false},
	{"id", net_id, false, false},
	{NULL, NULL, false, false},
};

int devopt_net(struct net_option *o, const char *text, char *err, size_t len)
{
	memset(o, 0, sizeof *o);
	int rc = parse(o, &o->limits, net_keys, NULL, text, err, len);

	if (!rc && !o->backend)
		return bad(err, len, "a card needs one of user, tap=INTERFACE, switch=SOCKET", text);
	if (!rc && o->backend != NET_PASST && (o->nforwards || o->restricted))
		return bad(err, len, "forward and restrict are for user", text);
	if (!rc && o->backend != NET_TAP && o->create)
		return bad(err, len, "create is for tap", text);
	for (unsigned i = 0; i < o->nforwards && !rc && o->restricted; i++)
		if (strchr(o->forward[i].addr, ':'))
			return bad(err, len, "restrict is IPv4 only", o->forward[i].addr);
	return rc;
}

/* ---- devices of the vcpu process ---- */

int devopt_rng(struct msg_local *l, const char *text, char *err, size_t len)
{
	static const struct key none[] = {{NULL, NULL, false, false}};
	struct msg_dev_limits limits = {.bytes = DEVOPT_RNG_BYTES};
	int rc = 0;

	l->rng = !text || strcmp(text, "no");
	if (l->rng && text && strcmp(text, "yes"))
		rc = parse(NULL, &limits, none, NULL, text, err, len);
	if (!rc && (limits.ops || limits.ops_burst))
		return bad(err, len, "its limits are bytes and bytes-burst", text);
	l->rng_bytes = limits.bytes;
	l->rng_burst = limits.bytes_burst;
	return rc;
}

/* ---- CPUs ---- */

static int cpu_count(const char *v, uint32_t *n, char *err, size_t len)
{
	char *end;
	unsigned long count = strtoul(v, &end, 10);

	if (!isdigit((unsigned char)v[0]) || *end || !count || count > MSG_CPUS_MAX)
		return bad(err, len, "a number of CPUs, sockets, cores or threads is 1 to 32", v);
	*n = (uint32_t)count;
	return 0;
}

static int cpus_part(struct msg_cpus *o, const struct item *it, char *err, size_t len)
{
	uint32_t *const part[] = {&o->sockets, &o->cores, &o->threads};
	static const char *const names[] = {"sockets", "cores", "threads"};
	int k = one_of(names, 3, it->key);

	if (k < 0)
		return bad(err, len, "cpus has sockets, cores and threads, not", it->key);
	if (*part[k])
		return bad(err, len, "given twice", it->key);
	return cpu_count(it->value, part[k], err, len);
}

/* Those not given, where @n is to be the product. */
static int cpus_complete(struct msg_cpus *o, uint32_t n, const char *text, char *err, size_t len)
{
	if (!o->threads)
		o->threads = 1;
	if (!o->sockets && !o->cores)
		o->sockets = 1;
	if (!o->sockets)
		o->sockets = n / (o->cores * o->threads);
	if (!o->cores)
		o->cores = n / (o->sockets * o->threads);
	if (o->sockets * o->cores * o->threads != n)
		return bad(err, len, "the CPUs are not sockets times cores times threads", text);
	return 0;
}

int devopt_cpus(struct msg_cpus *o, const char *text, char *err, size_t len)
{
	struct msg_cpus n = {0};
	const char *rest = text;
	struct item it;
	uint32_t count;
	int rc = next_item(&rest, &it, err, len);

	if (rc <= 0 || it.has_value)
		return bad(err, len, "cpus is N[,sockets=S][,cores=C][,threads=T]", text);
	if (cpu_count(it.key, &count, err, len))
		return -EINVAL;
	while ((rc = next_item(&rest, &it, err, len)) > 0)
		if (cpus_part(&n, &it, err, len))
			return -EINVAL;
	if (!rc)
		rc = cpus_complete(&n, count, text, err, len);
	if (!rc)
		*o = n;
	return rc;
}

/*
 * The differential test of disks: random reads, writes, discards, zeroes and flushes at random depth against a model, by
 * a real hvx-blk (and qemu-nbd), which is killed at random moments; then everything is read and compared.
 *
 * Properties: a read finds what was written; after SIGKILL of hvx-blk everything that was acknowledged is there, after
 * SIGKILL of qemu-nbd too everything that a flush or a durable write had covered; sectors in flight are old or new
 * (qcow2 after SIGKILL of qemu-nbd: model.c); a snapshot leaves the image as it was; what an image of any format holds at
 * the end, qemu-img finds in it.
 *
 * Usage: blk_diff [--kind=NAME] [--kills=N] [--seed=N] [--dir=DIR]
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/blk/model.h"
#include "tests/blk/vm.h"

#define SECTORS (9000u + 3u) /* 4.4 MiB, no whole pages */

struct kind {
	const char *name;
	enum disk_format format;
	bool snapshot, no_uring;
	unsigned share;      /* of the kills, in percent */
	const char *options; /* for qemu-img create; %s is the image */
};
/* The last six promise nothing of what a qemu-nbd that is killed leaves: only hvx-blk is. */
static const struct kind kinds[] = {
	{"raw", FORMAT_RAW, false, false, 28, ""},
	{"threads", FORMAT_RAW, false, true, 26, ""},
	{"qcow2", FORMAT_QCOW2, false, false, 28, ""},
	{"snapshot", FORMAT_RAW, true, false, 4, ""},
	{"snapshot-threads", FORMAT_RAW, true, true, 4, ""},
	{"snapshot-qcow2", FORMAT_QCOW2, true, false, 4, ""},
	{"qcow2-base", FORMAT_QCOW2, false, false, 4, "-b %s.base -F raw"},
	{"qcow2-data", FORMAT_QCOW2, false, false, 2, "-o data_file=%s.data"},
	{"vmdk-extents", FORMAT_VMDK, false, false, 2, "-o subformat=twoGbMaxExtentSparse"},
	{"vmdk", FORMAT_VMDK, false, false, 2, ""},
	{"vdi", FORMAT_VDI, false, false, 2, ""},
	{"vhdx", FORMAT_VHDX, false, false, 2, ""},
	/* not rounded to what cylinders and heads can tell */
	{"vpc", FORMAT_VPC, false, false, 2, "-o force_size=on"},
	{"vpc-fixed", FORMAT_VPC, false, false, 2, "-o force_size=on,subformat=fixed"},
};

struct test {
	const struct kind *kind;
	struct vm v;
	struct model m, base;
	struct rng r;
	char image[256];
	uint64_t flush_of[VM_SLOTS];
	bool through; /* this life's driver knows no flushes */
	bool churn;   /* this life's requests are large, and mostly discards and zeroes */
	const char *ended;
	unsigned depth, kills, life;
	uint64_t seed, requests;
};

/* ---- one request ---- */

static void begin(struct test *t, unsigned slot, uint32_t type, uint64_t at, uint32_t n)
{
	uint8_t *p = vm_data(&t->v, slot);
	uint32_t number;

	switch (type) {
	case VM_IN: model_read(&t->m, at, n); break;
	case VM_OUT:
		number = model_write(&t->m, at, n);
		for (uint32_t i = 0; i < n; i++)
			model_fill(p + i * MODEL_SECTOR, number, at + i);
		break;
	case VM_FLUSH: t->flush_of[slot] = model_flush(&t->m); break;
	default: model_zero(&t->m, at, n, type == VM_DISCARD);
	}
	vm_put(&t->v, slot, type, at, n * MODEL_SECTOR);
	t->requests++;
}

/* One that does not race with what is in flight; false when the dice have not shown one. */
static bool begin_random(struct test *t, unsigned slot)
{
	static const uint32_t mixed[] = {VM_IN,  VM_IN,    VM_IN,      VM_OUT,    VM_OUT, VM_OUT,
					 VM_OUT, VM_FLUSH, VM_DISCARD, VM_ZEROES, VM_OUT, VM_IN};
	static const uint32_t churn[] = {VM_OUT,   VM_OUT,     VM_OUT,     VM_OUT,    VM_IN,     VM_IN,
					 VM_FLUSH, VM_DISCARD, VM_DISCARD, VM_ZEROES, VM_ZEROES, VM_ZEROES};
	_Static_assert(sizeof mixed == sizeof churn, "one dice");
	struct rng *r = &t->r;

	for (int try = 0; try < 20; try++) {
		uint32_t type = (t->churn ? churn : mixed)[below(r, sizeof mixed / sizeof mixed[0])];
		uint32_t most = t->churn || one_in(r, 4) ? VM_ROOM / MODEL_SECTOR : 16;
		uint64_t at = below(r, SECTORS);
		uint32_t n = 1 + below(r, most);
		if (one_in(r, 2))
			at &= ~7ull;
		if (n > SECTORS - at)
			n = (uint32_t)(SECTORS - at);
		bool may = type == VM_FLUSH ||
			   (type == VM_IN ? model_may_read(&t->m, at, n) : model_may_write(&t->m, at, n));
		if (type == VM_FLUSH && t->through)
			continue; /* it knows no such thing */
		if (may) {
			begin(t, slot, type, type == VM_FLUSH ? 0 : at, type == VM_FLUSH ? 0 : n);
			return true;
		}
	}
	return false;
}

/* What was found, what could have been, and how the life before this one ended. */
static void wrong(struct test *t, uint64_t at, uint32_t n, const uint8_t *data)
{
	for (; n; n--, at++, data += MODEL_SECTOR) {
		const struct model_sector *s = &t->m.s[at];
		uint64_t head[2];
		if (model_may_hold(&t->m, at, data))
			continue;
		memcpy(head, data, sizeof head);
		fprintf(stderr, "sector %llu: 0x%llx 0x%llx and not", (unsigned long long)at,
			(unsigned long long)head[0], (unsigned long long)head[1]);
		for (unsigned i = 0; i < s->n_now; i++)
			fprintf(stderr, " 0x%x", s->now[i]);
		fprintf(stderr, "\n");
	}
	vm_die("%s, life %u: does not hold what was written; the life before ended %s", t->kind->name, t->life,
	       t->ended);
}

/* @broken: its server was killed. */
static void end(struct test *t, unsigned slot, bool broken)
{
	struct vm_slot *s = &t->v.slot[slot];
	uint32_t n = s->len / MODEL_SECTOR;
	bool ok = s->status == VM_OK;

	if (!ok && !(broken && s->status == VM_IOERR)) {
		vm_show(&t->v);
		vm_die("%s, life %u: request %u at sector %llu: status %d", t->kind->name, t->life, s->type,
		       (unsigned long long)s->sector, s->status);
	}
	if (ok && s->type == VM_IN && !model_read_done(&t->m, s->sector, n, vm_data(&t->v, slot)))
		wrong(t, s->sector, n, vm_data(&t->v, slot));
	if (ok && s->type == VM_FLUSH)
		model_flush_done(&t->m, t->flush_of[slot]);
	if (s->type == VM_OUT || s->type == VM_ZEROES || s->type == VM_DISCARD) {
		if (ok)
			model_write_done(&t->m, s->sector, n, t->through, s->type == VM_DISCARD);
		else
			model_write_failed(&t->m, s->sector, n);
	}
	s->status = VM_FREE;
}

static void collect(struct test *t, bool broken)
{
	for (unsigned i = 0; i < VM_SLOTS; i++)
		if (t->v.slot[i].status != VM_FREE && t->v.slot[i].status != VM_FLYING)
			end(t, i, broken);
}

/* As many as the depth allows. */
static void submit(struct test *t)
{
	for (unsigned i = 0; i < VM_SLOTS && t->v.flying < t->depth; i++)
		if (t->v.slot[i].status == VM_FREE && !begin_random(t, i))
			break;
	vm_ring(&t->v);
}

/* ---- a life ---- */

static void drain(struct test *t, bool broken)
{
	while (t->v.flying) {
		vm_wait(&t->v);
		collect(t, broken);
	}
}

/* The whole disk, as deep as it goes. */
static void read_all(struct test *t)
{
	const uint32_t step = VM_ROOM / MODEL_SECTOR;

	for (uint64_t at = 0; at < SECTORS;) {
		for (unsigned i = 0; i < VM_SLOTS && at < SECTORS; i++) {
			if (t->v.slot[i].status != VM_FREE)
				continue;
			uint32_t n = SECTORS - at < step ? (uint32_t)(SECTORS - at) : step;
			begin(t, i, VM_IN, at, n);
			at += n;
		}
		vm_ring(&t->v);
		vm_wait(&t->v);
		collect(t, false);
	}
	drain(t, false);
	model_settled(&t->m);
}

static void start(struct test *t)
{
	struct vm_setup s = {.image = t->image,
			     .format = t->kind->format,
			     .snapshot = t->kind->snapshot && t->life,
			     .no_uring = t->kind->no_uring,
			     .through = one_in(&t->r, 4)};
	uint64_t off = 0;

	vm_start(&t->v, &s, rnd(&t->r));
	if (one_in(&t->r, 3))
		off |= VM_F_FLUSH;
	if (one_in(&t->r, 2))
		off |= 1ull << (28 + below(&t->r, 2)); /* without indirect tables or event indices */
	t->through = s.through || (off & VM_F_FLUSH);
	t->churn = one_in(&t->r, 4);
	vm_activate(&t->v, ~off);
	if (vm_sectors(&t->v) != SECTORS)
		vm_die("%s: %llu sectors", t->kind->name, (unsigned long long)vm_sectors(&t->v));
	if (t->kind->format == FORMAT_RAW && t->kind->no_uring && vm_counter(&t->v, "io_uring"))
		vm_die("%s: served by io_uring", t->kind->name);
	read_all(t);
}

static void pause_us(struct test *t, unsigned most)
{
	struct timespec ts = {0, 1000 * (long)below(&t->r, most)};

	nanosleep(&ts, NULL);
}

static void run(struct test *t, unsigned requests)
{
	uint64_t end_at = t->requests + requests;

	while (t->requests < end_at) {
		t->depth = one_in(&t->r, 10) ? 1 + below(&t->r, VM_SLOTS) : t->depth;
		submit(t);
		vm_wait(&t->v);
		collect(t, false);
	}
	if (one_in(&t->r, 2))
		submit(t); /* killed as they arrive */
	pause_us(t, one_in(&t->r, 3) ? 3000 : 200);
}

/* hvx-blk alone, qemu-nbd first, or both at once. */
static void kill_it(struct test *t)
{
	static const char *const ways[] = {"by a kill of hvx-blk", "by a kill of qemu-nbd first", "by a kill of both"};
	unsigned how = t->kind->format == FORMAT_QCOW2 ? below(&t->r, 3) : 0;

	t->ended = ways[how];
	if (how == 1) { /* what is in flight fails, and what comes after it */
		vm_kill(&t->v, false, true);
		collect(t, true);
		drain(t, true);
		if (!t->kind->snapshot && vm_do(&t->v, VM_IN, 0, MODEL_SECTOR) != VM_IOERR)
			vm_die("%s: a read without a server succeeds", t->kind->name);
		t->v.slot[0].status = VM_FREE;
	}
	vm_kill(&t->v, true, how == 2);
	collect(t, how != 0); /* it may have seen the server go first */
	if (t->kind->snapshot)
		model_copy(&t->m, &t->base);
	else
		model_crash(&t->m, how ? MODEL_LOST : MODEL_CACHED);
}

/* ---- the image, by other means ---- */

static void must_run(const char *fmt, const char *image)
{
	char cmd[600];

	snprintf(cmd, sizeof cmd, fmt, image, image);
	int rc = system(cmd);
	if (rc)
		vm_die("%s: status 0x%x", cmd, rc);
}

static void make_image(struct test *t)
{
	unlink(t->image);
	if (t->kind->format != FORMAT_RAW) {
		char cmd[1000], options[400];
		if (strstr(t->kind->options, ".base"))
			must_run("truncate -s 4609536 %s.base", t->image);
		snprintf(options, sizeof options, t->kind->options, t->image);
		snprintf(cmd, sizeof cmd, "qemu-img create -q -f %s %s %s %u", devopt_format_name(t->kind->format),
			 options, t->image, SECTORS * MODEL_SECTOR);
		if (system(cmd))
			vm_die("%s fails", cmd);
		return;
	}
	int fd = open(t->image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, SECTORS * MODEL_SECTOR))
		vm_die("%s: %s", t->image, strerror(errno));
	close(fd);
}

static void check_image(struct test *t)
{
	bool is_raw = t->kind->format == FORMAT_RAW;
	char raw[300], convert[100];
	uint8_t buf[MODEL_SECTOR];

	snprintf(raw, sizeof raw, "%s%s", t->image, is_raw ? "" : ".raw");
	if (!is_raw) { /* status 3: clusters that nobody uses, which a crash may leave; 63: vpc has no check */
		must_run(t->kind->format == FORMAT_VPC
				 ? "qemu-img check -q -f vpc %s >/dev/null 2>&1; [ $? = 63 ]"
				 : "qemu-img check -q %s >/dev/null 2>&1; rc=$?; [ $rc = 0 ] || [ $rc = 3 ]",
			 t->image);
		snprintf(convert, sizeof convert, "qemu-img convert -f %s -O raw %%s %%s.raw",
			 devopt_format_name(t->kind->format));
		must_run(convert, t->image);
	}
	int fd = open(raw, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		vm_die("%s: %s", raw, strerror(errno));
	model_read(&t->m, 0, SECTORS);
	for (uint64_t i = 0; i < SECTORS; i++)
		if (pread(fd, buf, sizeof buf, (off_t)(i * sizeof buf)) != sizeof buf ||
		    !model_read_done(&t->m, i, 1, buf))
			vm_die("%s: sector %llu of the image is wrong", t->kind->name, (unsigned long long)i);
	close(fd);
	unlink(raw);
	must_run("f=%s; rm -f $f* ${f%%.img}-*.img", t->image);
}

/* ---- all of it ---- */

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* A life without a kill: what it leaves is flushed by the end. */
static void quiet_life(struct test *t)
{
	start(t);
	run(t, 200);
	drain(t, false);
	vm_stop(&t->v);
	model_settled(&t->m);
}

static void test_kind(const struct kind *k, unsigned kills, uint64_t seed, const char *dir)
{
	static struct test t;
	double from = seconds();

	memset(&t, 0, sizeof t);
	t.kind = k;
	t.kills = kills;
	t.r.s = seed;
	t.depth = 8;
	t.ended = "by itself";
	snprintf(t.image, sizeof t.image, "%s/%s.img", dir, k->name);
	model_init(&t.m, SECTORS);
	model_init(&t.base, SECTORS);
	t.m.reuses = k->format == FORMAT_QCOW2;
	make_image(&t);
	quiet_life(&t);
	model_copy(&t.base, &t.m);
	for (t.life = 1; t.life <= kills; t.life++) {
		start(&t);
		run(&t, 20 + below(&t.r, t.churn ? 60 : one_in(&t.r, 4) ? 1500 : 300));
		kill_it(&t);
	}
	if (k->snapshot && kills) { /* and by itself */
		start(&t);
		run(&t, 100);
		drain(&t, false);
		vm_stop(&t.v);
		model_copy(&t.m, &t.base);
	} else if (kills) {
		start(&t);
		drain(&t, false);
		vm_stop(&t.v);
	}
	check_image(&t);
	printf("%-16s %4u kills, %6llu requests, %.1f s\n", k->name, kills, (unsigned long long)t.requests,
	       seconds() - from);
	fflush(stdout);
	model_free(&t.m);
	model_free(&t.base);
	vm_free(&t.v);
}

static const char *value(const char *arg, const char *name)
{
	size_t n = strlen(name);

	return !strncmp(arg, name, n) && arg[n] == '=' ? arg + n + 1 : NULL;
}

int main(int argc, char **argv)
{
	const char *kind = NULL, *dir = NULL, *s, *tmp = getenv("TMPDIR");
	unsigned kills = 50;
	uint64_t seed = 1;
	char own[200];

	for (int i = 1; i < argc; i++) {
		if ((s = value(argv[i], "--kind")))
			kind = s;
		else if ((s = value(argv[i], "--kills")))
			kills = (unsigned)strtoul(s, NULL, 0);
		else if ((s = value(argv[i], "--seed")))
			seed = strtoull(s, NULL, 0);
		else if ((s = value(argv[i], "--dir")))
			dir = s;
		else
			vm_die("usage: blk_diff [--kind=NAME] [--kills=N] [--seed=N] [--dir=DIR]");
	}
	snprintf(own, sizeof own, "%s/hvx-blk-XXXXXX", tmp && *tmp ? tmp : "/var/tmp");
	if (!dir && !(dir = mkdtemp(own)))
		vm_die("%s: %s", own, strerror(errno));
	printf("seed %llu, images in %s\n", (unsigned long long)seed, dir);
	fflush(stdout);
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (!kind || !strcmp(kind, kinds[i].name))
			test_kind(&kinds[i], kind ? kills : (kills * kinds[i].share + 99) / 100, seed + i, dir);
	if (dir == own)
		rmdir(own);
	return 0;
}

/*
 * The seed of a cloud image: user-data, meta-data and network-config on an ISO file system labelled CIDATA (cloud-init's
 * documentation of the NoCloud data source), made by genisoimage.  Invariant: neither the texts nor the disk have a name in any
 * file system, so whatever ends the monitor ends them; genisoimage sees these descriptors and nothing of the user's.
 */
#include "monitor/seed.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "monitor/confine.h"
#include "monitor/spawn.h"
#include "monitor/toolseal.h"

#define TEXT_MAX_ (1u << 20)
#define NOBODY    65534
#define PATIENCE  30000 /* ms */

static const char *const names[SEED_FILES] = {"user-data", "meta-data", "network-config"};

/* ---- options ---- */

int seed_parse(struct seed_option *o, const char *text, char *err, size_t len)
{
	unsigned k = 0;
	size_t n = 0;

	memset(o->file, 0, sizeof o->file);
	for (const char *s = text; *s; s++) {
		if (*s == ',' && s[1] != ',') {
			n = 0;
			if (++k < SEED_FILES)
				continue;
			snprintf(err, len, "cloud-init is USER-DATA[,META-DATA[,NETWORK]]: '%.200s'", text);
			return -EINVAL;
		}
		s += *s == ',';
		if (n + 1 >= sizeof o->file[0]) {
			snprintf(err, len, "too long: '%.200s'", text);
			return -EINVAL;
		}
		o->file[k][n++] = *s;
	}
	o->wanted = true;
	return 0;
}

/* ---- texts ---- */

struct text {
	char *s;
	size_t n;
};

static int read_text(const char *path, struct text *t, char *err, size_t len)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK), rc = 0;

	t->s = malloc(TEXT_MAX_ + 1);
	if (fd < 0 || fstat(fd, &st) < 0)
		rc = -errno;
	else if (!S_ISREG(st.st_mode))
		rc = -EINVAL;
	else if (!t->s)
		rc = -ENOMEM;
	for (ssize_t k = 1; !rc && k > 0 && t->n <= TEXT_MAX_; t->n += k > 0 ? (size_t)k : 0) {
		k = read(fd, t->s + t->n, TEXT_MAX_ + 1 - t->n);
		rc = k < 0 ? -errno : 0;
	}
	if (!rc && t->n > TEXT_MAX_)
		rc = -EFBIG;
	if (rc)
		snprintf(err, len, "%s: %s", path,
			 rc == -EINVAL  ? "not a regular file"
			 : rc == -EFBIG ? "longer than 1 MiB"
					: strerror(-rc));
	else
		t->s[t->n] = '\0';
	if (fd >= 0)
		close(fd);
	return rc;
}

/* cloud-init goes by the beginning (its "user data formats") and does nothing, without a word, where it knows none. */
static bool known_user_data(const struct text *t)
{
	static const char *const begins[] = {"#cloud-config", "#!",          "#include", "#cloud-boothook",
					     "#part-handler", "## template", "#upstart", "Content-Type:",
					     "content-type:", "MIME-",       "From ",    "#cloud-config-archive",
					     "\x1f\x8b\x08"};

	for (size_t i = 0; i < sizeof begins / sizeof begins[0]; i++)
		if (!strncmp(t->s, begins[i], strlen(begins[i])))
			return true;
	return false;
}

static int check_text(enum seed_file f, const char *path, const struct text *t, char *err, size_t len)
{
	if (f == SEED_USER_DATA && !known_user_data(t)) {
		snprintf(err, len, "%s: begins like no user-data that cloud-init knows, such as #cloud-config or #!",
			 path);
		return -EINVAL;
	}
	if (memchr(t->s, 0, t->n) && strncmp(t->s, "\x1f\x8b", 2)) {
		snprintf(err, len, "%s: not a text", path);
		return -EINVAL;
	}
	return 0;
}

/* A public key in one line of printable characters, of a kind that OpenSSH knows. */
static bool is_key(const char *line)
{
	static const char *const kinds[] = {"ssh-ed25519 ", "ssh-rsa ",       "ecdsa-sha2-",
					    "sk-ssh-",      "sk-ecdsa-sha2-", "ssh-dss "};

	for (const char *s = line; *s; s++)
		if (*s < ' ' || *s > '~')
			return false;
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (!strncmp(line, kinds[i], strlen(kinds[i])))
			return strchr(line, ' ') && isalnum((unsigned char)strchr(line, ' ')[1]);
	return false;
}

/* A YAML string. */
static void put_key(FILE *f, const char *line)
{
	fputs("  - \"", f);
	for (; *line; line++) {
		if (*line == '"' || *line == '\\')
			fputc('\\', f);
		fputc(*line, f);
	}
	fputs("\"\n", f);
}

static int put_keys(FILE *f, const char *path, char *err, size_t len)
{
	struct text t = {NULL, 0};
	char *save = NULL;
	unsigned n = 0;
	int rc = read_text(path, &t, err, len);

	if (!rc && strstr(t.s, "PRIVATE KEY-----")) {
		snprintf(err, len, "%s: a private key; the public one is named so with .pub behind it", path);
		rc = -EINVAL;
	}
	if (!rc)
		fputs("public-keys:\n", f);
	for (char *l = rc ? NULL : strtok_r(t.s, "\r\n", &save); l && !rc; l = strtok_r(NULL, "\r\n", &save)) {
		if (l[0] == '#')
			continue;
		if (is_key(l))
			put_key(f, l);
		else
			rc = -EINVAL;
		n++;
	}
	if ((!n || rc) && t.s && !err[0]) {
		snprintf(err, len, "%s: not a public key of OpenSSH, one a line", path);
		rc = -EINVAL;
	}
	free(t.s);
	return rc;
}

/* Another seed is another instance: cloud-init does its work again. */
static uint64_t hash(uint64_t h, const struct text *t)
{
	for (size_t i = 0; i < t->n; i++)
		h = (h ^ (uint8_t)t->s[i]) * 0x100000001b3ull; /* FNV-1a */
	return h;
}

/* The user's, or one that follows from the VM's name and the other texts; with the keys behind it. */
static int make_meta_data(const struct seed_option *o, struct text t[SEED_FILES], const char *vm, char *err, size_t len)
{
	struct text out = {NULL, 0};
	FILE *f = open_memstream(&out.s, &out.n);
	uint64_t h = hash(hash(0xcbf29ce484222325ull, &t[SEED_USER_DATA]), &t[SEED_NETWORK]);
	const struct text *own = &t[SEED_META_DATA];
	int rc = 0;

	if (!f)
		return -ENOMEM;
	if (o->key[0] && own->s && (own->s[0] == '{' || strstr(own->s, "public-keys"))) {
		snprintf(err, len, "%s: has public-keys, or is JSON: put the key there, without --ssh-key",
			 o->file[SEED_META_DATA]);
		rc = -EINVAL;
	} else if (own->s) {
		fwrite(own->s, 1, own->n, f);
		fputs(own->n && own->s[own->n - 1] == '\n' ? "" : "\n", f);
	} else {
		fprintf(f, "instance-id: %s-%016llx\nlocal-hostname: %s\n", vm, (unsigned long long)h, vm);
	}
	if (!rc && o->key[0])
		rc = put_keys(f, o->key, err, len);
	fclose(f);
	free(t[SEED_META_DATA].s);
	t[SEED_META_DATA] = out;
	return rc;
}

/* ---- descriptors ---- */

static int make_file(const char *name, const char *s, size_t n, int *fd)
{
	*fd = memfd_create(name, MFD_CLOEXEC);
	if (*fd < 0)
		return -errno;
	for (ssize_t k; n; s += k, n -= (size_t)k)
		if ((k = write(*fd, s, n)) <= 0)
			return k < 0 ? -errno : -EIO;
	return 0;
}

int seed_open(struct seed *s, const struct seed_option *o, const char *vm, char *err, size_t len)
{
	struct text t[SEED_FILES] = {{NULL, 0}};
	char why[PATH_MAX + 128] = "";
	int rc = 0;

	*s = (struct seed){{-1, -1, -1}, -1};
	for (int i = 0; i < SEED_FILES && !rc; i++) {
		if (!o->file[i][0])
			continue;
		rc = read_text(o->file[i], &t[i], why, sizeof why);
		if (!rc)
			rc = check_text((enum seed_file)i, o->file[i], &t[i], why, sizeof why);
	}
	if (!rc && !t[SEED_USER_DATA].s) {
		t[SEED_USER_DATA].s = strdup("#cloud-config\n{}\n");
		t[SEED_USER_DATA].n = t[SEED_USER_DATA].s ? strlen(t[SEED_USER_DATA].s) : 0;
	}
	if (!rc)
		rc = make_meta_data(o, t, vm, why, sizeof why);
	for (int i = 0; i < SEED_FILES && !rc; i++)
		if (t[i].s)
			rc = make_file(names[i], t[i].s, t[i].n, &s->text[i]);
	if (!rc)
		rc = make_file("seed", NULL, 0, &s->disk);
	for (int i = 0; i < SEED_FILES; i++)
		free(t[i].s);
	if (rc)
		snprintf(err, len, "cloud-init: %s", why[0] ? why : strerror(-rc));
	if (rc)
		seed_close(s);
	return rc;
}

void seed_close(struct seed *s)
{
	for (int i = 0; i < SEED_FILES; i++)
		if (s->text[i] >= 0)
			close(s->text[i]);
	if (s->disk >= 0)
		close(s->disk);
	*s = (struct seed){{-1, -1, -1}, -1};
}

/* ---- genisoimage ---- */

struct call {
	char text[8][64];
	char *v[20];
	int fds[SEED_FILES], n;
	unsigned nfds;
};

static int again(struct call *c, int fd, char *name, size_t len, const char *prefix)
{
	char path[32];

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	c->fds[c->nfds] = open(path, O_PATH | O_CLOEXEC);
	snprintf(name, len, "%s" CONFINE_IMAGE_PREFIX "%u", prefix, CONFINE_IMAGE_FD + c->nfds);
	return c->fds[c->nfds++] < 0 ? -errno : 0;
}

static int arguments(struct call *c, const struct seed *s, const char *program)
{
	static const char *const always[] = {
		"-quiet", "-f", "-V", "CIDATA", "-J", "-r", "-graft-points", "-o", CONFINE_IMAGE_PREFIX "3"};
	char prefix[24];
	int rc = 0;

	c->v[c->n++] = (char *)(uintptr_t)program;
	for (size_t i = 0; i < sizeof always / sizeof always[0]; i++)
		c->v[c->n++] = (char *)(uintptr_t)always[i];
	for (int i = 0; i < SEED_FILES && !rc; i++) {
		if (s->text[i] < 0)
			continue;
		snprintf(prefix, sizeof prefix, "%s=", names[i]);
		rc = again(c, s->text[i], c->text[i], sizeof c->text[0], prefix);
		c->v[c->n++] = c->text[i];
	}
	c->v[c->n] = NULL;
	return rc;
}

/* It takes a tenth of a second. */
static int finish(struct proc *p, char *err, size_t len)
{
	char cause[128];
	int ws = 0;
	pid_t pid = 0;

	for (int ms = 0; ms < PATIENCE && !pid; ms += 5) {
		pid = waitpid(p->pid, &ws, WNOHANG);
		if (!pid)
			usleep(5000);
	}
	if (!pid) {
		spawn_kill(p);
		waitpid(p->pid, &ws, 0);
	}
	lines_take(&p->log);
	if (ws)
		snprintf(err, len, "%s%s%.128s", pid ? spawn_cause(ws, cause, sizeof cause) : "does not end",
			 p->log.last[0] ? ": " : "", p->log.last);
	spawn_finished(p);
	return ws ? -EIO : 0;
}

int seed_make(struct seed *s, struct ipc_loop *l, const char *vm, bool strict, char *err, size_t len)
{
	static const char *const files[] = {"/etc/ld.so.cache", "/dev/null", NULL};
	static const char program[] = "/usr/bin/genisoimage";
	struct call c = {.nfds = 0};
	struct proc p = {.program = "genisoimage", .name = "genisoimage"};
	struct spawn_tool t = {.argv = c.v,
			       .strict = strict,
			       .files = files,
			       .fd = s->disk,
			       .images = c.fds,
			       .table = &seed_seal,
			       .guest = {.want = SANDBOX_ALL, .uid = NOBODY, .gid = NOBODY}};
	int rc = arguments(&c, s, program);

	err[0] = '\0';
	t.nimages = c.nfds;
	if (rc) {
		snprintf(err, len, "%s", strerror(-rc));
	} else if (access(program, X_OK) < 0) {
		snprintf(err, len, "not installed: --cloud-init and --ssh-key need the package genisoimage");
		rc = -ENOENT;
	} else {
		rc = spawn_tool(l, &p, &t, vm, err, len);
	}
	if (!rc) {
		p.log.holds = true;
		rc = finish(&p, err, len);
	}
	for (unsigned i = 0; i < c.nfds; i++)
		if (c.fds[i] >= 0)
			close(c.fds[i]);
	return rc;
}

/*
 * Opening disk images, with the files that their headers name.  Invariant: a raw image is never recognised by what is in it,
 * because the guest writes that; no descriptor leaves here without its lock; what an image names is a regular file below a
 * folder that the user named, whatever links and dots are on the way.
 */
#include "monitor/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/text.h"
#include "monitor/confine.h"
#include "monitor/imagelock.h"
#include "monitor/inspect.h"

#define NAME_SHOWN 200

struct open {
	struct image *i;
	struct disk_option *d;
	char *err;
	size_t len;
};

static const char *const links[HEADER_LINKS] = {"backing file", "data file", "extent"};

/* "disk web.qcow2: backing file 2, base.raw: " */
static int where(const struct open *o, unsigned parent, const struct header_ref *r, char *s, size_t len)
{
	const struct image_file *p = &o->i->file[parent];
	char name[NAME_SHOWN + 1], of[48] = "";

	if (!r)
		return snprintf(s, len, "disk %s: ", o->d->path);
	text_clean(name, sizeof name, r->name, strlen(r->name));
	if (r->link == HEADER_BACKING)
		return snprintf(s, len, "disk %s: backing file %u, %s: ", o->d->path, p->depth + 1, name);
	if (p->depth)
		snprintf(of, sizeof of, " of backing file %u", p->depth);
	return snprintf(s, len, "disk %s: %s%s, %s: ", o->d->path, links[r->link], of, name);
}

__attribute__((format(printf, 5, 6))) static int fail(const struct open *o, unsigned parent, const struct header_ref *r,
						      int rc, const char *fmt, ...)
{
	va_list ap;
	int n = where(o, parent, r, o->err, o->len);

	va_start(ap, fmt);
	if (n >= 0 && (size_t)n < o->len)
		vsnprintf(o->err + n, o->len - (size_t)n, fmt, ap);
	va_end(ap);
	return rc;
}

/* ---- one file ---- */

static bool named_raw(const char *path)
{
	const char *dot = strrchr(path, '.');

	return dot && (!strcmp(dot, ".raw") || !strcmp(dot, ".img"));
}

/* Lock, header; what it names goes into @found. */
static int look(const struct open *o, struct image_file *f, unsigned parent, const struct header_ref *r,
		struct inspection *found)
{
	const struct inspect_ask ask = {.format = f->format, .raw = named_raw(f->path) || f->block, .write = f->write};
	char holder[160];
	int rc = inspect(f->fd, &ask, found);

	if (rc)
		return fail(o, parent, r, rc, "%s", found->why);
	f->format = found->format;
	rc = image_lock(f->fd, f->write);
	if (rc == -EBUSY) {
		image_lock_holder(f->fd, holder, sizeof holder);
		return fail(o, parent, r, rc, "in use by %s", holder);
	}
	return rc ? fail(o, parent, r, rc, "lock: %s", strerror(-rc)) : 0;
}

static struct image_file *add(struct image *i)
{
	struct image_file *f = &i->file[i->n++];

	*f = (struct image_file){.fd = -1, .hand = -1};
	return f;
}

/* ---- what is named ---- */

/* By what qemu's rules are a protocol's name: a colon before the first slash. */
static bool is_protocol(const char *name)
{
	return name[strcspn(name, ":/")] == ':';
}

static int in_root(const struct image *i, const char *absolute, unsigned *root, char path[PATH_MAX])
{
	for (unsigned k = 0; k < i->nroots; k++) {
		const char *rest = beneath_root_rest(&i->root[k], absolute);
		if (!rest)
			continue;
		int fd = beneath_open(i->root[k].dir, rest, false);
		if (fd == -EXDEV)
			continue;
		*root = k;
		snprintf(path, PATH_MAX, "%s", rest);
		return fd;
	}
	return -EXDEV;
}

/* @name is relative to the folder of @of.  What leads out of the folder it began in may still lead into an allowed one. */
static int find_relative(const struct image *i, const struct image_file *of, const char *name, unsigned *root,
			 char path[PATH_MAX])
{
	const char *slash = strrchr(of->path, '/');
	char absolute[PATH_MAX], real[PATH_MAX];

	if (snprintf(path, PATH_MAX, "%.*s%s", slash ? (int)(slash + 1 - of->path) : 0, of->path, name) >= PATH_MAX)
		return -ENAMETOOLONG;
	int fd = beneath_open(i->root[of->root].dir, path, false);
	*root = of->root;
	if (fd != -EXDEV)
		return fd;
	if (snprintf(absolute, sizeof absolute, "%s/%s", i->root[of->root].real, path) >= PATH_MAX)
		return -ENAMETOOLONG;
	return realpath(absolute, real) ? in_root(i, real, root, path) : -EXDEV;
}

static int find_absolute(const struct image *i, const char *name, unsigned *root, char path[PATH_MAX])
{
	char real[PATH_MAX];
	int fd = in_root(i, name, root, path);

	return fd == -EXDEV && realpath(name, real) ? in_root(i, real, root, path) : fd;
}

/* A descriptor (O_PATH) can only be opened anew: as this very file, whatever its name is by now. */
static int open_found(int path, bool write, struct stat *st)
{
	char name[32];
	int rc = fstat(path, st) < 0 ? -errno : 0;

	if (!rc && !S_ISREG(st->st_mode)) /* opening anything else could already do something */
		return -EINVAL;
	snprintf(name, sizeof name, "/proc/self/fd/%d", path);
	int fd = rc ? -1 : open(name, (write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	return rc ? rc : fd < 0 ? -errno : fd;
}

static bool already_there(const struct image *i, const struct stat *st)
{
	struct stat other;

	for (unsigned k = 0; k < i->n; k++)
		if (i->file[k].fd >= 0 && fstat(i->file[k].fd, &other) == 0 && other.st_dev == st->st_dev &&
		    other.st_ino == st->st_ino)
			return true;
	return false;
}

static int refused(const struct open *o, unsigned parent, const struct header_ref *r, int rc)
{
	const struct image *i = o->i;

	if (rc == -EXDEV)
		return fail(o, parent, r, rc, "not below %s; --allow-path=FOLDER allows another place",
			    i->root[i->file[parent].root].real);
	return fail(o, parent, r, rc, "%s", rc == -EINVAL ? "not a regular file" : strerror(-rc));
}

/* Opens what @r says, as a new file of the image. */
static int open_named(const struct open *o, unsigned parent, const struct header_ref *r)
{
	struct image *i = o->i;
	struct stat st;

	if (is_protocol(r->name))
		return fail(o, parent, r, -EINVAL, "no file: it names a protocol, and none is followed");
	if (i->n == IMAGE_FILES_MAX)
		return fail(o, parent, r, -E2BIG, "a disk is made of %u files at most", IMAGE_FILES_MAX);
	struct image_file *f = add(i);
	const struct image_file *of = &i->file[parent];
	f->link = r->link;
	f->parent = parent;
	f->depth = of->depth + (r->link == HEADER_BACKING);
	f->format = r->format;
	f->write = of->write && r->link != HEADER_BACKING;
	int path = r->name[0] == '/' ? find_absolute(i, r->name, &f->root, f->path)
				     : find_relative(i, of, r->name, &f->root, f->path);
	int fd = path < 0 ? path : open_found(path, f->write, &st);
	if (path >= 0)
		close(path);
	if (fd < 0)
		return refused(o, parent, r, fd);
	bool loop = already_there(i, &st);
	f->fd = fd;
	return loop ? fail(o, parent, r, -ELOOP, "is part of this disk already") : 0;
}

/* A descriptor that names the extents as the server finds them. */
static int rename_extents(const struct open *o, struct image_file *f, const struct header_refs *refs, unsigned first)
{
	static char text[16384]; /* more than HEADER_REFS_MAX lines */
	int n = header_descriptor(refs, CONFINE_IMAGE_PREFIX, CONFINE_IMAGE_FD + first, text, sizeof text);

	f->hand = memfd_create("hvx-descriptor", MFD_CLOEXEC);
	if (n > 0 && f->hand >= 0 && write(f->hand, text, (size_t)n) == n)
		return 0;
	return fail(o, 0, NULL, -ENOMEM, "no place for its descriptor");
}

/* The files that file @k names, and what they name; those of one file are numbered in a row. */
static int follow(const struct open *o, unsigned k, const struct header_refs *refs)
{
	struct image *i = o->i;
	unsigned first = i->n;
	int rc = 0;

	for (uint32_t r = 0; r < refs->n && !rc; r++)
		rc = open_named(o, k, &refs->ref[r]);
	if (!rc && refs->n && refs->ref[0].link == HEADER_EXTENT)
		rc = rename_extents(o, &i->file[k], refs, first);
	struct inspection *found = rc || !refs->n ? NULL : malloc(sizeof *found);
	if (!rc && refs->n && !found)
		return fail(o, 0, NULL, -ENOMEM, "%s", strerror(ENOMEM));
	for (uint32_t r = 0; r < refs->n && !rc; r++) {
		rc = look(o, &i->file[first + r], k, &refs->ref[r], found);
		if (!rc)
			rc = follow(o, first + r, &found->refs);
	}
	free(found);
	return rc;
}

/* ---- all of it ---- */

static int open_first(const struct open *o)
{
	struct disk_option *d = o->d;
	struct image_file *f = add(o->i);
	struct stat st = {0};
	const char *slash = strrchr(d->path, '/');

	f->write = !d->readonly && !d->snapshot;
	f->format = d->format;
	snprintf(f->path, sizeof f->path, "%s", slash ? slash + 1 : d->path);
	int flags = (f->write ? O_RDWR : O_RDONLY) | (d->nocache ? O_DSYNC : 0);
	f->fd = open(d->path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (f->fd < 0 || fstat(f->fd, &st) < 0)
		return fail(o, 0, NULL, -errno, "%s", strerror(errno));
	f->block = S_ISBLK(st.st_mode);
	return f->block || S_ISREG(st.st_mode) ? 0 : fail(o, 0, NULL, -EINVAL, "neither a file nor a block device");
}

static int add_root(const struct open *o, const char *folder, bool own)
{
	struct beneath_root *r = &o->i->root[o->i->nroots++];
	int rc = beneath_root_open(r, folder);

	if (rc && own)
		return fail(o, 0, NULL, rc, "its folder: %s", strerror(-rc));
	if (rc)
		snprintf(o->err, o->len, "allow-path %s: %s", folder, strerror(-rc));
	return rc;
}

static int open_roots(const struct open *o, const char (*allowed)[PATH_MAX], unsigned n)
{
	const char *slash = strrchr(o->d->path, '/');
	char folder[DEVOPT_PATH_MAX];

	snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash + 1 - o->d->path) : 1, slash ? o->d->path : ".");
	int rc = add_root(o, folder, true);
	for (unsigned k = 0; k < n && !rc; k++)
		rc = add_root(o, allowed[k], false);
	return rc;
}

int image_open(struct disk_option *d, const char (*allowed)[PATH_MAX], unsigned nallowed, struct image **out, char *err,
	       size_t len)
{
	struct open o = {calloc(1, sizeof *o.i), d, err, len};
	struct inspection *found = calloc(1, sizeof *found);
	int rc = o.i && found ? 0 : -ENOMEM;

	if (rc)
		snprintf(err, len, "disk %s: %s", d->path, strerror(ENOMEM));
	else
		rc = open_first(&o);
	if (!rc)
		rc = look(&o, &o.i->file[0], 0, NULL, found);
	if (!rc)
		d->format = o.i->file[0].format;
	if (!rc && found->refs.n)
		rc = open_roots(&o, allowed, nallowed);
	if (!rc)
		rc = follow(&o, 0, &found->refs);
	free(found);
	if (rc)
		image_free(o.i);
	else
		*out = o.i;
	return rc;
}

void image_free(struct image *i)
{
	if (!i)
		return;
	for (unsigned k = 0; k < i->n; k++) {
		if (i->file[k].fd >= 0)
			close(i->file[k].fd);
		if (i->file[k].hand >= 0)
			close(i->file[k].hand);
	}
	for (unsigned k = 0; k < i->nroots; k++)
		beneath_root_close(&i->root[k]);
	free(i);
}

int image_take(struct image *i)
{
	int fd = i->file[0].fd;

	i->file[0].fd = -1;
	image_free(i);
	return fd;
}

int image_overlay(void)
{
	const char *dir = getenv("TMPDIR");
	int fd = open(dir && *dir ? dir : "/var/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);

	return fd < 0 ? -errno : fd;
}

/*
 * The layers that confine a process.  Order matters: namespaces are made by
 * the parent's clone, the root is emptied while there are capabilities, then the
 * identity is given up, and each later step needs less than the one before.
 * Invariant: nothing here gives anything back once taken.
 */
#include "common/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define UNPRIVILEGED_ID 65534 /* nobody: what root's children become */

const char *sandbox_names(uint32_t mask, char *buf, size_t len)
{
	static const char *const names[] = {
#define X(id, name) name,
		SANDBOX_LAYERS(X)
#undef X
	};
	size_t n = 0;

	buf[0] = '\0';
	for (int i = 0; i < SANDBOX_NO_COUNT; i++) {
		if (!(mask & (1u << i)))
			continue;
		int m = snprintf(buf + n, len - n, "%s%s", n ? "," : "", names[i]);
		if (m < 0 || (size_t)m >= len - n)
			break;
		n += (size_t)m;
	}
	return buf;
}

/* ---- parent side ---- */

static int clone_flags(uint32_t layers)
{
	return (layers & SANDBOX_BIT(USERNS) ? CLONE_NEWUSER : 0) | (layers & SANDBOX_BIT(MOUNTNS) ? CLONE_NEWNS : 0) |
	       (layers & SANDBOX_BIT(PIDNS) ? CLONE_NEWPID : 0) | (layers & SANDBOX_BIT(NETNS) ? CLONE_NEWNET : 0) |
	       (layers & SANDBOX_BIT(IPCNS) ? CLONE_NEWIPC : 0) | (layers & SANDBOX_BIT(UTSNS) ? CLONE_NEWUTS : 0);
}

static int write_proc(pid_t pid, const char *file, const char *text)
{
	char path[64];
	int rc = 0;

	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

/* Inside, 0 is the caller.  With privilege, 1 is nobody: what the child becomes in the end. */
static int map_ids(pid_t pid, uid_t uid, gid_t gid)
{
	char one[64], two[96];

	/* no id can be there twice: root's own files are for root, without its privileges */
	snprintf(two, sizeof two, "0 0 1\n1 %u 1\n", (unsigned)uid);
	if (geteuid() == 0 && uid != 0 && write_proc(pid, "uid_map", two) == 0) {
		gid = gid == getegid() ? UNPRIVILEGED_ID : gid;
		snprintf(two, sizeof two, "0 %d 1\n1 %u 1\n", (int)getegid(), (unsigned)gid);
		return write_proc(pid, "gid_map", two);
	}
	snprintf(one, sizeof one, "0 %d 1\n", (int)geteuid());
	int rc = write_proc(pid, "uid_map", one);
	if (rc)
		return rc;
	write_proc(pid, "setgroups", "deny"); /* absent on old kernels: gid_map tells */
	snprintf(one, sizeof one, "0 %d 1\n", (int)getegid());
	return write_proc(pid, "gid_map", one);
}

static pid_t try_fork(uint32_t layers, uid_t uid, gid_t gid)
{
	int go[2];
	char c = 0;

	if (pipe2(go, O_CLOEXEC) < 0)
		return -errno;
	pid_t pid = (pid_t)syscall(SYS_clone, clone_flags(layers) | SIGCHLD, 0, 0, 0, 0);
	if (pid < 0) {
		pid = -errno;
		goto out;
	}
	if (pid == 0) {
		close(go[1]);
		if (read(go[0], &c, 1) != 1)
			_exit(1); /* the parent could not map us, or died */
		close(go[0]);
		return 0;
	}
	int rc = layers & SANDBOX_BIT(USERNS) ? map_ids(pid, uid, gid) : 0;
	if (rc == 0 && write(go[1], &c, 1) == 1)
		goto out;
	close(go[1]);
	go[1] = -1;
	waitpid(pid, NULL, 0);
	pid = rc ? rc : -EPIPE;
out:
	close(go[0]);
	if (go[1] >= 0)
		close(go[1]);
	return pid;
}

pid_t sandbox_fork_as(uint32_t want, uint32_t *got, uid_t uid, gid_t gid)
{
	want &= SANDBOX_NAMESPACES;
	*got = want;
	pid_t pid = try_fork(want, uid, gid);
	if (pid >= 0 || !want)
		return pid;
	/* Not all at once: see which of them can be had one by one. */
	uint32_t base = want & SANDBOX_BIT(USERNS), ok = 0;
	for (int i = 0; i < SANDBOX_NO_COUNT; i++) {
		uint32_t bit = 1u << i;
		if (!(want & bit))
			continue;
		pid = try_fork(bit | (ok & base), uid, gid);
		if (pid == 0)
			_exit(0);
		if (pid > 0) {
			waitpid(pid, NULL, 0);
			ok |= bit;
		}
	}
	*got = ok;
	return try_fork(ok, uid, gid);
}

pid_t sandbox_fork(uint32_t want, uint32_t *got)
{
	return sandbox_fork_as(want, got, UNPRIVILEGED_ID, UNPRIVILEGED_ID);
}

/* ---- child side ---- */

void sandbox_close_fds(const int *keep, int n)
{
	unsigned from = 3;

	for (int i = 0; i < n; i++) {
		if (keep[i] < (int)from)
			continue;
		if (keep[i] > (int)from)
			syscall(SYS_close_range, from, keep[i] - 1, 0);
		from = (unsigned)keep[i] + 1;
	}
	syscall(SYS_close_range, from, ~0u, 0);
}

/* What is mounted here, the working directory, becomes the root; the old tree is gone. */
static int pivot(void)
{
	if (syscall(SYS_pivot_root, ".", ".") == 0) {
		if (umount2(".", MNT_DETACH) < 0)
			return -errno;
	} else {
		/* The root is the initial ramfs, or no mount point: move over it instead. */
		if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0)
			return -errno;
	}
	if (chdir("/") < 0)
		return -errno;
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return -errno;
	return 0;
}

/* An empty read-only tmpfs becomes the root. */
static int empty_root(void)
{
	static const char opts[] = "size=4k,nr_inodes=1,mode=555";

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	if (mount("none", SANDBOX_NEW_ROOT, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, opts) < 0 &&
	    mount("none", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, opts) < 0)
		return -errno;
	return chdir(SANDBOX_NEW_ROOT) < 0 ? -errno : pivot();
}

/* A tmpfs that @g fills with what its program needs. */
static int guest_root(const struct sandbox_guest *g)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	if (mount("none", SANDBOX_NEW_ROOT, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  "size=256k,nr_inodes=512,mode=755") < 0)
		return -errno;
	int rc = g->root(g->ctx);
	if (rc)
		return rc;
	return chdir(SANDBOX_NEW_ROOT) < 0 ? -errno : pivot();
}

/* Only root has a second id to become; an ordinary user's 0 inside is the user outside. */
static int leave_identity(bool userns, uid_t uid, gid_t gid)
{
	if (userns)
		uid = gid = 1; /* how the same ones are seen from inside */
	if (geteuid() != 0)
		return 0;
	if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
		return -errno;
	if (setresgid(gid, gid, gid) == 0 && setresuid(uid, uid, uid) == 0)
		return 0;
	return errno == EINVAL ? 0 : -errno; /* no such id here: "root" is an ordinary user, or is meant */
}

/* Needs CAP_SETPCAP: before the identity is given up.  Without it the set is left: it gives nothing to a process with
 * no_new_privs. */
static void drop_bounding_set(uint64_t keep)
{
	for (int cap = 0; cap <= 63; cap++)
		if (!(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			break;
}

/* Those of @caps that there are survive the next exec. */
static int keep_caps(uint64_t caps)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];

	if (sandbox_drop_caps(caps) || syscall(SYS_capget, &h, d) < 0)
		return -errno;
	for (int i = 0; i < 2; i++)
		d[i].effective = d[i].inheritable = d[i].permitted;
	if (syscall(SYS_capset, &h, d) < 0)
		return -errno;
	for (int cap = 0; cap <= 63; cap++)
		if (d[cap / 32].permitted >> cap % 32 & 1 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			return -errno;
	return 0;
}

bool sandbox_has_cap(int cap)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];

	return syscall(SYS_capget, &h, d) == 0 && (d[cap / 32].effective >> cap % 32 & 1);
}

int sandbox_drop_caps(uint64_t keep)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
		return -errno;
	if (syscall(SYS_capget, &h, d) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) {
		d[i].permitted &= (uint32_t)(keep >> 32 * i);
		d[i].effective = d[i].permitted;
		d[i].inheritable = 0;
	}
	return syscall(SYS_capset, &h, d) < 0 ? -errno : 0;
}

/* To @n, or to what there is where that is less: a hard limit is not raised. */
static int limit(int what, rlim_t n)
{
	struct rlimit r;

	if (getrlimit(what, &r) < 0)
		return -errno;
	if (n < r.rlim_max)
		r.rlim_max = n;
	r.rlim_cur = r.rlim_max;
	return setrlimit(what, &r) < 0 ? -errno : 0;
}

static int set_limits(const struct sandbox_table *t)
{
	int rc = limit(RLIMIT_CORE, 0);

	if (!rc)
		rc = limit(RLIMIT_NOFILE, t->max_fds);
	if (!rc && !t->locked)
		rc = limit(RLIMIT_MEMLOCK, 0);
	if (!rc)
		rc = limit(RLIMIT_MSGQUEUE, 0);
	return rc;
}

/* Asked once: after the filter the question itself is forbidden. */
static int landlock_abi(void)
{
	static int abi = -2;

	if (abi == -2)
		abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	return abi;
}

#define LL_FILE  (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE)
#define LL_WRITE (LANDLOCK_ACCESS_FS_WRITE_FILE | 1u << 14 | 1u << 15) /* and truncate, ioctl on devices */

static int landlock_grant(int rules, const struct sandbox_grant *g, uint64_t handled)
{
	struct landlock_path_beneath_attr a = {.allowed_access = LL_FILE, .parent_fd = g->fd};
	struct stat st;

	if (fstat(g->fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		a.allowed_access |= LANDLOCK_ACCESS_FS_READ_DIR;
	if (g->write)
		a.allowed_access |= LL_WRITE & handled;
	if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &a, 0) == 0)
		return 0;
	return errno == EBADFD ? 0 : -errno; /* a memfd, which Landlock does not reach anyway */
}

/* A ruleset that handles every right this kernel knows, and grants @n files; no TCP but with @network. */
static int landlock(int abi, const struct sandbox_grant *g, int n, bool network)
{
	struct {
		uint64_t fs, net, scoped;
	} attr = {0};
	static const uint8_t fs_bits[] = {13, 13, 14, 15, 15, 16}; /* by ABI - 0: refer 2, truncate 3, ioctl 5 */
	size_t size = sizeof attr.fs;

	attr.fs = (1ull << fs_bits[abi > 5 ? 5 : abi]) - 1;
	if (abi >= 4) {
		attr.net = network ? 0 : 3; /* bind, connect */
		size += sizeof attr.net;
	}
	if (abi >= 6) {
		attr.scoped = 3; /* abstract sockets, signals */
		size += sizeof attr.scoped;
	}
	int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	if (fd < 0)
		return -errno;
	int rc = 0;
	for (int i = 0; i < n && !rc; i++)
		rc = landlock_grant(fd, &g[i], attr.fs);
	if (!rc && syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		rc = -errno;
	close(fd);
	return rc;
}

const char *sandbox_error(int rc)
{
	return rc == -ENOSYS ? "not in this kernel" : strerror(-rc);
}

static void note(const char *what, int rc, char *why, size_t len)
{
	if (rc < 0 && !why[0])
		snprintf(why, len, "%s: %s", what, sandbox_error(rc));
}

uint32_t sandbox_enter(const struct sandbox_table *t, uint32_t ns, char *why, size_t len)
{
	uint32_t got = ns & SANDBOX_NAMESPACES;
	int abi = landlock_abi(), rc;

	why[0] = '\0';
#define LAYER(id, name, call)                   \
	do {                                    \
		rc = (call);                    \
		note(name, rc, why, len);       \
		if (rc == 0)                    \
			got |= SANDBOX_BIT(id); \
	} while (0)
	LAYER(ROOT, "empty root", ns & SANDBOX_BIT(MOUNTNS) ? empty_root() : -EPERM);
	drop_bounding_set(0);
	rc = leave_identity(ns & SANDBOX_BIT(USERNS), UNPRIVILEGED_ID, UNPRIVILEGED_ID);
	note("unprivileged identity", rc, why, len);
	LAYER(CAPS, "dropping capabilities", sandbox_drop_caps(0) ?: rc);
	LAYER(NNP, "no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0);
	LAYER(RLIMITS, "rlimits", set_limits(t));
	if (abi > 0)
		LAYER(LANDLOCK, "landlock", landlock(abi, NULL, 0, false));
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* after the last change of identity, which clears it */
	LAYER(SECCOMP, "seccomp", sandbox_filter(t, STAGE_SETUP));
	return got;
}

static int guest_landlock(const struct sandbox_guest *g, int abi, bool emptied)
{
	struct sandbox_grant grants[SANDBOX_GRANTS];
	int n = g->grants(g->ctx, emptied, grants);
	int rc = landlock(abi, grants, n, g->network);

	for (int i = 0; i < n; i++)
		close(grants[i].fd);
	return rc;
}

uint32_t sandbox_enter_guest(const struct sandbox_table *t, const struct sandbox_guest *g, uint32_t ns, char *why,
			     size_t len)
{
	uint32_t got = ns & SANDBOX_NAMESPACES;
	int abi = landlock_abi(), rc;

	why[0] = '\0';
	LAYER(ROOT, "a root of its own", ns & SANDBOX_BIT(MOUNTNS) ? guest_root(g) : -EPERM);
	drop_bounding_set(g->caps);
	prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NOROOT_LOCKED | SECBIT_KEEP_CAPS, 0, 0, 0);
	rc = leave_identity(ns & SANDBOX_BIT(USERNS), g->uid, g->gid);
	note("another identity", rc, why, len);
	LAYER(CAPS, "dropping capabilities", keep_caps(g->caps) ?: rc);
	LAYER(NNP, "no_new_privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0);
	rc = set_limits(t);
	LAYER(RLIMITS, "rlimits", rc ? rc : sandbox_limit_memory(t, 0, 0));
	if (abi > 0)
		LAYER(LANDLOCK, "landlock", guest_landlock(g, abi, got & SANDBOX_BIT(ROOT)));
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	LAYER(SECCOMP, "seccomp", sandbox_filter(t, STAGE_FINAL));
	return got | SANDBOX_UNWANTED(SANDBOX_ALL & ~g->want);
}
#undef LAYER

uint32_t sandbox_missing(uint32_t reached)
{
	uint32_t can = SANDBOX_ALL;

	if (landlock_abi() <= 0)
		can &= ~SANDBOX_BIT(LANDLOCK);
	return can & ~reached & ~(reached >> 16);
}

/* ---- filters ---- */

static int add_call(scmp_filter_ctx ctx, const struct sandbox_call *c)
{
	struct scmp_arg_cmp cmp[2] = {{.arg = c->arg}};
	unsigned n = 1;

	switch (c->rule) {
	case RULE_ANY: n = 0; break;
	case RULE_ENOSYS: return seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(ENOSYS), c->nr, 0, NULL);
	case RULE_FAKE: return seccomp_rule_add_array(ctx, SCMP_ACT_ERRNO(0), c->nr, 0, NULL);
	case RULE_EQ:
		cmp[0].op = SCMP_CMP_EQ;
		cmp[0].datum_a = c->val;
		break;
	case RULE_MASKED:
		cmp[0].op = SCMP_CMP_MASKED_EQ;
		cmp[0].datum_a = c->mask;
		cmp[0].datum_b = c->val;
		break;
	}
	if (c->also.val) {
		cmp[n].arg = c->also.arg;
		cmp[n].op = SCMP_CMP_EQ;
		cmp[n++].datum_a = c->also.val == SANDBOX_SELF ? (uint64_t)getpid() : c->also.val;
	}
	return seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, c->nr, n, cmp);
}

/* Is there an unconditional entry for this call at this stage?  Then the conditional ones are moot. */
static bool has_any(const struct sandbox_table *t, enum sandbox_stage stage, int nr)
{
	for (size_t i = 0; i < t->n; i++)
		if (t->calls[i].nr == nr && t->calls[i].rule == RULE_ANY && !t->calls[i].also.val &&
		    t->calls[i].stage >= stage)
			return true;
	return false;
}

/* libseccomp has no word for it: it fails for want of memory. */
static bool no_filters(void)
{
	const uint32_t kill = SECCOMP_RET_KILL_PROCESS;

	return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &kill) < 0 && errno != EPERM;
}

int sandbox_filter(const struct sandbox_table *t, enum sandbox_stage stage)
{
	if (no_filters())
		return -ENOSYS;
	scmp_filter_ctx ctx = seccomp_init(t->refuse ? SCMP_ACT_ERRNO((uint16_t)t->refuse) : SCMP_ACT_KILL_PROCESS);
	int rc = -ENOMEM;

	if (!ctx)
		return rc;
	rc = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (!rc)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!rc)
		rc = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* binary tree */
	for (size_t i = 0; i < t->n && !rc; i++) {
		const struct sandbox_call *c = &t->calls[i];
		if (c->stage < stage || ((c->rule != RULE_ANY || c->also.val) && has_any(t, stage, c->nr)))
			continue;
		rc = add_call(ctx, c);
	}
	if (!rc)
		rc = seccomp_load(ctx);
	seccomp_release(ctx);
	return rc;
}

/* Address space beyond what is used: libraries, arenas that libc reserves, alignment. */
#define SPACE_SLACK (512ull << 20)

int sandbox_limit_memory(const struct sandbox_table *t, uint64_t own, uint64_t shared)
{
	own += t->memory;
	int rc = t->memory ? limit(RLIMIT_DATA, own) : 0;

	return rc || !t->memory ? rc : limit(RLIMIT_AS, own + shared + SPACE_SLACK);
}

int sandbox_seal(const struct sandbox_table *t)
{
	limit(RLIMIT_NPROC, t->max_threads); /* with none the filter still allows no process */
	return sandbox_filter(t, STAGE_FINAL);
}

/*
 * Landlock and a filter for qemu-nbd.  The filter stands here and not with the tables of common/sandbox.c because
 * it refuses calls instead of allowing them.  Invariant: a rule is only ever for a file that is open or
 * for a directory of the system, never for a name of the user's.
 */
#include "monitor/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define READ    (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define EVERY   ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1) /* of version 1, which every later one has */
#define PROGRAM (READ | LANDLOCK_ACCESS_FS_EXECUTE)

static int allow(int rules, int fd, uint64_t access)
{
	struct landlock_path_beneath_attr a = {.allowed_access = access, .parent_fd = fd};

	return fd < 0 || syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &a, 0) == 0 ? 0 : -errno;
}

static int allow_path(int rules, const char *path, uint64_t access)
{
	int fd = open(path, O_PATH | O_CLOEXEC), rc = allow(rules, fd, access); /* not there: nothing to allow */

	if (fd >= 0)
		close(fd);
	return rc;
}

static int restrict_files(int image)
{
	static const char *const programs[] = {"/usr", "/lib", "/lib64", "/bin"};
	struct landlock_ruleset_attr attr = {.handled_access_fs = EVERY};
	int rules = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0), rc = 0;

	if (rules < 0)
		return errno == ENOSYS || errno == EOPNOTSUPP ? -EOPNOTSUPP : -errno;
	for (size_t i = 0; i < sizeof programs / sizeof programs[0] && !rc; i++)
		rc = allow_path(rules, programs[i], PROGRAM);
	if (!rc)
		rc = allow_path(rules, "/etc/ld.so.cache", LANDLOCK_ACCESS_FS_READ_FILE);
	if (!rc)
		rc = allow_path(rules, "/proc", READ);
	if (!rc)
		rc = allow_path(rules, "/dev/null", LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE);
	if (!rc)
		rc = allow(rules, image, LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE);
	if (!rc && syscall(SYS_landlock_restrict_self, rules, 0) < 0)
		rc = -errno;
	close(rules);
	return rc;
}

/* Its own calls are qemu's business and change with it: what it has no use for is refused, not what it uses allowed. */
static int refuse_calls(void)
{
	static const int refused[] = {
		SCMP_SYS(ptrace), /* other processes */
		SCMP_SYS(process_vm_readv),
		SCMP_SYS(process_vm_writev),
		SCMP_SYS(pidfd_getfd), /* their descriptors */
		SCMP_SYS(mount),       /* another view of files */
		SCMP_SYS(umount2),
		SCMP_SYS(pivot_root),
		SCMP_SYS(chroot),
		SCMP_SYS(open_tree),
		SCMP_SYS(move_mount),
		SCMP_SYS(fsopen),
		SCMP_SYS(fsmount),
		SCMP_SYS(setns),
		SCMP_SYS(unshare),
		SCMP_SYS(bpf), /* kernel interfaces beyond files and sockets */
		SCMP_SYS(perf_event_open),
		SCMP_SYS(userfaultfd),
		SCMP_SYS(keyctl),
		SCMP_SYS(add_key),
		SCMP_SYS(request_key),
		SCMP_SYS(init_module),
		SCMP_SYS(finit_module),
		SCMP_SYS(kexec_load),
		SCMP_SYS(connect), /* it is connected to */
	};
	struct scmp_arg_cmp not_local = {.arg = 0, .op = SCMP_CMP_NE, .datum_a = AF_UNIX};
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
	int rc = f ? 0 : -ENOMEM;

	for (size_t i = 0; i < sizeof refused / sizeof refused[0] && !rc; i++)
		rc = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), refused[i], 0);
	if (!rc) /* sockets of this host only */
		rc = seccomp_rule_add_array(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 1, &not_local);
	if (!rc)
		rc = seccomp_load(f);
	seccomp_release(f);
	return rc;
}

int confine_file_server(int image)
{
	int files = restrict_files(image);
	int rc = files == -EOPNOTSUPP ? 0 : files;

	if (!rc)
		rc = refuse_calls();
	return rc ? rc : files;
}

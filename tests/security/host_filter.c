/*
 * Runs a command on a host that lacks something: under a filter that refuses what such a host refuses.
 *
 *   container      what container runtimes refuse by default: namespaces, mounts, keys, userfaultfd, io_uring
 *   nomount        user namespaces can be made, but give no right to mount (Ubuntu's restriction)
 *   nolandlock     a kernel without Landlock
 *   nouring        no io_uring
 *   noseccomp      a kernel without seccomp filters
 *
 * Invariant: the filter says what the host would say, by the same error.
 *
 * Usage: host_filter MODE COMMAND [ARGUMENT ...]
 */
#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static scmp_filter_ctx f;
static int failed;

static void refuse(int nr, int error)
{
	failed |= seccomp_rule_add(f, SCMP_ACT_ERRNO((uint16_t)error), nr, 0);
}

static void refuse_if(int nr, int error, struct scmp_arg_cmp when)
{
	failed |= seccomp_rule_add_array(f, SCMP_ACT_ERRNO((uint16_t)error), nr, 1, &when);
}

static void container(void)
{
	static const int calls[] = {
		SCMP_SYS(unshare),         SCMP_SYS(setns),
		SCMP_SYS(mount),           SCMP_SYS(umount2),
		SCMP_SYS(pivot_root),      SCMP_SYS(open_tree),
		SCMP_SYS(move_mount),      SCMP_SYS(fsopen),
		SCMP_SYS(mount_setattr),   SCMP_SYS(keyctl),
		SCMP_SYS(add_key),         SCMP_SYS(request_key),
		SCMP_SYS(userfaultfd),     SCMP_SYS(bpf),
		SCMP_SYS(perf_event_open), SCMP_SYS(io_uring_setup),
		SCMP_SYS(io_uring_enter),  SCMP_SYS(io_uring_register),
	};
	static const unsigned long spaces[] = {CLONE_NEWUSER, CLONE_NEWNS,  CLONE_NEWPID,
					       CLONE_NEWNET,  CLONE_NEWIPC, CLONE_NEWUTS};

	for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
		refuse(calls[i], EPERM);
	for (size_t i = 0; i < sizeof spaces / sizeof spaces[0]; i++)
		refuse_if(SCMP_SYS(clone), EPERM, SCMP_A0(SCMP_CMP_MASKED_EQ, spaces[i], spaces[i]));
	refuse(SCMP_SYS(clone3), ENOSYS);
}

static void nomount(void)
{
	refuse(SCMP_SYS(mount), EACCES);
	refuse(SCMP_SYS(umount2), EACCES);
	refuse(SCMP_SYS(pivot_root), EACCES);
}

static void nolandlock(void)
{
	refuse(SCMP_SYS(landlock_create_ruleset), ENOSYS);
}

static void nouring(void)
{
	refuse(SCMP_SYS(io_uring_setup), EPERM);
}

static void noseccomp(void)
{
	refuse(SCMP_SYS(seccomp), ENOSYS);
	refuse_if(SCMP_SYS(prctl), EINVAL, SCMP_A0(SCMP_CMP_EQ, PR_SET_SECCOMP));
	refuse_if(SCMP_SYS(prctl), EINVAL, SCMP_A0(SCMP_CMP_EQ, PR_GET_SECCOMP));
}

static const struct {
	const char *name;
	void (*rules)(void);
} modes[] = {{"container", container},
	     {"nomount", nomount},
	     {"nolandlock", nolandlock},
	     {"nouring", nouring},
	     {"noseccomp", noseccomp}};

static int load(const char *mode)
{
	f = seccomp_init(SCMP_ACT_ALLOW);
	for (size_t i = 0; f && i < sizeof modes / sizeof modes[0]; i++)
		if (!strcmp(mode, modes[i].name)) {
			modes[i].rules();
			seccomp_attr_set(f, SCMP_FLTATR_CTL_NNP, 0); /* a host does not set it */
			if (!failed && seccomp_load(f) == 0)
				return 0;
			seccomp_attr_set(f, SCMP_FLTATR_CTL_NNP, 1); /* but a user must */
			return failed ? -1 : seccomp_load(f);
		}
	return -1;
}

int main(int argc, char **argv)
{
	if (argc < 3 || load(argv[1])) {
		fprintf(stderr, "usage: host_filter container|nomount|nolandlock|nouring|noseccomp COMMAND ...\n");
		return 99;
	}
	execvp(argv[2], argv + 2);
	perror(argv[2]);
	return 98;
}

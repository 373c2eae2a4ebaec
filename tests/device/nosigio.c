/*
 * In the place of hvx-vcpu: the same program on a host whose pipes signal nobody.  fcntl(2) refuses what asks for it, by a
 * filter that stays; hvx-vcpu knows no switch for that.
 */
#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);
	struct f_owner_ex who = {F_OWNER_TID, gettid()};
	char real[4096];
	ssize_t n = readlink("/proc/self/exe", real, sizeof real - 6);

	if (n < 0 || argc < 1)
		return 121;
	snprintf(real + n, 6, ".real");
	if (!f || seccomp_rule_add(f, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(fcntl), 1, SCMP_A1(SCMP_CMP_EQ, F_SETOWN_EX)) ||
	    seccomp_load(f) || !fcntl(0, F_SETOWN_EX, &who) || errno != EINVAL)
		return 122;
	seccomp_release(f);
	execv(real, argv);
	return 127;
}

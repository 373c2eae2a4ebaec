/* What a confined program can still do, tried in a child. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "monitor/confine.h"

static char mine[] = "/tmp/hvx-confine-XXXXXX", other[] = "/tmp/hvx-confine-XXXXXX";

/* The number of the first thing that is not as it should be; 0: all is; 77: no Landlock here. */
static int in_child(int image)
{
	char path[64];

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return 1;
	int rc = confine_file_server(image);
	if (rc && rc != -EOPNOTSUPP)
		return 2;
	if (socket(AF_INET, SOCK_STREAM, 0) >= 0 || errno != EPERM)
		return 3;
	if (socket(AF_UNIX, SOCK_STREAM, 0) < 0)
		return 4;
	if (rc)
		return 77;
	snprintf(path, sizeof path, "/proc/self/fd/%d", image);
	if (open(path, O_RDWR) < 0)
		return 5;
	if (open(other, O_RDONLY) >= 0 || errno != EACCES)
		return 6;
	if (open("/tmp/hvx-confine-new", O_CREAT | O_RDWR, 0600) >= 0 || errno != EACCES)
		return 7;
	if (open("/etc/passwd", O_RDONLY) >= 0 || errno != EACCES)
		return 8;
	if (unlink(other) == 0)
		return 9;
	return 0;
}

static void test_confine(void)
{
	int a = mkstemp(mine), b = mkstemp(other), ws = -1;

	CU_ASSERT_FATAL(a >= 0 && b >= 0);
	pid_t pid = fork();
	if (pid == 0)
		_exit(in_child(a));
	CU_ASSERT_FATAL(pid > 0 && waitpid(pid, &ws, 0) == pid);
	CU_ASSERT(WIFEXITED(ws) && (WEXITSTATUS(ws) == 0 || WEXITSTATUS(ws) == 77));
	if (WEXITSTATUS(ws) == 77)
		printf("(no Landlock on this host) ");
	close(a);
	close(b);
	unlink(mine);
	unlink(other);
}

CU_ErrorCode suite_confine(void);
CU_ErrorCode suite_confine(void)
{
	CU_pSuite s = CU_add_suite("confine", NULL, NULL);

	return s && CU_ADD_TEST(s, test_confine) ? CUE_SUCCESS : CU_get_error();
}

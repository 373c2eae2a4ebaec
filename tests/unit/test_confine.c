/* The root of a program that is not ours: what is in it, tried in a child. */
#include <CUnit/CUnit.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "monitor/confine.h"
#include "monitor/toolseal.h"

#ifdef __has_feature /* clang's way to tell */
#if __has_feature(address_sanitizer) && !defined __SANITIZE_ADDRESS__
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__ /* whose own calls the filter refuses */
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static char mine[] = "/tmp/hvx-confine-XXXXXX", other[] = "/tmp/hvx-confine-XXXXXX";
static const char *const more[] = {"/dev/null", "/etc/passwd", "/etc/there-is-none", NULL};

static int entries(const char *path)
{
	DIR *d = opendir(path);
	int n = 0;

	if (!d)
		return -1;
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static bool refused(const char *path, int flags, int error)
{
	return open(path, flags, 0600) < 0 && errno == error;
}

/* The number of the first thing that is not as it should be; 0: all is. */
static int inside(const struct confine *c, const char *program)
{
	char exe[256] = "";
	struct stat st;

	for (unsigned i = 0; i < c->n; i++)
		if (stat(c->file[i], &st) < 0 || open(c->file[i], O_RDONLY) < 0)
			return 1;
	if (readlink("/proc/self/exe", exe, sizeof exe - 1) < 0 || strcmp(exe, program))
		return 2;
	if (entries("/etc") != 1 || entries("/dev") != 1 || entries("/proc") != 1 || entries("/proc/self") != 2)
		return 3;
	if (stat(other, &st) == 0 || !refused("/etc/shadow", O_RDONLY, ENOENT) || stat("/root", &st) == 0)
		return 4;
	if (open(program, O_WRONLY) >= 0 || !refused("/etc/passwd", O_RDWR, EROFS))
		return 5;
	if (!refused("/new", O_CREAT | O_RDWR, ENOSYS) || mkdir("/d", 0700) == 0 ||
	    mount("none", "/", "tmpfs", 0, NULL) == 0)
		return 6;
	int image = open(CONFINE_IMAGE, O_RDWR);
	if (image < 0 || pwrite(image, "x", 1, 0) != 1)
		return 7;
	if (pread(CONFINE_IMAGE_FD, exe, 1, 0) >= 0 || errno != EBADF)
		return 8;
	struct flock l = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
	return fcntl(image, F_OFD_SETLK, &l) < 0 && errno == ENOSYS ? 0 : 9;
}

static int in_child(struct confine *c, const char *program, int image, uint32_t ns)
{
	const struct sandbox_guest g = {
		.root = confine_root, .grants = confine_grants, .ctx = c, .want = SANDBOX_ALL, .uid = 0, .gid = 0};
	char why[256], names[256];

	if (dup2(image, CONFINE_IMAGE_FD) < 0)
		return 90;
	uint32_t lack = sandbox_missing(sandbox_enter_guest(&nbd_seal, &g, ns, why, sizeof why));
	if (lack) {
		fprintf(stderr, "no %s: %s\n", sandbox_names(lack, names, sizeof names), why);
		return 91;
	}
	return inside(c, program);
}

static void test_root(void)
{
	static const char program[] = "/bin/sh";
	struct confine c = {.images = 1, .writable = 1};
	char err[256] = "", again[64];
	uint32_t ns;
	int a = mkstemp(mine), b = mkstemp(other), ws = -1;

	CU_ASSERT_FATAL(a >= 0 && b >= 0);
	snprintf(again, sizeof again, "/proc/self/fd/%d", a);
	int image = open(again, O_PATH | O_CLOEXEC);
	CU_ASSERT_FATAL(confine_find(&c, program, more, err, sizeof err) == 0);
	CU_ASSERT(c.n >= 4); /* loader, libc, itself, and two of the others */
	pid_t pid = sandbox_fork_as(SANDBOX_NAMESPACES, &ns, 0, 0);
	if (pid == 0) {
		umask(0777); /* the monitor's may be anything */
		_exit(in_child(&c, program, image, ns));
	}
	CU_ASSERT_FATAL(pid > 0 && waitpid(pid, &ws, 0) == pid);
	CU_ASSERT(WIFEXITED(ws));
	CU_ASSERT_EQUAL(WEXITSTATUS(ws), 0);
	confine_free(&c);
	close(image);
	close(a);
	close(b);
	unlink(mine);
	unlink(other);
}

static void test_find(void)
{
	struct confine c;
	char err[256] = "";

	CU_ASSERT(confine_find(&c, "/there/is/none", more, err, sizeof err) == -ENOENT);
	CU_ASSERT_PTR_NOT_NULL(strstr(err, "/there/is/none"));
	confine_free(&c);
	CU_ASSERT(confine_find(&c, "/etc/passwd", more, err, sizeof err) == -ENOEXEC);
	confine_free(&c);
}

static void test_tables(void)
{
	static const struct sandbox_table *const all[] = {&nbd_seal, &nbd_readonly_seal, &passt_seal};

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		CU_ASSERT(all[i]->refuse == ENOSYS && all[i]->memory && all[i]->max_fds);
		for (size_t k = 0; k < all[i]->n; k++) {
			CU_ASSERT(all[i]->calls[k].reason && all[i]->calls[k].reason[0]);
			CU_ASSERT(all[i]->calls[k].stage == STAGE_FINAL);
		}
	}
}

CU_ErrorCode suite_confine(void);
CU_ErrorCode suite_confine(void)
{
	CU_pSuite s = CU_add_suite("confine", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_find) || !CU_ADD_TEST(s, test_tables))
		return CU_get_error();
	if (!SANITIZED && !CU_ADD_TEST(s, test_root))
		return CU_get_error();
	return CUE_SUCCESS;
}

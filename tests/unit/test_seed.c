/* cloud-init's seed: what the options say, and the texts that become of them. */
#include <CUnit/CUnit.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/seed.h"

static char dir[64], err[PATH_MAX + 256];
static struct seed_option o;
static struct seed s;

static int set_up(void)
{
	strcpy(dir, "/tmp/hvx-seed-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void)
{
	char cmd[100];

	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	return system(cmd);
}

static void file(char *path, const char *name, const char *text, size_t n)
{
	snprintf(path, PATH_MAX, "%s/%s", dir, name);
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
	CU_ASSERT_FATAL(fd >= 0 && write(fd, text, n) == (ssize_t)n);
	close(fd);
}
#define FILE_OF(path, name, text) file(path, name, text, sizeof text - 1)

static int opened(void)
{
	err[0] = '\0';
	int rc = seed_open(&s, &o, "vm1", err, sizeof err);
	CU_ASSERT((rc == 0) == !err[0] && !strchr(err, '\n'));
	return rc;
}

static const char *text_of(enum seed_file f)
{
	static char buf[4096];
	ssize_t n = pread(s.text[f], buf, sizeof buf - 1, 0);

	buf[n < 0 ? 0 : n] = '\0';
	return buf;
}

static bool refused(const char *why)
{
	if (opened() == 0)
		seed_close(&s);
	return strstr(err, why) != NULL;
}

static void test_parse(void)
{
	CU_ASSERT_EQUAL(seed_parse(&o, "a,,b,m,n", err, sizeof err), 0);
	CU_ASSERT_STRING_EQUAL(o.file[SEED_USER_DATA], "a,b");
	CU_ASSERT_STRING_EQUAL(o.file[SEED_META_DATA], "m");
	CU_ASSERT_STRING_EQUAL(o.file[SEED_NETWORK], "n");
	CU_ASSERT(o.wanted);
	CU_ASSERT(seed_parse(&o, ",m", err, sizeof err) == 0 && !o.file[0][0] && !strcmp(o.file[1], "m"));
	CU_ASSERT(seed_parse(&o, "a,b,c,d", err, sizeof err) < 0);
	char *s_ = calloc(1, PATH_MAX + 10);
	memset(s_, 'x', PATH_MAX + 5);
	CU_ASSERT(seed_parse(&o, s_, err, sizeof err) < 0);
	free(s_);
}

static void test_texts(void)
{
	char first[200];

	memset(&o, 0, sizeof o);
	CU_ASSERT_EQUAL_FATAL(opened(), 0);
	CU_ASSERT(!strncmp(text_of(SEED_USER_DATA), "#cloud-config\n", 14) && s.text[SEED_NETWORK] == -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(text_of(SEED_META_DATA), "local-hostname: vm1\n"));
	snprintf(first, sizeof first, "%.190s", text_of(SEED_META_DATA));
	seed_close(&s);
	FILE_OF(o.file[SEED_USER_DATA], "u", "#!/bin/sh\n");
	FILE_OF(o.file[SEED_NETWORK], "n", "version: 2\n");
	FILE_OF(o.key, "k", "# mine\nssh-ed25519 AAAA a \"b\\\"\r\necdsa-sha2-nistp256 BBBB\n");
	CU_ASSERT_EQUAL_FATAL(opened(), 0);
	CU_ASSERT_STRING_EQUAL(text_of(SEED_USER_DATA), "#!/bin/sh\n");
	CU_ASSERT_STRING_EQUAL(text_of(SEED_NETWORK), "version: 2\n");
	CU_ASSERT_PTR_NOT_NULL(strstr(text_of(SEED_META_DATA),
				      "public-keys:\n  - \"ssh-ed25519 AAAA a \\\"b\\\\\\\"\"\n"
				      "  - \"ecdsa-sha2-nistp256 BBBB\"\n"));
	CU_ASSERT(strncmp(first, text_of(SEED_META_DATA), 34)); /* another instance */
	seed_close(&s);
	FILE_OF(o.file[SEED_META_DATA], "m", "instance-id: mine");
	CU_ASSERT_EQUAL_FATAL(opened(), 0);
	CU_ASSERT(!strncmp(text_of(SEED_META_DATA), "instance-id: mine\npublic-keys:\n", 31));
	seed_close(&s);
}

static void test_bad(void)
{
	char *big = calloc(1, (1 << 20) + 1);

	memset(&o, 0, sizeof o);
	FILE_OF(o.file[SEED_META_DATA], "m", "public-keys: []\n");
	FILE_OF(o.key, "k", "ssh-ed25519 AAAA\n");
	CU_ASSERT(refused("has public-keys"));
	FILE_OF(o.file[SEED_META_DATA], "m", "{\"a\": 1}\n");
	CU_ASSERT(refused("JSON"));
	o.file[SEED_META_DATA][0] = '\0';
	FILE_OF(o.key, "k", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n");
	CU_ASSERT(refused("private key"));
	FILE_OF(o.key, "k", "");
	CU_ASSERT(refused("not a public key"));
	FILE_OF(o.key, "k", "ssh-ed25519 AA\033[1m\n");
	CU_ASSERT(refused("not a public key"));
	FILE_OF(o.key, "k", "ssh-ed25519 \n");
	CU_ASSERT(refused("not a public key"));
	strcpy(o.key, "/dev/null");
	CU_ASSERT(refused("not a regular file"));
	strcpy(o.key, "/none");
	CU_ASSERT(refused("No such file"));
	o.key[0] = '\0';
	FILE_OF(o.file[SEED_USER_DATA], "u", "packages: [a]\n");
	CU_ASSERT(refused("#cloud-config"));
	FILE_OF(o.file[SEED_USER_DATA], "u", "#!/bin/sh\n\0");
	CU_ASSERT(refused("not a text"));
	memset(big, '#', (1 << 20) + 1);
	file(o.file[SEED_USER_DATA], "u", big, (1 << 20) + 1);
	CU_ASSERT(refused("longer than 1 MiB"));
	free(big);
}

CU_ErrorCode suite_seed(void);
CU_ErrorCode suite_seed(void)
{
	CU_pSuite u = CU_add_suite("seed", set_up, tear_down);

	CU_add_test(u, "options", test_parse);
	CU_add_test(u, "texts", test_texts);
	CU_add_test(u, "bad ones", test_bad);
	return CU_get_error();
}

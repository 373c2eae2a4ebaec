/*
 * Real programs, Debian's own binaries: one iteration is one run of the program.
 *
 * Invariant: input is made here, the same everywhere; the result is a hash of what
 * the program wrote to its standard output and of its exit status.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "work.h"

#define OUT "/tmp/real.out"

/* Words with a skewed distribution: compresses about as English does. */
static void make_text(const char *path, size_t bytes)
{
	uint64_t seed = 1234, r;
	FILE *f = fopen(path, "w");
	size_t done = 0;

	work_check(f != NULL, path);
	while (done < bytes) {
		r = rnd_next(&seed);
		unsigned w = (r & 1023) * (r >> 10 & 1023) >> 10;

		done += fprintf(f, "%c%c%s%c%c", 'a' + w % 26, 'a' + w / 26 % 26, w & 7 ? "en" : "ation",
				'a' + w * 7 % 26, r >> 60 ? ' ' : '\n');
	}
	fclose(f);
}

/* A C file of `count` functions, each different. */
static void make_source(const char *path, int count)
{
	FILE *f = fopen(path, "w");

	work_check(f != NULL, path);
	fprintf(f, "struct node { struct node *next; int key; long value; };\n");
	for (int i = 0; i < count; i++)
		fprintf(f,
			"static long table_%d[%d];\n"
			"long work_%d(struct node *n, int limit)\n{\n\tlong sum = %d;\n\tint i;\n"
			"\tfor (i = 0; n && i < limit; i++, n = n->next) {\n\t\tif (n->key %% %d == %d)\n"
			"\t\t\tsum += n->value * %d;\n\t\telse switch (n->key & 3) {\n\t\tcase 0: sum ^= %d; break;\n"
			"\t\tcase 1: sum -= table_%d[i %% %d]; break;\n\t\tdefault: table_%d[i %% %d] = sum;\n\t\t}\n\t}\n"
			"\treturn sum%s;\n}\n",
			i, i % 50 + 10, i, i, i % 13 + 2, i % 2, i + 3, i * 17, i, i % 50 + 10, i, i % 50 + 10,
			i ? " + table_0[1]" : "");
	fclose(f);
}

static uint64_t hash_file(const char *path, int status)
{
	uint64_t h = status + 1, got;
	static uint8_t buf[65536];
	int fd = open(path, O_RDONLY);

	work_check(fd >= 0, path);
	while ((got = read(fd, buf, sizeof(buf))) > 0 && got <= sizeof(buf))
		for (uint64_t i = 0; i < got; i++)
			h = mix(h, buf[i]);
	close(fd);
	return h;
}

/* Runs argv with input from `in` and output to OUT; returns its exit status. */
static int spawn(const char *in, char *const argv[])
{
	int status, fd;
	pid_t pid = vfork();

	if (pid == 0) {
		fd = open(in, O_RDONLY);
		dup2(fd, 0);
		fd = open(OUT, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		dup2(fd, 1);
		execv(argv[0], argv);
		_exit(127);
	}
	work_check(pid > 0 && waitpid(pid, &status, 0) == pid, "spawn");
	work_check(WIFEXITED(status) && WEXITSTATUS(status) != 127, argv[0]);
	return WEXITSTATUS(status);
}

static uint64_t repeat(uint64_t n, const char *in, char *const argv[])
{
	int status = 0;

	work_check(n > 0, "nothing to do");
	while (n--)
		status = spawn(in, argv);
	work_check(status == 0, argv[0]);
	return hash_file(OUT, status);
}

#define PROGRAM(name, in, ...)                      \
	static uint64_t run_##name(uint64_t n)      \
	{                                           \
		char *argv[] = {__VA_ARGS__, NULL}; \
                                                    \
		return repeat(n, in, argv);         \
	}

static void setup_text(void)
{
	make_text("/tmp/text", 400000);
}

static void setup_long_text(void)
{
	make_text("/tmp/text", 8000000);
}

static void setup_packed(const char *program)
{
	char *argv[] = {(char *)program, "-c", NULL};

	make_text("/tmp/text", 2000000);
	work_check(spawn("/tmp/text", argv) == 0, program);
	work_check(rename(OUT, "/tmp/packed") == 0, "rename");
}

static void setup_gz(void)
{
	setup_packed("/usr/bin/gzip");
}

static void setup_xz(void)
{
	make_text("/tmp/text", 1000000);
	char *argv[] = {"/usr/bin/xz", "-0", "-c", NULL};

	work_check(spawn("/tmp/text", argv) == 0, "xz");
	work_check(rename(OUT, "/tmp/packed") == 0, "rename");
}

static void setup_tcc(void)
{
	make_source("/tmp/source.c", 600);
}

static void setup_cc1(void)
{
	make_source("/tmp/source.c", 6);
}

#define SCRIPT(x) "/bench/script." x

PROGRAM(gzip, "/tmp/text", "/usr/bin/gzip", "-n", "-6", "-c")
PROGRAM(gunzip, "/tmp/packed", "/usr/bin/gzip", "-d", "-c")
PROGRAM(xz, "/tmp/text", "/usr/bin/xz", "-T1", "-2", "-c")
PROGRAM(unxz, "/tmp/packed", "/usr/bin/xz", "-d", "-c")
PROGRAM(sha256, "/tmp/text", "/usr/bin/openssl", "dgst", "-sha256")
PROGRAM(aes, "/tmp/text", "/usr/bin/openssl", "enc", "-aes-128-ctr", "-K", "00112233445566778899aabbccddeeff", "-iv",
	"00112233445566778899aabbccddeeff")
PROGRAM(chacha, "/tmp/text", "/usr/bin/openssl", "enc", "-chacha20", "-K",
	"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff", "-iv", "00112233445566778899aabbccddeeff")
/* 2^1279 - 1, a prime: rounds of modular exponentiation. */
PROGRAM(prime, "/dev/null", "/bin/busybox", "sh", "-c",
	"/usr/bin/openssl prime -hex 7$(printf 'F%.0s' $(/bin/busybox seq 319)) | /bin/busybox tail -c 9")
PROGRAM(tcc, "/dev/null", "/usr/bin/tcc", "-c", "-o", OUT, "/tmp/source.c")
PROGRAM(cc1, "/dev/null", "/usr/lib/gcc/x86_64-linux-gnu/12/cc1", "-quiet", "-fpreprocessed", "-O2", "-o", "-",
	"/tmp/source.c")
PROGRAM(python, "/dev/null", "/usr/bin/python3.11", "-S", "-E", SCRIPT("py"))
PROGRAM(lua, "/dev/null", "/usr/bin/lua5.4", SCRIPT("lua"))
PROGRAM(luajit, "/dev/null", "/usr/bin/luajit", SCRIPT("lua"))
PROGRAM(sqlite, SCRIPT("sql"), "/usr/bin/sqlite3", "-batch", ":memory:")
PROGRAM(shell_loop, "/dev/null", "/bin/busybox", "sh", SCRIPT("sh"))
PROGRAM(bash_fork, "/dev/null", "/bin/bash", SCRIPT("bash"))
PROGRAM(awk, "/tmp/text", "/bin/busybox", "awk",
	"{ for (i = 1; i <= NF; i++) c[$i]++ } END { n = 0; for (w in c) n += c[w] * length(w); print n }")
PROGRAM(sort, "/tmp/text", "/bin/busybox", "sort", "-u")
PROGRAM(grep, "/tmp/text", "/bin/busybox", "grep", "-c", "[aeiou]en.*ation.*[^a-m]en")
PROGRAM(sed, "/tmp/text", "/bin/busybox", "sed", "s/\\([a-z]*\\)ation/<\\1>/g")

const struct row real_rows[] = {
	{"real", "gzip", setup_text, run_gzip, NULL},
	{"real", "gunzip", setup_gz, run_gunzip, NULL},
	{"real", "xz", setup_text, run_xz, NULL},
	{"real", "unxz", setup_xz, run_unxz, NULL},
	{"real", "openssl-sha256", setup_long_text, run_sha256, NULL},
	{"real", "openssl-aes", setup_long_text, run_aes, NULL},
	{"real", "openssl-chacha", setup_long_text, run_chacha, NULL},
	{"real", "openssl-prime", NULL, run_prime, NULL},
	{"real", "compile-tcc", setup_tcc, run_tcc, NULL},
	{"real", "compile-gcc", setup_cc1, run_cc1, NULL},
	{"real", "python", NULL, run_python, NULL},
	{"real", "lua", NULL, run_lua, NULL},
	{"real", "luajit", NULL, run_luajit, NULL},
	{"real", "sqlite", NULL, run_sqlite, NULL},
	{"real", "shell-loop", NULL, run_shell_loop, NULL},
	{"real", "bash-fork", NULL, run_bash_fork, NULL},
	{"real", "awk", setup_text, run_awk, NULL},
	{"real", "sort", setup_text, run_sort, NULL},
	{"real", "grep", setup_text, run_grep, NULL},
	{"real", "sed", setup_text, run_sed, NULL},
	{NULL, NULL, NULL, NULL, NULL},
};

/*
 * The sealed helper that reads image headers: a child with two descriptors, the image and a pipe, which may read the one and
 * write to the other.  Invariant: no byte of an image is interpreted in the monitor itself; what comes through the pipe is
 * checked like any message, and whoever writes the image can make the helper say only what a header could.
 */
#include "monitor/inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "monitor/spawn.h"

static const struct sandbox_call calls[] = {
	ALLOW(pread64, "the image"),
	ALLOW(lseek, "its size"),
	ALLOW(write, "the answer"),
	ALLOW(exit_group, "the end"),
};

const struct sandbox_table inspect_seal = {
	.name = "inspect",
	.calls = calls,
	.n = sizeof calls / sizeof calls[0],
	.max_fds = 64,
	.memory = 64ull << 20,
};

/* ---- what it finds ---- */

/* format=auto: 0 and the format, or -EINVAL. */
static int choose(const struct inspect_ask *ask, const struct probe_kind *k, bool ends, struct inspection *out)
{
	const char *like = ends ? "ends" : "begins";

	if (!k && !ask->raw)
		snprintf(out->why, sizeof out->why, "no known format; if it is a raw image say format=raw");
	else if (k && k->format == FORMAT_AUTO)
		snprintf(out->why, sizeof out->why,
			 "%s like %s, which is not supported: %s, or say format=raw if the guest is to see it as it is",
			 like, k->name, k->way_out);
	else if (k && ask->raw)
		snprintf(out->why, sizeof out->why,
			 "named like a raw image but %s like %s: say which with format=", like, k->name);
	else
		out->format = k ? k->format : FORMAT_RAW;
	return out->why[0] ? -EINVAL : 0;
}

void inspect_here(int fd, const struct inspect_ask *ask, struct inspection *out)
{
	static struct probe p; /* large; there is one thread */
	bool ends;

	memset(out, 0, sizeof *out);
	out->format = ask->format;
	out->rc = probe_read(&p, fd);
	if (out->rc) {
		snprintf(out->why, sizeof out->why, "%s", strerror(-out->rc));
		return;
	}
	const struct probe_kind *k = probe_kind(&p, &ends);
	if (out->format == FORMAT_AUTO)
		out->rc = choose(ask, k, ends, out);
	if (out->rc || out->format == FORMAT_RAW)
		return;
	if (!probe_like(&p, out->format)) {
		snprintf(out->why, sizeof out->why, "does not begin like its format, %s%s%s",
			 devopt_format_name(out->format), k ? ", but like " : "", k ? k->name : "");
		out->rc = -EINVAL;
	} else if (probe_refuses(&p, out->format, ask->write, out->why, sizeof out->why)) {
		out->rc = -EINVAL;
	} else {
		out->rc = header_refs(&p, out->format, &out->refs, out->why, sizeof out->why);
	}
}

/* ---- the helper ---- */

static void helper(inspect_fn *fn, int fd, int pipe, const struct inspect_ask *ask, struct inspection *out)
{
	int keep[2] = {fd < pipe ? fd : pipe, fd < pipe ? pipe : fd};

	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	for (int i = 0; i < 3; i++)
		if (i != fd && i != pipe)
			close(i);
	sandbox_close_fds(keep, 2);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || sandbox_drop_caps(0))
		_exit(126);
	int rc = sandbox_filter(&inspect_seal, STAGE_FINAL);
	if (rc && rc != -ENOSYS) /* a kernel without filters: strict does not start there, best says so */
		_exit(126);
	fn(fd, ask, out);
	size_t n = 0;
	for (ssize_t k; n < sizeof *out && (k = write(pipe, (const char *)out + n, sizeof *out - n)) > 0;)
		n += (size_t)k;
	syscall(SYS_exit_group, n == sizeof *out ? 0 : 1);
}

/* Who sent it may have been taken over by what it read. */
static bool answer_ok(const struct inspection *i)
{
	return memchr(i->why, 0, sizeof i->why) && i->rc <= 0 && (unsigned)i->format < FORMAT_COUNT &&
	       (i->rc || i->format != FORMAT_AUTO) && header_refs_ok(&i->refs);
}

static bool receive(int pipe, struct inspection *out)
{
	size_t n = 0;

	for (ssize_t k; n < sizeof *out; n += (size_t)k) {
		k = read(pipe, (char *)out + n, sizeof *out - n);
		if (k < 0 && errno == EINTR)
			k = 0;
		else if (k <= 0)
			return false;
	}
	return answer_ok(out);
}

static int no_answer(struct inspection *out, const char *why)
{
	memset(out, 0, sizeof *out);
	out->rc = -ECHILD;
	snprintf(out->why, sizeof out->why, "the helper that reads its header: %s", why);
	return out->rc;
}

int inspect_by(inspect_fn *fn, int fd, const struct inspect_ask *ask, struct inspection *out)
{
	int p[2], ws = 0;
	char cause[128];

	if (pipe2(p, O_CLOEXEC) < 0)
		return no_answer(out, strerror(errno));
	pid_t pid = fork();
	if (pid == 0)
		helper(fn, fd, p[1], ask, out);
	int error = errno;
	close(p[1]);
	bool ok = pid > 0 && receive(p[0], out);
	close(p[0]);
	if (pid < 0)
		return no_answer(out, strerror(error));
	while (waitpid(pid, &ws, 0) < 0 && errno == EINTR)
		;
	if (!ok)
		return no_answer(out, ws ? spawn_cause(ws, cause, sizeof cause) : "a malformed answer");
	return out->rc;
}

int inspect(int fd, const struct inspect_ask *ask, struct inspection *out)
{
	return inspect_by(inspect_here, fd, ask, out);
}

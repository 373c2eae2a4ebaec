/*
 * hvx-monitor: the command line and, for run and start, the supervisor of one
 * VM.  Invariant: one process supervises one VM.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/err.h"
#include "common/ipc.h"
#include "common/log.h"
#include "monitor/cli.h"
#include "monitor/client.h"
#include "monitor/completion.h"
#include "monitor/machine.h"
#include <config.h>

/* Descriptors 0 to 2 must be open, or the first files we open would become them. */
static void open_std(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

static int supervise(const struct cli *c, int notify_fd)
{
	log_init(c->cfg.name);
	log_keep_error();
	if (c->debug) {
		log_set_level(LOG_LVL_DEBUG);
		ipc_set_trace(true);
	}
	return machine_run(&c->cfg, c->debug, notify_fd);
}

/* Waits for the monitor's word that the guest runs, or for its end. */
static int await_start(pid_t pid, int fd, const char *name)
{
	unsigned char status;
	ssize_t n;
	int ws;

	do
		n = read(fd, &status, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1) {
		if (status == 0)
			printf("%s\n", name);
		return status;
	}
	if (waitpid(pid, &ws, 0) == pid && WIFEXITED(ws))
		return WEXITSTATUS(ws);
	log_error("the monitor died");
	return HVX_EXIT_CHILD;
}

static int start(const struct cli *c)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		fatal(HVX_EXIT_HOST, "pipe: %s", strerror(errno));
	fflush(stdout);
	pid_t pid = fork();
	if (pid < 0)
		fatal(HVX_EXIT_HOST, "fork: %s", strerror(errno));
	if (pid == 0) {
		close(fds[0]);
		setsid();
		_exit(supervise(c, fds[1]));
	}
	close(fds[1]);
	return await_start(pid, fds[0], c->cfg.name);
}

int main(int argc, char **argv)
{
	static struct cli c;
	char err[512];

	open_std();
	umask(077); /* what we make is for this user, who must be able to use it */
	log_init("hvx-monitor");
	int rc = cli_parse(&c, argc, argv, err, sizeof err);
	if (rc) {
		log_error("%s", err);
		return rc;
	}
	switch (c.cmd) {
	case CMD_HELP: cli_help(c.help_on); return 0;
	case CMD_VERSION: printf("hvx-monitor %s\n", PACKAGE_VERSION); return 0;
	case CMD_COMPLETION: completion_print(stdout, c.zsh); return fflush(stdout) ? HVX_EXIT_FAIL : 0;
	case CMD_RUN: return supervise(&c, -1);
	case CMD_START: return start(&c);
	default: return client_command(&c);
	}
}

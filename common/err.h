/*
 * Exit statuses of hvx-monitor and of its children, and the way out at
 * start-up.  The monitor's statuses are documented in hvx-monitor(1).
 */
#ifndef HVX_ERR_H
#define HVX_ERR_H

enum hvx_exit {
	HVX_EXIT_OK = 0,      /* the guest powered off; the command succeeded */
	HVX_EXIT_FAIL = 1,    /* the command failed */
	HVX_EXIT_USAGE = 2,   /* bad command line */
	HVX_EXIT_CONFIG = 3,  /* bad configuration: a file, a kernel, a size */
	HVX_EXIT_HOST = 4,    /* the host lacks something */
	HVX_EXIT_CRASHED = 5, /* the guest crashed (triple fault with --no-reboot) */
	HVX_EXIT_CHILD = 6,   /* a child process died */
	HVX_EXIT_KILLED = 8,  /* ended from outside: kill, Ctrl-A x, a signal */
};

/* Name of an exit status for messages. */
const char *err_exit_name(int status);

/* Logs and exits.  For start-up and broken invariants only. */
void fatal(int status, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));

#endif

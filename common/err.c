/*
 * fatal() and the names of exit statuses.  Invariant: after start-up nothing
 * a guest does may reach fatal().
 */
#include "common/err.h"

#include <stdarg.h>
#include <stdlib.h>

#include "common/log.h"

const char *err_exit_name(int status)
{
	switch (status) {
	case HVX_EXIT_OK: return "ok";
	case HVX_EXIT_FAIL: return "failed";
	case HVX_EXIT_USAGE: return "bad usage";
	case HVX_EXIT_CONFIG: return "bad configuration";
	case HVX_EXIT_HOST: return "the host lacks something";
	case HVX_EXIT_CRASHED: return "the guest crashed";
	case HVX_EXIT_CHILD: return "a child process died";
	case HVX_EXIT_KILLED: return "ended from outside";
	default: return "the guest's own status";
	}
}

void fatal(int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	log_vmsg(LOG_LVL_ERROR, fmt, ap);
	va_end(ap);
	exit(status);
}

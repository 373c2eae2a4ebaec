/*
 * The service manager's protocol: datagrams of assignments to a socket with a path or an abstract name (sd_notify(3)).
 * Invariant: nobody but the process that was started as the service says anything.
 */
#include "monitor/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WATCHDOG_MAX_US 86400000000ull

bool notify_wanted(void)
{
	const char *name = getenv("NOTIFY_SOCKET");

	return name && *name;
}

static unsigned watchdog(void)
{
	const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
	char *end;

	if (!usec || (pid && strtoul(pid, NULL, 10) != (unsigned long)getpid()))
		return 0;
	unsigned long long n = strtoull(usec, &end, 10);
	return *usec < '0' || *usec > '9' || *end || n < 1000 || n > WATCHDOG_MAX_US ? 0 : (unsigned)(n / 1000);
}

int notify_open(struct notify *n)
{
	const char *name = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	*n = (struct notify){.fd = -1};
	if (!notify_wanted())
		return 0;
	size_t len = strlen(name);
	if ((name[0] != '/' && name[0] != '@') || len < 2 || len >= sizeof sa.sun_path)
		return -EINVAL;
	memcpy(sa.sun_path, name, len);
	if (name[0] == '@')
		sa.sun_path[0] = '\0';
	n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (n->fd < 0)
		return 0;
	if (connect(n->fd, (struct sockaddr *)&sa, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0)
		notify_close(n);
	else
		n->watchdog_ms = watchdog();
	return 0;
}

void notify_close(struct notify *n)
{
	if (n->fd >= 0)
		close(n->fd);
	*n = (struct notify){.fd = -1};
}

void notify_say(const struct notify *n, const char *assignments)
{
	size_t len = strlen(assignments);

	if (n->fd >= 0 && write(n->fd, assignments, len) != (ssize_t)len)
		return; /* a manager that takes nothing now will ask by its own means */
}

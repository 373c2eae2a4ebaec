/*
 * Whether ports can be forwarded is found out by binding them, as passt will.  Two programs may share a UDP port
 * when both say so, and passt does: so a UDP port is bound by us alone first, and shared only then.
 * Invariant: a socket that is kept never listens and is never read.
 */
#include "monitor/forward.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int share(int fd)
{
	return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(const int){1}, sizeof(int));
}

static int bind_to(int fd, int family, const char *addr, uint16_t port)
{
	struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	bool v6 = family == AF_INET6;

	if (addr[0] && inet_pton(family, addr, v6 ? (void *)&a6.sin6_addr : &a4.sin_addr) != 1) {
		errno = EINVAL;
		return -1;
	}
	if (!v6)
		return bind(fd, (const struct sockaddr *)&a4, sizeof a4);
	if (setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(const int){1}, sizeof(int)) < 0)
		return -1;
	return bind(fd, (const struct sockaddr *)&a6, sizeof a6);
}

/* TCP's ports have one listener whatever is shared; it is passt that is told when somebody was faster. */
static int try(struct forward_claim *c, const struct net_forward *f, int family, uint16_t port)
{
	int fd = socket(family, (f->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	bool ok = fd >= 0 && (f->udp || share(fd) == 0) && bind_to(fd, family, f->addr, port) == 0 &&
		  (!f->udp || share(fd) == 0);
	int rc = ok ? 0 : -errno;

	if (ok && f->udp)
		c->fd[c->n++] = fd;
	else if (fd >= 0)
		close(fd);
	/* without an address: of the families that the host has */
	return !f->addr[0] && (rc == -EAFNOSUPPORT || rc == -EADDRNOTAVAIL) ? 0 : rc;
}

static int claim_port(struct forward_claim *c, const struct net_forward *f, bool only_v4, uint16_t port)
{
	bool v6 = strchr(f->addr, ':');
	int rc = v6 ? 0 : try(c, f, AF_INET, port);

	if (!rc && (v6 || (!f->addr[0] && !only_v4)))
		rc = try(c, f, AF_INET6, port);
	return rc;
}

int forward_claim(struct forward_claim *c, const struct net_option *n, char *err, size_t len)
{
	c->n = 0;
	for (unsigned i = 0; i < n->nforwards; i++) {
		const struct net_forward *f = &n->forward[i];
		for (unsigned k = 0; k < f->ports; k++) {
			uint16_t port = (uint16_t)(f->host_port + k);
			int rc = claim_port(c, f, n->restricted, port);
			if (!rc)
				continue;
			snprintf(err, len, "%s: forward: %s port %u%s%s: %s", n->id, f->udp ? "udp" : "tcp", port,
				 f->addr[0] ? " of " : "", f->addr,
				 rc == -EADDRINUSE ? "taken by another program" : strerror(-rc));
			forward_release(c);
			return rc;
		}
	}
	return 0;
}

void forward_release(struct forward_claim *c)
{
	while (c->n)
		close(c->fd[--c->n]);
}

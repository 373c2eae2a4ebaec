/*
 * Round trips of one byte over TCP: "rtt serve PORT" echoes, "rtt PORT COUNT" measures against 127.0.0.1.
 *
 * Invariant: one byte is in flight at a time; the measuring side prints the
 * median in nanoseconds.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int serve(struct sockaddr_in *at)
{
	int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
	char byte;

	at->sin_addr.s_addr = htonl(INADDR_ANY);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)at, sizeof(*at)) || listen(listener, 4))
		return 1;
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			return 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1)
			;
		close(fd);
	}
}

static long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;

	return (x > y) - (x < y);
}

static int measure(struct sockaddr_in *to, int count)
{
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	long *took = calloc((size_t)count, sizeof(*took));
	char byte = 'x';

	to->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (!took || connect(fd, (struct sockaddr *)to, sizeof(*to)))
		return 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	for (int i = 0; i < count; i++) {
		long begun = now_ns();

		if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1)
			return 1;
		took[i] = now_ns() - begun;
	}
	qsort(took, (size_t)count, sizeof(*took), compare);
	printf("%ld\n", took[count / 2]);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET};

	if (argc == 3 && strcmp(argv[1], "serve") == 0) {
		address.sin_port = htons((unsigned short)atoi(argv[2]));
		return serve(&address);
	}
	if (argc != 3 || atoi(argv[2]) <= 0)
		return 2;
	address.sin_port = htons((unsigned short)atoi(argv[1]));
	return measure(&address, atoi(argv[2]));
}

/*
 * Socket filters: code that the guest's kernel compiles and runs (its BPF JIT).
 *
 * Invariant: hundreds of different filters are attached one after another, so that
 * the kernel writes new code over pages that held old code.
 */
#include <linux/filter.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* Accepts a datagram of one byte if byte * 3 + i is odd. */
static int attach(int fd, unsigned i)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
		BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 3),
		BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, i),
		BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 1),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, 0xffff),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog));
}

int main(void)
{
	int s[2], wrong = 0;
	char c;

	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, s) != 0)
		return 1;
	for (unsigned i = 0; i < 300; i++) {
		if (attach(s[0], i) != 0) {
			puts("filter: cannot attach");
			return 1;
		}
		for (int byte = 0; byte < 4; byte++) {
			int pass = (byte * 3 + i) & 1;

			c = byte;
			(void)!write(s[1], &c, 1);
			wrong += (recv(s[0], &c, 1, MSG_DONTWAIT) == 1) != pass;
		}
	}
	puts(wrong ? "filter: FAILED" : "filter: passed");
	return wrong != 0;
}

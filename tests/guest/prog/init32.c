/*
 * First process of a 32-bit guest: says what it finds, powers off.  No libc: the building host may have no 32-bit one.
 */
#define SYS_OPEN   5
#define SYS_READ   3
#define SYS_WRITE  4
#define SYS_REBOOT 88
#define SYS_PAUSE  29

static long call(long n, long a, long b, long c)
{
	long ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory");
	return ret;
}

static void say(const char *s)
{
	long n = 0;

	while (s[n])
		n++;
	call(SYS_WRITE, 1, (long)s, n);
}

void _start(void)
{
	char buf[64];
	long fd = call(SYS_OPEN, (long)"/second", 0, 0);
	long n = call(SYS_READ, fd, (long)buf, sizeof buf - 1);

	say("MARK init32\n");
	if (n > 0) {
		buf[n] = 0;
		say("MARK second initrd: ");
		say(buf);
	}
	call(SYS_REBOOT, (long)0xfee1dead, 0x28121969, 0x4321fedc);
	for (;;)
		call(SYS_PAUSE, 0, 0, 0);
}

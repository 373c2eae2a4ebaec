/*
 * A 32-bit program without a C library: compatibility-mode code under a 64-bit kernel.
 *
 * Invariant: needs no 32-bit headers or libraries, so it builds wherever gcc -m32
 * can compile; each check that fails prints its name and makes the exit status 1.
 * Covers what 64-bit mode lacks (aaa, daa, pusha, bound, into, les, far pointers,
 * one-byte inc and dec), int 0x80, segments through set_thread_area, signals,
 * wide arithmetic and x87.
 */
typedef unsigned int u32;
typedef unsigned long long u64;

static int failures;

static int sys(int nr, int a, int b, int c, int d)
{
	int ret;

	__asm__ volatile("int $0x80" : "=a"(ret) : "0"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return ret;
}

static void say(const char *s)
{
	int len = 0;

	while (s[len])
		len++;
	sys(4, 1, (int)s, len, 0);
}

static void expect(int cond, const char *what)
{
	if (cond)
		return;
	failures++;
	say("compat32: failed: ");
	say(what);
	say("\n");
}

static void decimal_adjust(void)
{
	u32 a;

	__asm__("mov $0x0905, %0; add $0x07, %b0; aaa" : "=a"(a)::"cc");
	expect((a & 0xffff) == 0x0a02, "aaa");
	__asm__("mov $0x79, %0; add $0x35, %b0; daa" : "=a"(a)::"cc");
	expect((a & 0xff) == 0x14, "daa");
	__asm__("mov $0x47, %0; sub $0x19, %b0; das" : "=a"(a)::"cc");
	expect((a & 0xff) == 0x28, "das");
	__asm__("mov $0x0205, %0; sub $0x08, %b0; aas" : "=a"(a)::"cc");
	expect((a & 0xffff) == 0x0107, "aas");
	__asm__("mov $63, %0; aam" : "=a"(a)::"cc");
	expect((a & 0xffff) == 0x0603, "aam");
	__asm__("mov $0x0603, %0; aad" : "=a"(a)::"cc");
	expect((a & 0xffff) == 63, "aad");
}

static void stack_forms(void)
{
	u32 before, after, sum;

	__asm__ volatile("mov %%esp, %0; pusha; mov 28(%%esp), %2; popa; mov %%esp, %1"
			 : "=&S"(before), "=&D"(after), "=&a"(sum)::"memory");
	expect(before == after, "pusha and popa");
	__asm__ volatile("pushf; pop %0" : "=r"(sum));
	expect(sum & 2, "pushf");
	__asm__ volatile("push %%ds; pop %0" : "=r"(sum));
	expect((sum & 0xffff) == 0x2b, "push ds");
	__asm__ volatile("push %%ds; pop %%es; mov %%es, %0" : "=r"(sum));
	expect((sum & 0xffff) == 0x2b, "pop es");
	__asm__("mov $5, %0; .byte 0x40; .byte 0x40; .byte 0x48" : "=a"(sum)::"cc");
	expect(sum == 6, "one-byte inc and dec");
	__asm__ volatile("enter $16, $0; leave" ::: "memory");
}

static void bounds(void)
{
	static const int limits[2] = {-3, 10};
	int index = 7;
	struct {
		u32 offset;
		unsigned short selector;
	} far_pointer = {0, 0};
	u32 cs, got;

	__asm__ volatile("bound %0, %1" ::"r"(index), "m"(limits));
	__asm__ volatile("xor %%eax, %%eax; into" ::: "eax", "cc");
	__asm__("mov %%cs, %0" : "=r"(cs));
	expect((cs & 0xffff) == 0x23, "compatibility code segment");
	far_pointer.offset = 0x12345678;
	far_pointer.selector = 0x2b;
	__asm__ volatile("les %1, %0" : "=r"(got) : "m"(far_pointer));
	expect(got == 0x12345678, "les");
}

/* A far call into this very code segment, and a far return. */
static void far_call(void)
{
	struct {
		u32 offset;
		unsigned short selector;
	} target = {0, 0x23};

	__asm__ volatile("movl $1f, %0; lcall *%0; jmp 2f; 1: lret; 2:" : "+m"(target)::"memory");
}

static void arithmetic(void)
{
	volatile u64 a = 0x123456789abcdef0ull, b = 0x0fedcba987654321ull;
	u64 product = a * b, sum = 0;
	volatile double x = 1.5;
	volatile long double y = 1;

	expect(product == 0x2236d88fe5618cf0ull, "64-bit multiplication");
	expect((u32)(a >> 32) / 7 == 0x299c335, "division");
	for (u32 i = 0; i < 200000; i++)
		sum += (u64)i * i ^ sum >> 7;
	expect(sum != 0, "loop");
	for (int i = 0; i < 20; i++) {
		x = x * 1.25 - 0.125;
		y = y * x + 1;
	}
	expect(x > 86.5 && x < 87.3, "x87 arithmetic");
}

struct user_desc {
	u32 entry_number, base_addr, limit, flags;
};

static void thread_area(void)
{
	static u32 area[4] = {11, 22, 33, 44};
	struct user_desc desc = {-1, (u32)area, sizeof(area) - 1, 0x41};
	u32 got = 0;

	/* flags: seg_32bit, byte granular, useable */
	if (sys(243, (int)&desc, 0, 0, 0) != 0) {
		expect(0, "set_thread_area");
		return;
	}
	__asm__ volatile("mov %w1, %%gs; mov %%gs:8, %0" : "=r"(got) : "r"(desc.entry_number * 8 + 3));
	expect(got == 33, "gs segment base");
	__asm__ volatile("movl $77, %%gs:4; xor %%eax, %%eax; mov %%ax, %%gs" ::: "eax", "memory");
	expect(area[1] == 77, "store through gs");
}

static volatile int caught;

static void handler(int sig)
{
	caught = sig;
}

/* Returns from a handler: rt_sigreturn is not used without SA_SIGINFO; sigreturn pops the signal number first. */
__asm__("restore: pop %eax; mov $119, %eax; int $0x80");
extern void restore(void);

static void signals(void)
{
	struct {
		void (*handler)(int);
		u32 flags;
		void (*restorer)(void);
		u32 mask[2];
	} act = {handler, 0x04000000, restore, {0, 0}};
	int pid = sys(20, 0, 0, 0, 0);

	expect(sys(174, 10, (int)&act, 0, 8) == 0, "rt_sigaction");
	for (int i = 0; i < 1000; i++) {
		caught = 0;
		sys(37, pid, 10, 0, 0);
		if (caught != 10)
			break;
	}
	expect(caught == 10, "signal handler");
}

static void processes(void)
{
	int status, pid;

	for (int i = 0; i < 50; i++) {
		pid = sys(2, 0, 0, 0, 0);
		if (pid == 0)
			sys(1, i & 63, 0, 0, 0);
		status = -1;
		if (sys(7, pid, (int)&status, 0, 0) != pid || status != (i & 63) << 8) {
			expect(0, "fork and wait");
			return;
		}
	}
}

/* An argument leaves out the far call, with which QEMU TCG harms the guest's kernel. */
__attribute__((used)) static void start(const u32 *stack)
{
	decimal_adjust();
	stack_forms();
	bounds();
	if (stack[0] < 2)
		far_call();
	arithmetic();
	thread_area();
	signals();
	processes();
	say(failures ? "compat32: FAILED\n" : "compat32: passed\n");
	sys(1, failures != 0, 0, 0, 0);
}

__asm__(".globl _start; _start: mov %esp, %eax; and $-16, %esp; sub $12, %esp; push %eax; call start; hlt");

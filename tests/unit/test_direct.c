/* Ring 3 run as it is: what is found by the scan, what the filters of a stub's two threads say to each call, and what is mapped. */
#include <CUnit/CUnit.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "btvm.h"
#include "common/memory.h"
#include "proto/stub.h"
#include "stub/filter.h"
#include "vcpu/direct/pages.h"
#include "vcpu/direct/scan.h"
#include "vcpu/mmu/mmu.h"

extern const char stub_at_stop[], stub_at_fs[], stub_at_gs[], stub_at_return[], stub_at_wait[], stub_at_order[],
	stub_at_ack[];

static uint8_t page[4096];

static bool clean_with(unsigned at, const void *bytes, size_t n)
{
	memset(page, 0x90, sizeof page);
	memcpy(page + at, bytes, n);
	return scan_clean(page);
}

static void test_scan(void)
{
	static const char *const bad[] = {
		"\x0f\x01\x03", "\x0f\x01\x0b", "\x0f\x01\x23", "\x0f\x01\xe0", "\x0f\x01\xd0", "\x0f\x01\xf9",
		"\x0f\x01\xee", "\x0f\x01\xef", "\x0f\x03\xc0", "\x0f\x31\x90", "\x0f\x33\x90", "\x0f\x34\x90",
		"\x0f\xa2\x90", "\x0f\xa1\x90", "\x0f\xa9\x90", "\x0f\xb4\x03", "\x0f\xb5\x03", "\x0f\xae\xc0",
		"\x0f\xae\xc8", "\x0f\xae\xd0", "\x0f\xae\xd8", "\x0f\xae\x23", "\x0f\xae\x2b", "\x0f\xae\x33",
		"\x0f\xc7\xf8", "\x0f\xc7\xf0", "\x0f\xc7\x23", "\x8e\xe0\x90", "\x8e\xe8\x90",
	};
	static const char *const good[] = {"\x0f\x05\x90", "\x0f\x0b\x90", "\x0f\xaf\xc0", "\x0f\xae\xe8",
					   "\x0f\xae\x3b", "\x0f\x1e\xfa", "\x0f\xc7\x0b", "\x0f\x01\x3b",
					   "\x8e\xd8\x90", "\xcd\x80\x90"};
	const unsigned at[] = {0, 1, 7, 2048, 4092, 4093};

	for (size_t k = 0; k < sizeof at / sizeof at[0]; k++) {
		for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
			CU_ASSERT_FALSE(clean_with(at[k], bad[i], 3));
		for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
			CU_ASSERT_TRUE(clean_with(at[k], good[i], 3));
	}
	/* what goes on behind the page */
	CU_ASSERT_FALSE(clean_with(4095, "\x0f", 1));
	CU_ASSERT_FALSE(clean_with(4095, "\x8e", 1));
	CU_ASSERT_FALSE(clean_with(4094, "\x0f\x01", 2));
	CU_ASSERT_FALSE(clean_with(4094, "\x0f\x31", 2));
	CU_ASSERT_FALSE(clean_with(4094, "\x8e\xe3", 2));
	CU_ASSERT_TRUE(clean_with(4094, "\x0f\xaf", 2));
	CU_ASSERT_TRUE(clean_with(4094, "\x8e\xd8", 2));
}

/* What the kernel makes of @f (Documentation/networking/filter): the few instructions that are used. */
static uint32_t verdict(const struct sock_filter *f, unsigned n, const struct seccomp_data *d)
{
	uint32_t a = 0;

	for (unsigned i = 0; i < n; i++)
		switch (f[i].code) {
		case BPF_LD | BPF_W | BPF_ABS: memcpy(&a, (const char *)d + f[i].k, 4); break;
		case BPF_JMP | BPF_JEQ | BPF_K: i += a == f[i].k ? f[i].jt : f[i].jf; break;
		case BPF_JMP | BPF_JGT | BPF_K: i += a > f[i].k ? f[i].jt : f[i].jf; break;
		case BPF_RET | BPF_K: return f[i].k;
		default: CU_FAIL("an instruction that is not known"); return 0;
		}
	CU_FAIL("it runs off its end");
	return 0;
}

#define AREA 0x5a5a12340000ull
#define PID  77

struct call {
	const char *at;
	uint64_t nr, arg[6];
};

static uint32_t ask(bool helper, const struct call *c, uint64_t area, uint32_t arch)
{
	struct sock_filter f[FILTER_MAX];
	unsigned n = helper ? filter_helper(f, AREA, PID) : filter_guest(f, AREA);
	struct seccomp_data d = {.nr = (int)c->nr, .arch = arch, .instruction_pointer = filter_at(area, c->at)};

	CU_ASSERT(n <= FILTER_MAX);
	for (int i = 0; i < 6; i++)
		d.args[i] = c->arg[i];
	return verdict(f, n, &d);
}

/* Each of @ok is let through as @how says; with one thing changed it kills. */
static void only_these(bool helper, const struct call *ok, unsigned n, const uint32_t *how)
{
	for (unsigned i = 0; i < n; i++) {
		CU_ASSERT_EQUAL(ask(helper, &ok[i], AREA, AUDIT_ARCH_X86_64), how[i]);
		CU_ASSERT_EQUAL(ask(helper, &ok[i], AREA, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
		CU_ASSERT_EQUAL(ask(helper, &ok[i], AREA + (1ull << 32), AUDIT_ARCH_X86_64), SECCOMP_RET_KILL_PROCESS);
		CU_ASSERT_EQUAL(ask(helper, &ok[i], AREA + 1, AUDIT_ARCH_X86_64), SECCOMP_RET_KILL_PROCESS);
	}
}

/* Whatever call at whatever of our instructions, and at one that is none: what is not in @ok kills. */
static void nothing_else(bool helper, const struct call *ok, unsigned n)
{
	const char *const at[] = {stub_at_stop,  stub_at_fs,  stub_at_gs, stub_at_return, stub_at_wait,
				  stub_at_order, stub_at_ack, stub_code,  stub_launch};

	for (size_t k = 0; k < sizeof at / sizeof at[0]; k++)
		for (uint64_t nr = 0; nr < 600; nr++) {
			struct call c = {.at = at[k], .nr = nr};
			bool known = false;

			for (unsigned i = 0; i < n; i++)
				known |= ok[i].at == at[k] && ok[i].nr == nr;
			if (!known)
				CU_ASSERT_EQUAL(ask(helper, &c, AREA, AUDIT_ARCH_X86_64), SECCOMP_RET_KILL_PROCESS);
			c.nr |= 0x40000000; /* x32 */
			CU_ASSERT_EQUAL(ask(helper, &c, AREA, AUDIT_ARCH_X86_64), SECCOMP_RET_KILL_PROCESS);
		}
}

static void test_guest_filter(void)
{
	const struct call ok[] = {{stub_at_stop, STUB_STOP, {0}},
				  {stub_at_return, SYS_rt_sigreturn, {0}},
				  {stub_at_fs, SYS_arch_prctl, {0x1002}},
				  {stub_at_gs, SYS_arch_prctl, {0x1001}}};
	const uint32_t how[] = {SECCOMP_RET_USER_NOTIF, SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW};
	const struct call get_fs = {stub_at_fs, SYS_arch_prctl, {0x1003}},
			  cpuid = {stub_at_gs, SYS_arch_prctl, {0x1012}};
	const struct call vsyscall = {stub_code, SYS_time, {0}};

	only_these(false, ok, 4, how);
	nothing_else(false, ok, 4);
	CU_ASSERT_EQUAL(ask(false, &get_fs, AREA, AUDIT_ARCH_X86_64), SECCOMP_RET_KILL_PROCESS);
	CU_ASSERT_EQUAL(ask(false, &cpuid, AREA, AUDIT_ARCH_X86_64), SECCOMP_RET_KILL_PROCESS);
	CU_ASSERT_EQUAL(ask(false, &vsyscall, 0xffffffffff600000, AUDIT_ARCH_X86_64), SECCOMP_RET_TRAP);
}

static void test_helper_filter(void)
{
	const struct call ok[] = {
		{stub_at_wait, SYS_futex, {0, FUTEX_WAIT}},
		{stub_at_ack, SYS_write, {STUB_FD_ACK}},
		{stub_at_order, SYS_munmap, {0}},
		{stub_at_order, SYS_exit_group, {0}},
		{stub_at_order, SYS_tgkill, {PID, PID, SIGUSR1}},
		{stub_at_order, SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, STUB_FD_RAM}},
	};
	const uint32_t how[] = {SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW,
				SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW, SECCOMP_RET_ALLOW};
	const struct call bad[] = {
		{stub_at_wait, SYS_futex, {0, FUTEX_WAKE}},
		{stub_at_ack, SYS_write, {2}},
		{stub_at_order, SYS_tgkill, {PID + 1, PID, SIGUSR1}},
		{stub_at_order, SYS_tgkill, {PID, PID, SIGKILL}},
		{stub_at_order, SYS_mmap, {0, 4096, 8, MAP_SHARED | MAP_FIXED, STUB_FD_RAM}},
		{stub_at_order, SYS_mmap, {0, 4096, 3, MAP_PRIVATE | MAP_FIXED, STUB_FD_RAM}},
		{stub_at_order, SYS_mmap, {0, 4096, 3, MAP_SHARED, STUB_FD_RAM}},
		{stub_at_order, SYS_mmap, {0, 4096, 3, MAP_SHARED | MAP_FIXED | MAP_ANONYMOUS, STUB_FD_RAM}},
		{stub_at_order, SYS_mmap, {0, 4096, 3, MAP_SHARED | MAP_FIXED, 3}},
	};

	only_these(true, ok, 6, how);
	nothing_else(true, ok, 6);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		CU_ASSERT_EQUAL(ask(true, &bad[i], AREA, AUDIT_ARCH_X86_64), SECCOMP_RET_KILL_PROCESS);
}

/* ---- mappings: a stub whose helper has always just answered that all was done ---- */

#define PTE_A 0x20u
#define PTE_D 0x40u

static struct stub fake;
static struct pages mapped;

static void orders_come(void)
{
	uint64_t got;

	while (read(fake.ack, &got, sizeof got) == sizeof got)
		;
	got = 1;
	CU_ASSERT_EQUAL(write(fake.ack, &got, sizeof got), sizeof got);
	memset(fake.o, 0, sizeof *fake.o);
}

static struct vcpu *new_pages(void)
{
	struct vcpu *v = btvm_reset();

	fake = (struct stub){.listener = -1, .ack = eventfd(0, EFD_NONBLOCK), .o = calloc(1, STUB_PAGE), .area = AREA};
	CU_ASSERT_FATAL(fake.ack >= 0 && fake.o);
	CU_ASSERT_EQUAL_FATAL(pages_init(&mapped, &fake, v), 0);
	orders_come();
	CU_ASSERT(pages_clear(&mapped, v));
	memset(v->vm->mem->ram + BTVM_CODE, 0x90, 0x2000);
	return v;
}

static void end_pages(struct vcpu *v)
{
	btvm_put(v, BTVM_CODE, "\x90", 1);
	close(fake.ack);
	free(fake.o);
	(void)v;
}

/* What a fault at @gva maps first: its protection; -1: translated code is to do it. */
static int after_fault(struct vcpu *v, uint64_t gva, uint32_t error)
{
	const struct stub_order *o = fake.o->order;

	orders_come();
	if (!pages_fault(&mapped, v, gva, error | 4))
		return -1;
	CU_ASSERT(fake.o->n >= 1 && o->nr == SYS_mmap && o->arg[0] == (gva & ~0xfffull) &&
		  o->arg[5] == (gva & ~0xfffull));
	return (int)o->arg[2];
}

/* Is the page at @gva, and no other, taken away before guest code goes on? */
static bool goes(struct vcpu *v, uint64_t gva)
{
	const struct stub_order *o = fake.o->order;

	orders_come();
	CU_ASSERT(pages_check(&mapped, v));
	return fake.o->n == 1 && o->nr == SYS_munmap && o->arg[0] == gva && o->arg[1] == GMEM_PAGE_SIZE;
}

static void test_pages(void)
{
	struct vcpu *v = new_pages();
	uint64_t *next = btvm_pte(BTVM_DATA + 0x1000), *pte = btvm_pte(BTVM_DATA), was = *pte, next_was = *next;

	*next = 0; /* a fault brings no neighbours */
	tlb_flush_all(v);
	*pte &= ~(uint64_t)(PTE_A | PTE_D);
	CU_ASSERT_EQUAL(after_fault(v, BTVM_DATA + 0x123, 0), PROT_READ); /* D is not set: a store is to be noticed */
	CU_ASSERT(*pte & PTE_A);
	CU_ASSERT(!(*pte & PTE_D));
	CU_ASSERT_EQUAL(after_fault(v, BTVM_DATA, 2), PROT_READ | PROT_WRITE);
	CU_ASSERT(*pte & PTE_D);
	CU_ASSERT(!goes(v, BTVM_DATA));
	tlb_flush_page(v, BTVM_DATA);
	CU_ASSERT(!goes(v, BTVM_DATA)); /* the tables say the same */
	*pte &= ~(uint64_t)PTE_D;
	tlb_flush_page(v, BTVM_DATA);
	CU_ASSERT(goes(v, BTVM_DATA));
	CU_ASSERT_EQUAL(after_fault(v, BTVM_DATA, 2), PROT_READ | PROT_WRITE);
	*pte &= ~4ull; /* the supervisor's from now on */
	tlb_flush_page(v, BTVM_DATA);
	CU_ASSERT(goes(v, BTVM_DATA));
	CU_ASSERT_EQUAL(after_fault(v, BTVM_DATA, 0), -1);
	CU_ASSERT_EQUAL(after_fault(v, AREA, 0), -1); /* ours */
	CU_ASSERT_EQUAL(after_fault(v, 0, 0), -1);
	*pte = was;
	*next = next_was;
	end_pages(v);
}

/* A page runs or is written, whoever does it and by whatever address. */
static void test_code_pages(void)
{
	struct vcpu *v = new_pages();
	uint64_t *next = btvm_pte(BTVM_CODE + 0x1000), next_was = *next, frame = BTVM_CODE >> 12;
	uint64_t *other = btvm_pte(BTVM_DATA + 0x1000), other_was = *other;

	*next = *other = 0;
	tlb_flush_all(v);
	CU_ASSERT_EQUAL(after_fault(v, BTVM_CODE, 2), PROT_READ | PROT_WRITE);
	CU_ASSERT_EQUAL(after_fault(v, BTVM_CODE, 16),
			PROT_READ | PROT_EXEC); /* by its own entry, which no longer writes */
	CU_ASSERT(codepage_has(v, frame));
	CU_ASSERT(!goes(v, BTVM_CODE));
	CU_ASSERT_EQUAL(after_fault(v, BTVM_CODE, 2), -1); /* as a store to translated code */
	codepage_stored(v, frame, 8, 4);
	CU_ASSERT(goes(v, BTVM_CODE));
	CU_ASSERT_EQUAL(after_fault(v, BTVM_CODE, 16), PROT_READ | PROT_EXEC);
	v->stats.device_flushes++; /* a device's store, as told by its process */
	CU_ASSERT(goes(v, BTVM_CODE));
	memcpy(v->vm->mem->ram + BTVM_CODE, "\x0f\x31", 2); /* rdtsc */
	CU_ASSERT_EQUAL(after_fault(v, BTVM_CODE, 16), -1);
	CU_ASSERT_EQUAL(after_fault(v, BTVM_DATA, 2), PROT_READ | PROT_WRITE);
	CU_ASSERT(btvm_translate(v, BTVM_DATA + 0x40, v->mode, "c3") !=
		  BT_NONE); /* translated code comes to a page that is written */
	CU_ASSERT(goes(v, BTVM_DATA));
	CU_ASSERT_EQUAL(after_fault(v, BTVM_DATA, 2), -1);
	btvm_put(v, BTVM_DATA + 0x40, "\x90", 1);
	*next = next_was;
	*other = other_was;
	end_pages(v);
}

CU_ErrorCode suite_direct(void);
CU_ErrorCode suite_direct(void)
{
	CU_pSuite s = CU_add_suite("direct", NULL, NULL);

	CU_add_test(s, "scan", test_scan);
	CU_add_test(s, "the guest thread's filter", test_guest_filter);
	CU_add_test(s, "the helper's filter", test_helper_filter);
	CU_add_test(s, "what is mapped", test_pages);
	CU_add_test(s, "pages with code", test_code_pages);
	return CU_get_error();
}

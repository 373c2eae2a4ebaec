/* The permit table: what is in it, and that nothing else gets through. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "monitor/machine.h"
#include "monitor/permit.h"
#include "proto/shm.h"

static void test_allowed(void)
{
	const struct permit *p = permit_find(MSG_HELLO, ROLE_VCPU, VM_STARTING, 0);

	CU_ASSERT_PTR_NOT_NULL_FATAL(p);
	CU_ASSERT(p->handler == handle_hello);
	CU_ASSERT_PTR_NOT_NULL(permit_find(MSG_MEM_REGION, ROLE_MEMSVC, VM_STARTING, 2));
	CU_ASSERT_PTR_NOT_NULL(permit_find(MSG_VCPU_EXIT, ROLE_VCPU, VM_RUNNING, 0));
	CU_ASSERT_PTR_NOT_NULL(permit_find(MSG_REQUEST, ROLE_CLIENT, VM_PAUSED, 0));
}

static void test_refused(void)
{
	CU_ASSERT_PTR_NULL(permit_find(MSG_HELLO, ROLE_VCPU, VM_RUNNING, 0)); /* late */
	CU_ASSERT_PTR_NULL(permit_find(MSG_HELLO, ROLE_NET, VM_RUNNING, 0));
	CU_ASSERT_PTR_NOT_NULL(permit_find(MSG_HELLO, ROLE_NET, VM_ENDING, 0));       /* its tool was faster in dying */
	CU_ASSERT_PTR_NULL(permit_find(MSG_HELLO, ROLE_VCPU, VM_STARTING, 1));        /* a descriptor too many */
	CU_ASSERT_PTR_NULL(permit_find(MSG_MEM_REGION, ROLE_MEMSVC, VM_STARTING, 1)); /* one too few */
	CU_ASSERT_PTR_NULL(permit_find(MSG_MEM_REGION, ROLE_VCPU, VM_STARTING, 2));   /* wrong sender */
	CU_ASSERT_PTR_NULL(permit_find(MSG_VCPU_EXIT, ROLE_MEMSVC, VM_RUNNING, 0));
	CU_ASSERT_PTR_NULL(permit_find(MSG_VCPU_EXIT, ROLE_CLIENT, VM_RUNNING, 0));
	CU_ASSERT_PTR_NULL(permit_find(MSG_REQUEST, ROLE_VCPU, VM_RUNNING, 0));
	CU_ASSERT_PTR_NULL(permit_find(MSG_VCPU_CONFIG, ROLE_VCPU, VM_STARTING, 0)); /* only the monitor says that */
	CU_ASSERT_PTR_NULL(permit_find(9999, ROLE_VCPU, VM_RUNNING, 0));
}

/* Messages that only the monitor sends are permitted to nobody. */
static void test_monitor_only(void)
{
	static const uint16_t ours[] = {MSG_MEM_CONFIG,  MSG_MEM_GET,      MSG_MEM_STATS_GET,
					MSG_VCPU_CONFIG, MSG_VCPU_COMMAND, MSG_VCPU_STATS_GET,
					MSG_REPLY,       MSG_STATUS_REPLY, MSG_STATS_REPLY};

	for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
		for (int r = ROLE_MEMSVC; r <= ROLE_CLIENT; r++)
			for (int s = 0; s < VM_STATE_COUNT; s++)
				for (int n = 0; n <= IPC_MAX_FDS; n++)
					CU_ASSERT_PTR_NULL(permit_find(ours[i], (enum msg_role)r, (enum vm_state)s, n));
}

static void test_table(void)
{
	for (unsigned i = 0; i < permit_count; i++) {
		const struct permit *p = &permit_table[i];
		CU_ASSERT(p->handler != NULL && p->states != 0);
		CU_ASSERT(p->min_fds <= p->max_fds && p->max_fds <= IPC_MAX_FDS);
		CU_ASSERT_PTR_NOT_NULL(pack_type_name(p->type));
		for (unsigned j = 0; j < i; j++) /* one line a message and sender */
			CU_ASSERT_FALSE(permit_table[j].type == p->type && permit_table[j].sender == p->sender);
	}
}

/* What memsvc hands over must be sealed memfds: of another file F_GET_SEALS fails, and an error is no seal. */
#define REGION_RAM (16ull << 20)

static int region_of(int ram, int control)
{
	static struct machine m; /* large */
	struct proc proc = {.name = "memsvc", .sealed = true};
	struct peer p = {.m = &m, .role = ROLE_MEMSVC, .proc = &proc};
	struct msg_mem_region r = {REGION_RAM, shm_layout(REGION_RAM).total};
	struct ipc_frame f = {.type = MSG_MEM_REGION, .nfds = 2};
	uint8_t buf[256];
	int n = pack_mem_region(&r, buf, sizeof buf);

	CU_ASSERT_FATAL(n > 0);
	memset(&m, 0, sizeof m);
	m.cfg.memory = REGION_RAM;
	m.state = VM_LOADING; /* nothing follows from it */
	f.fds[0] = ram;
	f.fds[1] = control;
	f.len = (size_t)n;
	f.data = buf;
	return handle_region(&m, &p, &f);
}

static int sized_memfd(uint64_t size, bool sealed)
{
	int fd = memfd_create("x", MFD_ALLOW_SEALING);

	CU_ASSERT_FATAL(fd >= 0 && ftruncate(fd, (off_t)size) == 0);
	CU_ASSERT(!sealed || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0);
	return fd;
}

static void test_region(void)
{
	char path[] = "/tmp/hvx-region-XXXXXX";
	int file = mkstemp(path), open_ram = sized_memfd(REGION_RAM, false), ram = sized_memfd(REGION_RAM, true);
	int control = sized_memfd(shm_layout(REGION_RAM).total, true);

	CU_ASSERT_FATAL(file >= 0 && ftruncate(file, REGION_RAM) == 0);
	CU_ASSERT_EQUAL(region_of(file, control), -EPROTO);
	CU_ASSERT_EQUAL(region_of(open_ram, control), -EPROTO);
	CU_ASSERT_EQUAL(region_of(ram, ram), -EPROTO); /* of another size */
	CU_ASSERT_EQUAL(region_of(ram, control), 0);
	close(file);
	close(open_ram);
	close(ram);
	close(control);
	unlink(path);
}

CU_ErrorCode suite_permit(void)
{
	CU_pSuite s = CU_add_suite("permit", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_allowed) || !CU_ADD_TEST(s, test_refused) ||
	    !CU_ADD_TEST(s, test_monitor_only) || !CU_ADD_TEST(s, test_table) || !CU_ADD_TEST(s, test_region))
		return CU_get_error();
	return CUE_SUCCESS;
}

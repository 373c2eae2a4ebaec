/* The permit table: what is in it, and that nothing else gets through. */
#include <CUnit/CUnit.h>
#include <stddef.h>

#include "monitor/machine.h"
#include "monitor/permit.h"

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
	CU_ASSERT_PTR_NULL(permit_find(MSG_HELLO, ROLE_VCPU, VM_RUNNING, 0));         /* late */
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

CU_ErrorCode suite_permit(void)
{
	CU_pSuite s = CU_add_suite("permit", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_allowed) || !CU_ADD_TEST(s, test_refused) ||
	    !CU_ADD_TEST(s, test_monitor_only) || !CU_ADD_TEST(s, test_table))
		return CU_get_error();
	return CUE_SUCCESS;
}

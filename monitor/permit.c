/*
 * The permit table.  Invariant: a message reaches a handler only through a line
 * of this table; what no line allows ends the peer that sent it.
 */
#include "monitor/permit.h"

#include <stddef.h>

#include "monitor/machine.h"

#define START (VM_BIT(VM_STARTING) | VM_BIT(VM_LOADING))
#define LIVE  (VM_BIT(VM_RUNNING) | VM_BIT(VM_PAUSED))
#define ANY   (VM_BIT(VM_STATE_COUNT) - 1)

const struct permit permit_table[] = {
	/* message, sender, states, descriptors, handler */
	{MSG_HELLO, ROLE_MEMSVC, VM_BIT(VM_STARTING), 0, 0, handle_hello},
	{MSG_HELLO, ROLE_VCPU, VM_BIT(VM_STARTING), 0, 0, handle_hello},
	{MSG_FAILED, ROLE_MEMSVC, START | VM_BIT(VM_ENDING), 0, 0, handle_failed},
	{MSG_FAILED, ROLE_VCPU, ANY, 0, 0, handle_failed},
	{MSG_SEALED, ROLE_MEMSVC, VM_BIT(VM_STARTING), 0, 0, handle_sealed},
	{MSG_SEALED, ROLE_VCPU, VM_BIT(VM_LOADING) | VM_BIT(VM_ENDING), 0, 0, handle_sealed},
	{MSG_MEM_REGION, ROLE_MEMSVC, VM_BIT(VM_STARTING), 2, 2, handle_region},
	{MSG_MEM_STATS, ROLE_MEMSVC, LIVE | VM_BIT(VM_ENDING), 0, 0, handle_mem_stats},
	{MSG_VCPU_RUNNING, ROLE_VCPU, VM_BIT(VM_LOADING) | LIVE | VM_BIT(VM_ENDING), 0, 0, handle_running},
	{MSG_VCPU_EXIT, ROLE_VCPU, LIVE | VM_BIT(VM_ENDING), 0, 0, handle_exit},
	{MSG_VCPU_STATE, ROLE_VCPU, LIVE | VM_BIT(VM_ENDING), 0, 0, handle_vcpu_state},
	{MSG_VCPU_STATS, ROLE_VCPU, LIVE | VM_BIT(VM_ENDING), 0, 0, handle_vcpu_stats},
	{MSG_VCPU_SCREEN, ROLE_VCPU, LIVE | VM_BIT(VM_ENDING), 0, 0, handle_vcpu_screen},
	{MSG_HELLO, ROLE_BLK, VM_BIT(VM_STARTING) | VM_BIT(VM_ENDING), 0, 0, handle_hello},
	{MSG_HELLO, ROLE_NET, VM_BIT(VM_STARTING) | VM_BIT(VM_ENDING), 0, 0, handle_hello},
	{MSG_FAILED, ROLE_BLK, ANY, 0, 0, handle_failed},
	{MSG_FAILED, ROLE_NET, ANY, 0, 0, handle_failed},
	{MSG_SEALED, ROLE_BLK, START | VM_BIT(VM_ENDING), 0, 0, handle_sealed},
	{MSG_SEALED, ROLE_NET, START | VM_BIT(VM_ENDING), 0, 0, handle_sealed},
	{MSG_HELLO, ROLE_STUB, VM_BIT(VM_STARTING), 0, 0, handle_hello},
	{MSG_FAILED, ROLE_STUB, START | VM_BIT(VM_ENDING), 0, 0, handle_failed},
	{MSG_SEALED, ROLE_STUB, VM_BIT(VM_STARTING) | VM_BIT(VM_ENDING), 0, 0, handle_sealed},
	{MSG_DEV_EVENT, ROLE_BLK, ANY & ~VM_BIT(VM_STARTING), 0, 0, handle_dev_event},
	{MSG_DEV_EVENT, ROLE_NET, ANY & ~VM_BIT(VM_STARTING), 0, 0, handle_dev_event},
	{MSG_DEV_STATS, ROLE_BLK, LIVE | VM_BIT(VM_ENDING), 0, 0, handle_dev_stats},
	{MSG_DEV_STATS, ROLE_NET, LIVE | VM_BIT(VM_ENDING), 0, 0, handle_dev_stats},
	{MSG_REQUEST, ROLE_CLIENT, ANY, 0, 0, control_request},
};
const unsigned permit_count = sizeof permit_table / sizeof permit_table[0];

const struct permit *permit_find(uint16_t type, enum msg_role sender, enum vm_state state, int nfds)
{
	for (unsigned i = 0; i < permit_count; i++) {
		const struct permit *p = &permit_table[i];
		if (p->type == type && p->sender == sender && (p->states & VM_BIT(state)) && nfds >= p->min_fds &&
		    nfds <= p->max_fds)
			return p;
	}
	return NULL;
}

const char *vm_state_name(enum vm_state s)
{
	static const char *const names[] = {"starting", "loading", "running", "paused", "ending"};

	return s < VM_STATE_COUNT ? names[s] : "?";
}

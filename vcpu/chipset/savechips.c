/*
 * Which tables there are, and timers.  Invariant: a timer that is loaded is in the queue of the machine it is loaded into,
 * for the deadline that was saved, or in none.
 */
#include "vcpu/chipset/savechips.h"

#include "vcpu/chipset/timer.h"

const struct save_table *const save_chips[] = {&platform_state_save, &virtio_pci_save, &ahci_save};
const unsigned save_chips_n = sizeof save_chips / sizeof save_chips[0];

uint64_t timer_save(const void *timer)
{
	return ((const struct timer *)timer)->deadline;
}

void timer_load(void *timer, uint64_t deadline)
{
	struct timer *t = timer;

	if (t->q) /* else the chip is not in this machine */
		timer_set(t, deadline);
}

/*
 * The chips' tables of what is saved (common/save.h), each at the end of its chip's file.  See savechips.c.
 */
#ifndef HVX_SAVECHIPS_H
#define HVX_SAVECHIPS_H

#include "common/save.h"

#define SAVE_WIRED "wired when the machine is made"

extern const struct save_table i8259_chip_save, i8259_save, i8254_channel_save, i8254_save, mc146818_save, ns16550_save,
	i8042_save, i6300esb_save, pm_save, ioapic_save, sysports_save, debugexit_save, lapic_save, lapics_save,
	fwcfg_save, pflash_save, pam_save, vga_save, hpet_timer_save, hpet_save, pci_func_save, pci_save, virtio_pci_queue_save, virtio_offer_save, virtio_pci_save,
	ahci_save, platform_state_save;

/* Every structure of state that is no part of another one. */
extern const struct save_table *const save_chips[];
extern const unsigned save_chips_n;

/* A struct timer: its deadline, by which it is queued again. */
uint64_t timer_save(const void *timer);
void timer_load(void *timer, uint64_t deadline);

#endif

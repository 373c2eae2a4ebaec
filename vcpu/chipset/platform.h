/*
 * The machine around the CPUs: chips, buses, interrupts, timers.  Every
 * function here takes the platform's lock itself unless it says otherwise.
 */
#ifndef HVX_PLATFORM_H
#define HVX_PLATFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct platform;
struct vm;
struct vcpu;

/* What firmware needs of the machine, and the machine of those who keep the guest's memory. */
struct platform_firmware {
	uint64_t rom_size;                                            /* bytes that end at 4 GiB */
	uint64_t bank;                                                /* bytes they begin with that are flash */
	void (*shadow)(void *ctx, const uint8_t *shadow);             /* chipset/pam.h */
	void (*flash_chip)(void *ctx, bool chip);                     /* chipset/pflash.h: mode */
	void (*flash_changed)(void *ctx, uint64_t off, uint64_t len); /* changed */
	bool (*copy)(void *ctx, uint64_t gpa, void *buf, size_t len, bool write); /* chipset/fwcfg.h */
	void (*selected)(void *ctx, uint16_t key);
	void *ctx;
};

struct platform_config {
	uint64_t ram_size;
	int ncpus;
	bool debug_exit;           /* ports 0xf4 and 0xe9 */
	bool firmware_log;         /* port 0x402, where firmware writes what it does; the same as 0xe9 */
	bool watchdog;             /* an i6300esb */
	int com_in[4], com_out[4]; /* console fds (non-blocking) per UART, -1 = not wired */
	uint64_t tsc_hz;
	const struct platform_firmware *firmware; /* NULL: none, the machine is as firmware leaves it; copied */
	/* events upward; called with the lock held, from any thread */
	void (*power_off)(void *ctx);    /* ACPI S5 */
	void (*reset)(void *ctx);        /* keyboard controller, 0xcf9, ACPI reset */
	void (*a20)(void *ctx, bool on); /* address line 20 is on or masked, at resets too; may be NULL */
	void (*debug_exit_cb)(void *ctx, int status);
	void (*debugcon)(void *ctx, uint8_t byte); /* port 0xe9 */
	void (*watchdog_cb)(void *ctx);            /* it has run out */
	/* its earliest timer changed (VCPU_TIMER_*); CLOCK_MONOTONIC ns, UINT64_MAX = none */
	void (*arm)(void *ctx, struct vcpu *v, unsigned timer, uint64_t deadline_ns);
	void *ctx;
};

/* vm->vcpu[0..ncpus) must exist.  NULL on bad configuration or lack of memory. */
struct platform *platform_create(struct vm *vm, const struct platform_config *cfg);
void platform_destroy(struct platform *p);
void platform_reset(struct platform *p); /* power-on state of every chip, in the order they were wired */

/* Appends the state of every chip, while no vcpu runs; 0 or -ENOSPC. */
struct save_buf;
int platform_save(struct platform *p, struct save_buf *b);
/* Into a machine made from the same configuration, before its vcpus run.  0, or -EPROTO with a line that says what is wrong:
 * then the machine is of no use. */
int platform_load(struct platform *p, const uint8_t *data, size_t len, char *err, size_t err_len);

struct fwcfg;
struct fwcfg *platform_fwcfg(struct platform *p); /* NULL: there is no firmware */
/* The text on the display, @len bytes of its memory at most by @read: chipset/vga.h.  False: there is no display. */
struct vga_screen;
bool platform_screen(struct platform *p, struct vga_screen *s);
/* Under the lock: the CPU whose access of a port or register is being served; NULL: none is, as at a reset. */
struct vcpu *platform_cpu(struct platform *p);
uint64_t platform_ecam(struct platform *p); /* where configuration space is mapped, 0: nowhere; under the lock */

struct pci;
struct pci *platform_pci(struct platform *p); /* for adding functions before the machine starts: chipset/pci.h */

/* virtio devices (chipset/virtio_pci.h), whose data is moved by somebody else.  Added before the machine starts, at a
 * PCI device number; 0 or a negative error.  Their functions are called between lock and unlock. */
struct virtio_pci;
int platform_add_virtio(struct platform *p, struct virtio_pci *vp, unsigned slot);
struct ahci;
int platform_add_ahci(struct platform *p, struct ahci *a, unsigned slot); /* likewise, chipset/ahci.h */
void platform_lock(struct platform *p);
void platform_unlock(struct platform *p);

/* Buses.  size 1, 2, 4 (mmio also 8); values little-endian in @val.  Nothing there reads as ones. */
uint64_t platform_pio_read(struct platform *p, struct vcpu *v, uint16_t port, unsigned size);
void platform_pio_write(struct platform *p, struct vcpu *v, uint16_t port, uint64_t val, unsigned size);
uint64_t platform_mmio_read(struct platform *p, struct vcpu *v, uint64_t gpa, unsigned size);
void platform_mmio_write(struct platform *p, struct vcpu *v, uint64_t gpa, uint64_t val, unsigned size);

/* Local APIC of a vcpu, for its own thread and without the lock: CR8, x2APIC MSRs 0x800-0x8ff, IA32_APIC_BASE, IA32_TSC_DEADLINE (0x6e0).
 * MSR calls return 0, or -1 when the access must raise #GP(0). */
int platform_apic_rdmsr(struct platform *p, struct vcpu *v, uint32_t msr, uint64_t *val);
int platform_apic_wrmsr(struct platform *p, struct vcpu *v, uint32_t msr, uint64_t val);
uint8_t platform_get_tpr(struct platform *p, struct vcpu *v); /* whole TPR byte */
void platform_set_tpr(struct platform *p, struct vcpu *v, uint8_t tpr);

/* Interrupt acceptance by a vcpu with IF set: the vector to deliver now (LAPIC first, else 8259 through LINT0 ExtINT),
 * moved to in service; -1 when none is left.  PEND_INTR is kept in step: set while some vector is deliverable at the
 * current TPR/PPR, cleared when none is. */
int platform_ack_intr(struct platform *p, struct vcpu *v);

/* Interrupt lines by GSI (0-23 IOAPIC; 0-15 go to the 8259s too), with the level. */
void platform_set_irq(struct platform *p, unsigned gsi, bool level);
/* A message-signalled interrupt. */
void platform_msi(struct platform *p, uint64_t addr, uint32_t data);

/* An INIT: the vcpu's local APIC loses its state but for base and id. */
void platform_apic_init(struct platform *p, struct vcpu *v);

/* A vcpu's thread runs the timers of its local APIC, CPU 0's those of all other chips as well.  cfg.arm is told at once when
 * the earliest deadline becomes earlier; when it becomes later the old alarm stands (one early wake-up) until the next of these
 * two calls.  Call platform_next_deadline() before sleeping. */
/* Runs the callbacks of all timers whose deadline is not after @now_ns and re-arms. */
void platform_run_timers(struct platform *p, struct vcpu *v, uint64_t now_ns);
/* Tells of the deadlines again: the vcpu's alarms were switched off. */
void platform_rearm(struct platform *p, struct vcpu *v);
uint64_t platform_next_deadline(struct platform *p, struct vcpu *v);

/* Console: bytes for a UART's receiver.  Returns how many were taken (FIFO room).  com_room tells the room. */
size_t platform_com_input(struct platform *p, int com, const uint8_t *buf, size_t len);
size_t platform_com_room(struct platform *p, int com);

struct i6300esb;
struct i6300esb *platform_watchdog(struct platform *p); /* NULL: none; its functions between lock and unlock */

void platform_power_button(struct platform *p); /* ACPI power button press */

#endif

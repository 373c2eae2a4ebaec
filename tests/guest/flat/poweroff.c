/*
 * Switches the machine off through ACPI S5.
 * Invariant: leaving through the exit port is a failure here.
 */
#include "acpi.h"

void flat_main(void)
{
	struct acpi_fadt *f = acpi_find("FACP");
	int type = f ? acpi_s5(f) : -1;

	check("S5 is described", type >= 0, "type %d", type);
	if (type < 0)
		return;
	if (!(inw((uint16_t)f->pm1a_cnt) & 1) && f->smi_cmd) {
		outb((uint16_t)f->smi_cmd, f->acpi_enable);
		while (!(inw((uint16_t)f->pm1a_cnt) & 1))
			;
	}
	print("# 1 ok, 0 not ok, 0 skipped\n");
	outw((uint16_t)f->pm1a_cnt, (uint16_t)(type << 10 | 0x2000 | 1));
	for (volatile unsigned i = 0; i < 100000000; i++)
		;
	check("S5 switches off", false, "still here");
}

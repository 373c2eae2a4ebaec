/*
 * Runner of the CUnit suites.  Several programs link it, each with its own
 * subset of the suites: those not linked are weak and stay out.
 *
 * Usage: <program> [suite ...]      only the named suites
 */
#include <CUnit/Basic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* clang-format off: one a line */
#define SUITES(X)      \
	X(walk)        \
	X(segment)     \
	X(exception)   \
	X(cpuid)       \
	X(start)       \
	X(sysinsn)     \
	X(sysfuzz)     \
	X(gmem)        \
	X(save)        \
	X(i8259)       \
	X(i8254)       \
	X(mc146818)    \
	X(ns16550)     \
	X(lapic)       \
	X(ioapic)      \
	X(pci)         \
	X(virtio_pci)  \
	X(ahci_regs)   \
	X(pm)          \
	X(i6300esb)    \
	X(platform)    \
	X(fwcfg)       \
	X(rom)         \
	X(hpet)        \
	X(boot)        \
	X(acpi)        \
	X(log)         \
	X(rank)        \
	X(ipc)         \
	X(pack)        \
	X(pack_device) \
	X(fields)      \
	X(config)      \
	X(cli)         \
	X(sandbox)     \
	X(permit)      \
	X(devopt)      \
	X(confine)     \
	X(show)        \
	X(cause)       \
	X(limits)      \
	X(group)       \
	X(past)        \
	X(virtq)       \
	X(device)      \
	X(limit)       \
	X(blk)         \
	X(blkstate)    \
	X(ahci)        \
	X(net_frame)   \
	X(net_switch)  \
	X(local)       \
	X(balloon)     \
	X(vconsole)    \
	X(ram)         \
	X(grace)       \
	X(throttle)    \
	X(merge)       \
	X(memwatch)    \
	X(decode)      \
	X(emit)        \
	X(translate)   \
	X(link)        \
	X(smp)         \
	X(codepage)    \
	X(tlb)         \
	X(sysinline)   \
	X(modes)       \
	X(seg16)       \
	X(x87ptr)      \
	X(vendor)      \
	X(offered)     \
	X(probe)       \
	X(image)       \
	X(seed)        \
	X(keys)        \
	X(verify)      \
	X(window)      \
	X(direct)
/* clang-format on */

#define X(name) CU_ErrorCode suite_##name(void) __attribute__((weak));
SUITES(X)
#undef X

static const struct {
	const char *name;
	CU_ErrorCode (*add)(void);
} suites[] = {
#define X(name) {#name, suite_##name},
	SUITES(X)
#undef X
};

static bool wanted(const char *name, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], name) == 0)
			return true;
	return argc < 2;
}

int main(int argc, char **argv)
{
	unsigned failed;

	if (CU_initialize_registry() != CUE_SUCCESS)
		return 1;
	for (unsigned i = 0; i < sizeof(suites) / sizeof(suites[0]); i++)
		if (suites[i].add != NULL && wanted(suites[i].name, argc, argv) && suites[i].add() != CUE_SUCCESS) {
			fprintf(stderr, "suite %s: %s\n", suites[i].name, CU_get_error_msg());
			return 1;
		}
	CU_basic_set_mode(CU_BRM_VERBOSE);
	CU_basic_run_tests();
	failed = CU_get_number_of_failures();
	CU_cleanup_registry();
	return failed != 0;
}

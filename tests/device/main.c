/*
 * The disk in memory as a process: stands where hvx-blk would, with its seal, and is started by the real monitor.
 * Invariant: it differs from a device of ours only in what a guest may order it to do (ramdisk.h).
 */
#include <string.h>
#include <sys/syscall.h>

#include "devices/blk/seal.h"
#include "tests/device/ramdisk.h"

static struct sandbox_call calls[128];
static struct sandbox_table table;

/* The seal of hvx-blk, and sleep. */
static void make_seal(void)
{
	static const struct sandbox_call sleep = ALLOW(clock_nanosleep, "a device that is busy");

	table = blk_seal;
	memcpy(calls, table.calls, table.n * sizeof calls[0]);
	calls[table.n++] = sleep;
	table.calls = calls;
}

int main(int argc, char **argv)
{
	static struct device d = {.child = {.program = "hvx-blk", .role = ROLE_BLK, .table = &table}};
	static struct ramdisk disk;

	make_seal();
	device_start(&d, argc, argv);
	ramdisk_init(&disk, &d);
	return device_run(&d);
}

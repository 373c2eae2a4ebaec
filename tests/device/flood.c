/*
 * A disk in memory that floods the monitor once the guest uses it: EVENTS messages, and as many log lines full of terminal
 * controls in no time; then it ends with status 88.  With on-error=pause
 * it tells one error instead, at length.  Stands where hvx-blk would, in its seal.  Invariant: but for
 * that it is ramdisk.c's disk.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "devices/blk/seal.h"
#include "tests/device/ramdisk.h"

#define EVENTS 5000

static struct device d = {.child = {.program = "hvx-blk", .role = ROLE_BLK, .table = &blk_seal}};
static struct ipc_watch *timer;
static int sent;

/* C1 controls in both encodings, an OSC, an override of direction. */
static const char evil[] = "\xc2\x9b"
			   "31mX \x9b"
			   "2J \xc2\x9d"
			   "0;title\xc2\x9c \x1b]0;t\x07 \xe2\x80\xae end\n";

static void flood(void *x)
{
	char text[400];

	(void)x;
	ipc_timer_set(timer, 1);
	if (!d.v.active)
		return; /* the guest does not run yet */
	memset(text, 'A', sizeof text);
	text[sizeof text - 1] = '\0';
	if (d.cfg.blk.pause_error) {
		device_event(&d, DEV_EVENT_IO_ERROR, text);
		ipc_watch_enable(timer, false);
		return;
	}
	for (int i = 0; i < 10; i++, sent++)
		device_event(&d, DEV_EVENT_LINK_LOST, text);
	for (int i = 0; i < 40; i++)
		if (write(2, evil, sizeof evil - 1) < 0)
			break;
	if (sent >= EVENTS)
		fatal(88, "the flood is over");
}

int main(int argc, char **argv)
{
	static struct ramdisk disk;

	device_start(&d, argc, argv);
	ramdisk_init(&disk, &d);
	timer = ipc_watch_timer(d.loop, flood, &d);
	ipc_timer_set(timer, 1);
	return device_run(&d);
}

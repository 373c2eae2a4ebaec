/*
 * What stands behind a card and is no HVX process: taps, switches, passt, qemu-nbd.  See backend.c.
 */
#ifndef HVX_MONITOR_BACKEND_H
#define HVX_MONITOR_BACKEND_H

#include "monitor/devopt.h"
#include "monitor/spawn.h"

struct machine;
struct card;
struct image;

/* Opens a tap, or joins a switch with n->mac; *fd stays -1 for `user`.  0 or an exit status with a line in @err. */
int backend_open_net(const struct net_option *n, int *fd, char *err, size_t len);
/* Starts passt or qemu-nbd where @c needs it; c->backend becomes the device's end.  0 or a negative error, logged. */
int backend_start(struct machine *m, struct card *c);

/*
 * Starts qemu-nbd for @image, whose files are open and locked, in its sandbox; it listens at @server.  0 or a negative error with
 * @err filled; else @err says what the sandbox lacks, or is empty.
 */
int backend_run_nbd(struct ipc_loop *l, struct proc *p, const char *vm, bool strict, const struct disk_option *d,
		    const struct image *image, int server, char *err, size_t len);

#endif

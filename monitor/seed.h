/*
 * What cloud-init finds at its first boot: a small read-only disk (NoCloud).  See seed.c.
 */
#ifndef HVX_MONITOR_SEED_H
#define HVX_MONITOR_SEED_H

#include <limits.h>
#include <stdbool.h>

#include "common/ipc.h"

#define SEED_ID "cidata" /* of the disk, in `stats` and `limit` */

enum seed_file { SEED_USER_DATA, SEED_META_DATA, SEED_NETWORK, SEED_FILES };

/* --cloud-init and --ssh-key; empty: not given. */
struct seed_option {
	char file[SEED_FILES][PATH_MAX];
	char key[PATH_MAX];
	bool wanted;
};

/* USER-DATA[,META-DATA[,NETWORK]], two commas for one within a name.  0, or -EINVAL with a line in @err. */
int seed_parse(struct seed_option *o, const char *text, char *err, size_t len);

/* The texts as they go on the disk, checked: memfds, -1 for what there is none of. */
struct seed {
	int text[SEED_FILES], disk;
};
/* Reads what @o names for the VM @vm.  0 or a negative error with a line in @err. */
int seed_open(struct seed *s, const struct seed_option *o, const char *vm, char *err, size_t len);
/* Makes the disk of them, s->disk: a file without a name, so that it is gone with who holds it; by xorriso, sealed.  0 or a
 * negative error with a line in @err; else @err says what the sandbox lacks, or is empty. */
int seed_make(struct seed *s, struct ipc_loop *l, const char *vm, bool strict, char *err, size_t len);
void seed_close(struct seed *s);

#endif

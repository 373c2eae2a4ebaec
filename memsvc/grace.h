/*
 * Grace periods: when nobody has a pointer to guest RAM any more that was resolved before.  See grace.c.
 */
#ifndef HVX_MEMSVC_GRACE_H
#define HVX_MEMSVC_GRACE_H

#include <stdint.h>

#include "proto/shm.h"

struct grace {
	struct shm_epochs *shm;
	uint32_t now;  /* what we wrote there last: theirs is not read back */
	unsigned turn; /* parities still to be waited for, 0: none is under way */
	uint64_t late; /* bit a slot: it missed a deadline and has not been empty since */
};

enum grace_state {
	GRACE_WAIT, /* somebody is in: look again */
	GRACE_OVER, /* nobody has an old pointer */
	GRACE_LATE, /* but for those who missed a deadline */
};

void grace_init(struct grace *g, struct shm_epochs *shm);
/* After the pages were withdrawn in the p2m, with nothing under way. */
void grace_begin(struct grace *g);
enum grace_state grace_look(struct grace *g);
/* The deadline: who is still in is not waited for again before it was seen outside.  Ends with GRACE_LATE. */
enum grace_state grace_give_up(struct grace *g);

#endif

/* What the guest's display shows, as text.  See screen.c. */
#ifndef HVX_VCPU_SCREEN_H
#define HVX_VCPU_SCREEN_H

#include "proto/pack.h"

struct vm;

/* On the main thread, while the guest runs or not.  Without a display, or when it shows a picture, there are no rows. */
void screen_read(struct vm *vm, struct msg_screen *m);

#endif

/*
 * The thread of a vcpu: load, run, reset, run again.  See runner.c.
 */
#ifndef HVX_VCPU_RUNNER_H
#define HVX_VCPU_RUNNER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "proto/pack.h"
#include "vcpu/boot/load.h"
#include "vcpu/cards.h"
#include "vcpu/vcpu.h"

/* What the thread tells the main one, in this order of importance. */
enum runner_news { RUNNER_QUIET, RUNNER_STARTED, RUNNER_LOAD_FAILED, RUNNER_ENDED };

struct runner {
	struct vm *vm;
	struct vcpu *v;
	const struct boot_config *boot;
	struct cards *cards; /* may be NULL */
	bool reboot;
	int wake_fd; /* eventfd of the main thread's loop */
	pthread_t thread;
	sem_t ready, go;
	int init_error;
	_Atomic uint32_t boots;
	_Atomic int news;
	_Atomic bool quit;
	_Atomic bool paused; /* by runner_pause(), not told yet */
	enum vm_exit why;    /* with RUNNER_ENDED */
	int code;
	unsigned crashes;         /* triple faults soon after the start, in a row: the thread's own */
	char error[MSG_TEXT_MAX]; /* with RUNNER_LOAD_FAILED */
};

/* Makes the thread and waits until it is ready to be sealed; 0 or a negative error. */
int runner_create(struct runner *r);
/* Lets it load the kernel and run.  News come by writing to wake_fd. */
void runner_go(struct runner *r);
/* Platform callbacks; they may be called from any thread. */
void runner_end(struct runner *r, enum vm_exit why, int code);
/* With the platform's lock held: the guest stops until it is resumed, and so does its watchdog. */
void runner_pause(struct runner *r);

#endif

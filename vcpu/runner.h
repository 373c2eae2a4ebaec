/*
 * The threads of the vcpus: load, run, reset, run again.  See runner.c.
 */
#ifndef HVX_VCPU_RUNNER_H
#define HVX_VCPU_RUNNER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "proto/pack.h"
#include "vcpu/boot/firmware.h"
#include "vcpu/boot/load.h"
#include "vcpu/cards.h"
#include "vcpu/vcpu.h"

/* What the thread tells the main one, in this order of importance. */
enum runner_news { RUNNER_QUIET, RUNNER_STARTED, RUNNER_LOAD_FAILED, RUNNER_ENDED };

struct runner_cpu {
	struct runner *r;
	struct vcpu *v;
	pthread_t thread;
	sem_t go; /* it may run: once a life */
	int init_error;
};

struct runner {
	struct vm *vm;
	struct runner_cpu cpu[TOPOLOGY_CPUS_MAX]; /* the first one's thread loads, and leads the others */
	const struct boot_config *boot;
	struct firmware *firmware; /* NULL: the kernel is started without */
	struct cards *cards;       /* may be NULL */
	bool reboot;
	int wake_fd; /* eventfd of the main thread's loop */
	sem_t ready; /* a thread is */
	sem_t back;  /* a thread has left its guest */
	bool over;   /* no life comes any more; told by go */
	_Atomic uint32_t boots;
	_Atomic int news;
	_Atomic bool quit;
	_Atomic bool paused;  /* by runner_pause(), not told yet */
	_Atomic uint32_t why; /* enum vm_exit: what ended this life, by the first that said so; with RUNNER_ENDED */
	int code;
	unsigned crashes;         /* triple faults soon after the start, in a row: the thread's own */
	char error[MSG_TEXT_MAX]; /* with RUNNER_LOAD_FAILED */
};

/* Makes the threads and waits until they are ready to be sealed; 0 or a negative error. */
int runner_create(struct runner *r);
/* Lets them load the kernel and run.  News come by writing to wake_fd. */
void runner_go(struct runner *r);
/* After RUNNER_ENDED: waits for the threads' ends. */
void runner_join(struct runner *r);
/* Pends @pend for every CPU. */
void runner_kick(struct runner *r, uint32_t pend);
void runner_resume(struct runner *r);
/* Platform callbacks; they may be called from any thread. */
void runner_end(struct runner *r, enum vm_exit why, int code);
/* With the platform's lock held: the guest stops until it is resumed, and so does its watchdog. */
void runner_pause(struct runner *r);

#endif

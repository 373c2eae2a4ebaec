/*
 * What a VM uses, in a few numbers.  See usage.c.
 */
#ifndef HVX_MONITOR_USAGE_H
#define HVX_MONITOR_USAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "proto/pack.h"

struct usage { /* all counts since the VM's start */
	char name[MSG_NAME_MAX], state[MSG_NAME_MAX];
	uint64_t cpu_ns;                    /* of all its processes */
	uint64_t nominal, resident, shared; /* bytes of the guest's memory: it has, takes of the host, has in common */
	uint64_t disk, net;                 /* bytes, both ways */
};

/* Adds up what the counters say. */
void usage_of(struct usage *u, const struct msg_status *s, const struct msg_counters *c);

enum usage_key { USAGE_NAME, USAGE_CPU, USAGE_MEMORY, USAGE_DISK, USAGE_NET };

/* A line of `top`: what there was between the two, @ns apart. */
struct usage_row {
	struct usage now;
	uint64_t cpu, disk, net; /* hundredths of a percent of a CPU, bytes a second */
};
void usage_row(struct usage_row *r, const struct usage *before, const struct usage *now, uint64_t ns);

/* The greatest first, but for names. */
void usage_sort(struct usage_row *rows, unsigned n, enum usage_key by);

/* Key of the terminal; false: it is none. */
bool usage_key(char c, enum usage_key *by);

void usage_header(FILE *f);
void usage_print(FILE *f, const struct usage_row *r);

#endif

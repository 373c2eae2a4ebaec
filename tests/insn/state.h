/*
 * What goes into a case and what comes out, and the batch that carries many of
 * them between the parent and its two workers through shared memory.
 *
 * Invariant: a worker writes only its own out[], log and progress counter.
 */
#ifndef HVX_INSN_STATE_H
#define HVX_INSN_STATE_H

#include <stdint.h>

#include "layout.h"

#define XS_SIZE  2688 /* XSAVE standard format up to the end of AVX-512 state, wherever the CPU has it: isa_xs_off() */
#define XS_FCW   0
#define XS_FSW   2
#define XS_FTW   4
#define XS_FOP   6
#define XS_FIP   8
#define XS_FDP   16
#define XS_MXCSR 24
#define XS_ST    32
#define XS_XMM   160
#define XS_BV    512
#define XS_YMMH  576

struct cpu_state {
	uint64_t gpr[16]; /* encoding order */
	uint64_t rip, rflags, fsbase, gsbase;
	uint8_t xs[XS_SIZE] __attribute__((aligned(64)));
};

enum outcome {
	OUT_NONE,    /* not run, or the worker died on it */
	OUT_STOP,    /* reached the stop address */
	OUT_FAULT,   /* raised an exception */
	OUT_TIMEOUT, /* still running when stopped */
	OUT_ODD,     /* a signal that is no exception of the instruction */
};

struct poke { /* memory preset for one case */
	uint64_t addr, val;
};
#define MAX_POKES 4

struct testcase {
	struct cpu_state in;
	struct poke poke[MAX_POKES];
	uint8_t npokes;
	uint8_t mask_off, mask_len; /* bytes at mask_addr that are not compared */
	uint64_t mask_addr;
	uint8_t either; /* of two operands either may be the faulting one */
	uint8_t pieces; /* an operand accessed in pieces: any address in the page may be the faulting one */
	uint16_t test;  /* index into batch.test */
};

#define LINE 64
struct mem_line {
	uint32_t off; /* in the memory image; CODE lines follow it at IMG_SIZE */
	uint8_t data[LINE];
};

struct result {
	struct cpu_state st;
	uint32_t outcome;
	uint32_t vector, error;
	uint64_t cr2;
	uint32_t line0, lines; /* changed memory, in the worker's log */
	uint32_t overflow;     /* the log was full */
};

enum test_flags {
	TEST_32BIT = 1,
	TEST_CODE_WRITES = 2,
	TEST_SEQ = 4,
	TEST_TLS = 8, /* 32-bit code with fs and gs loaded */
	TEST_STRING = 16
};

#define UNDEF_MAX 256

struct test {                 /* one piece of code, run with several states */
	uint64_t start, stop; /* addresses */
	uint64_t slot;        /* where its code bytes begin */
	uint32_t len;         /* code bytes from start on, for the report */
	uint64_t far;         /* more code of a sequence, elsewhere */
	uint32_t far_len;
	uint32_t flags;       /* enum test_flags */
	uint32_t form;        /* index of a single instruction's form */
	uint32_t undef_flags; /* rflags bits that are undefined after it */
	/* sequences: the same before what stands at an address; the last one at or below counts */
	uint32_t n_undef;
	struct {
		uint32_t at, flags;
	} undef[UNDEF_MAX];
};

#define BATCH_TESTS 512
#define BATCH_CASES 2048
#define LOG_LINES   (1u << 19)

struct worker_out {
	volatile uint32_t progress; /* case being run */
	uint32_t log_used;
	struct result out[BATCH_CASES];
	struct mem_line log[LOG_LINES];
};

struct batch {
	uint32_t ntests, ncases;
	struct test test[BATCH_TESTS];
	struct testcase tc[BATCH_CASES];
	uint8_t image[IMG_SIZE]; /* initial memory of every case */
	uint8_t code[CODE_SIZE];
	struct worker_out native, engine;
};

#endif

/*
 * The engine's trace: lines by category to a file the monitor opened.  See
 * trace.c.
 */
#ifndef HVX_TRACE_H
#define HVX_TRACE_H

#include <stdint.h>

#define TRACE_CATEGORIES(X) \
	X(EXEC, exec, 0) X(IRQ, irq, 1) X(MMIO, mmio, 2) X(MMU, mmu, 3) X(EXC, exc, 4) X(SYS, sys, 5) X(PIO, pio, 6)
enum trace_category {
#define X(id, name, bit) TRACE_##id = 1 << bit,
	TRACE_CATEGORIES(X)
#undef X
		TRACE_ALL = (1 << 7) - 1
};

extern uint32_t trace_mask;

/* Is category @cat (TRACE_MMIO) traced?  Inline, so that an untraced place costs one load. */
#define trace_on(cat) (__builtin_expect((trace_mask & (cat)) != 0, 0))

/* Categories of a comma-separated list, "all" included; 0 when a name is unknown or none is given. */
uint32_t trace_parse(const char *list);

/* Starts tracing @categories to @fd, which becomes the trace's. */
void trace_open(int fd, uint32_t categories);

/* One line, prefixed with the time in microseconds, the CPU where there are several, and the category; no newline in @fmt.  Calls
 * log_before first, as it may use vector registers. */
void trace_line(enum trace_category cat, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Writes what is buffered; called at exits. */
void trace_flush(void);

#define trace(cat, ...)                               \
	do {                                          \
		if (trace_on(cat))                    \
			trace_line(cat, __VA_ARGS__); \
	} while (0)

#endif

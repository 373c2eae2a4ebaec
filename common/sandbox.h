/*
 * The seal of a process: layers taken one after the other, read back as a
 * bit mask.  The only user of libseccomp.  See sandbox.c.
 */
#ifndef HVX_SANDBOX_H
#define HVX_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The layers, in the order of `hvx-monitor status`. */
#define SANDBOX_LAYERS(X)       \
	X(USERNS, "user-ns")    \
	X(MOUNTNS, "mount-ns")  \
	X(PIDNS, "pid-ns")      \
	X(NETNS, "net-ns")      \
	X(IPCNS, "ipc-ns")      \
	X(UTSNS, "uts-ns")      \
	X(ROOT, "empty-root")   \
	X(CAPS, "no-caps")      \
	X(NNP, "no-new-privs")  \
	X(RLIMITS, "rlimits")   \
	X(LANDLOCK, "landlock") \
	X(SECCOMP, "seccomp")

enum sandbox_layer_no {
#define X(id, name) SANDBOX_NO_##id,
	SANDBOX_LAYERS(X)
#undef X
		SANDBOX_NO_COUNT
};
#define SANDBOX_BIT(id) (1u << SANDBOX_NO_##id)
#define SANDBOX_NAMESPACES                                                                                           \
	(SANDBOX_BIT(USERNS) | SANDBOX_BIT(MOUNTNS) | SANDBOX_BIT(PIDNS) | SANDBOX_BIT(NETNS) | SANDBOX_BIT(IPCNS) | \
	 SANDBOX_BIT(UTSNS))
#define SANDBOX_ALL ((1u << SANDBOX_NO_COUNT) - 1)
/* Layers that a process is not meant to have, in the mask of those it has: passt is in the host's network. */
#define SANDBOX_UNWANTED(mask) ((mask) << 16)
_Static_assert(SANDBOX_NO_COUNT <= 16, "two halves of a mask");

/* Comma-separated names of the layers in @mask. */
const char *sandbox_names(uint32_t mask, char *buf, size_t len);

/* Argument rules of a table entry.  Several entries for one call are alternatives. */
enum sandbox_rule {
	RULE_ANY,
	RULE_EQ,     /* argument @arg == @val */
	RULE_MASKED, /* (argument @arg & @mask) == @val */
	RULE_ENOSYS, /* not allowed: fails with ENOSYS so that libc falls back */
	RULE_FAKE,   /* not done, but said to be: for a program that confines itself where that is done already */
};
enum sandbox_stage {
	STAGE_SETUP = 1, /* only until the final filter */
	STAGE_FINAL = 2, /* from the start to the end */
};

/* As also.val: the process itself, as it is numbered when the filter is made. */
#define SANDBOX_SELF UINT64_MAX

struct sandbox_call {
	int nr;
	enum sandbox_stage stage;
	enum sandbox_rule rule;
	unsigned arg;
	uint64_t mask, val;
	const char *reason;
	struct {
		unsigned arg;
		uint64_t val; /* 0: nothing */
	} also;               /* what another argument must be besides */
};
#define ALLOW(call, why)                                         \
	{                                                        \
		SYS_##call, STAGE_FINAL, RULE_ANY, 0, 0, 0, why, \
		{                                                \
			0, 0                                     \
		}                                                \
	}
#define ALLOW_EQ(call, a, v, why)                               \
	{                                                       \
		SYS_##call, STAGE_FINAL, RULE_EQ, a, 0, v, why, \
		{                                               \
			0, 0                                    \
		}                                               \
	}
#define FAKE(call, why)                                           \
	{                                                         \
		SYS_##call, STAGE_FINAL, RULE_FAKE, 0, 0, 0, why, \
		{                                                 \
			0, 0                                      \
		}                                                 \
	}
/* As ALLOW_EQ and ALLOW_MASK where argument @b is @w besides. */
#define ALLOW_BOTH(call, b, w, a, v, why)                       \
	{                                                       \
		SYS_##call, STAGE_FINAL, RULE_EQ, a, 0, v, why, \
		{                                               \
			b, w                                    \
		}                                               \
	}
#define ALLOW_BOTH_MASK(call, b, w, a, m, v, why)                   \
	{                                                           \
		SYS_##call, STAGE_FINAL, RULE_MASKED, a, m, v, why, \
		{                                                   \
			b, w                                        \
		}                                                   \
	}
/* What may be set on a descriptor whose other end relies on it: it never waits, raises no signals. */
#define ALLOW_NONBLOCK(why) ALLOW_BOTH_MASK(fcntl, 1, F_SETFL, 2, O_NONBLOCK | O_ASYNC | O_DIRECT, O_NONBLOCK, why)
/* Signals to the process itself, to nobody else. */
#define ALLOW_SELF(call, why)                                    \
	{                                                        \
		SYS_##call, STAGE_FINAL, RULE_ANY, 0, 0, 0, why, \
		{                                                \
			0, SANDBOX_SELF                          \
		}                                                \
	}
#define ALLOW_SELF_EQ(call, a, v, why)                          \
	{                                                       \
		SYS_##call, STAGE_FINAL, RULE_EQ, a, 0, v, why, \
		{                                               \
			0, SANDBOX_SELF                         \
		}                                               \
	}
#define ALLOW_MASK(call, a, m, v, why)                              \
	{                                                           \
		SYS_##call, STAGE_FINAL, RULE_MASKED, a, m, v, why, \
		{                                                   \
			0, 0                                        \
		}                                                   \
	}
#define SETUP(call, why)                                         \
	{                                                        \
		SYS_##call, STAGE_SETUP, RULE_ANY, 0, 0, 0, why, \
		{                                                \
			0, 0                                     \
		}                                                \
	}
#define SETUP_EQ(call, a, v, why)                               \
	{                                                       \
		SYS_##call, STAGE_SETUP, RULE_EQ, a, 0, v, why, \
		{                                               \
			0, 0                                    \
		}                                               \
	}
#define SETUP_MASK(call, a, m, v, why)                              \
	{                                                           \
		SYS_##call, STAGE_SETUP, RULE_MASKED, a, m, v, why, \
		{                                                   \
			0, 0                                        \
		}                                                   \
	}
#define SETUP_ENOSYS(call, why)                                     \
	{                                                           \
		SYS_##call, STAGE_SETUP, RULE_ENOSYS, 0, 0, 0, why, \
		{                                                   \
			0, 0                                        \
		}                                                   \
	}

struct sandbox_table {
	const char *name;
	const struct sandbox_call *calls;
	size_t n;
	unsigned max_fds;     /* RLIMIT_NOFILE */
	unsigned max_threads; /* RLIMIT_NPROC once sealed; 0: no more of them */
	uint64_t memory;      /* bytes of its own it may have: heap, tables, code memory; 0: no limit */
	int refuse;           /* errno of a call that is not in the table; 0: it kills */
	bool locked;          /* keeps RLIMIT_MEMLOCK: recent kernels count an io_uring's rings there */
};

/*
 * Parent side: fork into new namespaces, as many of @want (SANDBOX_NAMESPACES bits)
 * as the host gives.  The child returns 0 once its identity is mapped: inside
 * it is id 0, and, when the caller is root, id 1 stands for an unprivileged one.
 * @got receives the namespaces made (in both).  Returns the pid, or a negative error.
 */
pid_t sandbox_fork(uint32_t want, uint32_t *got);

/* A file or directory that Landlock leaves to a program that is not ours. */
struct sandbox_grant {
	int fd;
	bool write;
};
#define SANDBOX_GRANTS 128

/* How the way into the sandbox differs for a program that is not ours, which is executed in it. */
struct sandbox_guest {
	int (*root)(void *ctx); /* fills what is mounted at SANDBOX_NEW_ROOT, the root to be */
	/* opens what may be used, once the root is what it will be (@emptied) or must stay; returns how many */
	int (*grants)(void *ctx, bool emptied, struct sandbox_grant g[SANDBOX_GRANTS]);
	void *ctx;
	uint32_t want; /* layers it is meant to have */
	uid_t uid;     /* who root becomes */
	gid_t gid;
	uint64_t caps; /* that remain: a mask */
	bool network;  /* Landlock leaves TCP to it */
};
#define SANDBOX_NEW_ROOT "/tmp"

/* As sandbox_fork(); id 1 inside is @uid and @gid outside, where the caller is root. */
pid_t sandbox_fork_as(uint32_t want, uint32_t *got, uid_t uid, gid_t gid);

/*
 * Child side, instead of sandbox_enter(): all layers of @g->want, then the final filter of @t, which the program that is
 * executed next lives with.  Returns the layers reached with the unwanted ones beside them.
 */
uint32_t sandbox_enter_guest(const struct sandbox_table *t, const struct sandbox_guest *g, uint32_t ns, char *why,
			     size_t len);

/*
 * Child side, after exec: every layer except the filters; then the set-up
 * filter.  @ns says which namespaces sandbox_fork() made.  Returns the layers
 * reached; the missing ones are those of SANDBOX_ALL not in it, Landlock aside when
 * the kernel has none.  @why gets the reason of the first failure.
 */
uint32_t sandbox_enter(const struct sandbox_table *t, uint32_t ns, char *why, size_t len);

/*
 * Limits the address space to what this process needs: t->memory and @own more of its own, which may be private and
 * writable, and @shared bytes of mappings of others' memory.  0 or a negative error.
 */
int sandbox_limit_memory(const struct sandbox_table *t, uint64_t own, uint64_t shared);

/* Replaces nothing, adds the final filter to all threads, whatever became of the limit on threads.  0 or a negative
 * error of the filter. */
int sandbox_seal(const struct sandbox_table *t);

/* Layers that @reached lacks and that this kernel could give to somebody. */
uint32_t sandbox_missing(uint32_t reached);

/* Is this capability in force? */
bool sandbox_has_cap(int cap);

/* What a layer's error means: strerror(), but for what this kernel does not have. */
const char *sandbox_error(int rc);

/* Closes every descriptor above 2 that is not in @keep (sorted ascending). */
void sandbox_close_fds(const int *keep, int n);

/* Empties the capability sets of the calling thread, but for the bounding set and the bits of @keep where it has them; 0 or
 * a negative error. */
int sandbox_drop_caps(uint64_t keep);

/* Loads the filter of @t for @stage into all threads; 0 or a negative error. */
int sandbox_filter(const struct sandbox_table *t, enum sandbox_stage stage);

#endif

/*
 * The translator's data: blocks, their side tables, exits and links, and the
 * code memory they live in.
 *
 * Code memory is one memfd mapped twice: bt->rw for writing, bt->rx for
 * running.  Host code positions are kept as offsets from both.
 */
#ifndef HVX_BT_H
#define HVX_BT_H

#include "common/gmem.h"
#include "vcpu/bt/insn.h"
#include "vcpu/bt/key.h"
#include "vcpu/mmu/mmu.h"
#include "vcpu/mutex.h"
#include "vcpu/vcpu.h"

#define BT_CODE_SIZE  (64u << 20)
#define BT_COPY_SIZE  (1u << 16) /* at the end of code memory, for each CPU: more than a block's code */
#define BT_MAX_SITES  (1u << 21)
#define BT_MAX_EXITS  (12u << 16)
#define BT_MAX_SYS    (1u << 15)
#define BT_INDEX      (1u << 19) /* entries of the block index: at most half full */
#define BT_MAX_INSNS  64         /* guest instructions in a block */
#define BT_DOWNGRADES (1u << 16)
#define BT_OFF_WINDOW (1u << 15)
#define BT_MAX_REACH  0x7fff0000 /* of direct branches */
#define BT_END16      0xfff0     /* 16-bit code from here on may run into the end of 64 KiB: it is not linked to */
#define BT_NONE       0xffffffffu

/* Where the guest's arithmetic flags are at a site. */
enum fl_state { FLS_HOST, FLS_SLOT, FLS_DEAD };

enum site_kind {
	SITE_INSN,     /* start of a guest instruction's host code */
	SITE_MEM,      /* soft TLB slow path */
	SITE_SYS,      /* helper: aux = index into bt->sys */
	SITE_STRING,   /* string helper: aux likewise */
	SITE_EXIT,     /* on the way out through an exit */
	SITE_INDIRECT, /* jump cache miss: target in r10 */
	SITE_RAISE,    /* aux = vector */
	SITE_STEP_END, /* end of a one-instruction block */
};

/*
 * One entry of the side table: from host_off to the next entry's, guest registers in @spill are in vcpu.regs[] (the host register is
 * scratch), the rest in the host's, the flags as @fl says; the guest instruction is at block start + goff.
 */
struct site {
	uint32_t host_off;
	uint32_t resume_off;
	uint32_t block;
	uint32_t aux;
	uint16_t goff;
	uint16_t spill;
	uint8_t fl;
	uint8_t kind;
	uint8_t size;  /* SITE_MEM: bytes */
	uint8_t acc;   /* SITE_MEM: ACC_R | ACC_W, plus the bits below */
	uint8_t seg;   /* SITE_MEM through segments: SEG_* */
	uint8_t len;   /* of the guest instruction */
	uint8_t align; /* SITE_MEM: alignment the instruction insists on, or 0 */
	uint8_t upper; /* site_store() of one of zmm16-31 */
};
#define SITE_ACC_MF     0x08 /* a pending x87 exception comes before what the operand raises */
#define SITE_ACC_MASKED 0x10 /* masked move: only chosen elements count */
#define SITE_ACC_SS     0x20 /* through SS: #SS instead of #GP */
#define SITE_ACC_STACK  0x40 /* the implicit stack operand */
#define SITE_ACC_RANGE  0x80 /* checks a range for several accesses: site_range() in aux, else site_store() or 0 */

/* A range of @span bytes that begins @before bytes before the access and will be written to or not. */
static inline uint32_t site_range(unsigned before, unsigned span, bool write)
{
	return before | span << 12 | (uint32_t)write << 31;
}

/* A plain store of register @reg, which ends at code memory offset @after: nothing else has to be done for it. */
static inline uint32_t site_store(unsigned reg, bool vector, uint32_t after)
{
	return after | (reg & 15) << 26 | (uint32_t)vector << 30 | 1u << 31;
}

static inline unsigned site_store_reg(const struct site *s)
{
	return (s->aux >> 26 & 15) | s->upper << 4;
}

static inline bool site_is_store(const struct site *s)
{
	return !(s->acc & SITE_ACC_RANGE) && s->aux >> 31;
}

static inline bool site_stores_vector(const struct site *s)
{
	return s->aux >> 30 & 1;
}

static inline uint32_t site_store_end(const struct site *s)
{
	return s->aux & (BT_CODE_SIZE - 1);
}
_Static_assert(BT_CODE_SIZE <= 1u << 26, "offsets in site_store()");

/* A direct exit: `jmp/jcc rel32` to patch, or a branch cell.  All that leaving through it needs is here: one cache line. */
struct bexit {
	uint64_t rip;     /* of the target; from vcpu.ip_page in position-independent code */
	uint64_t page;    /* gpa of its page when there is no cell */
	uint32_t block;   /* that it belongs to */
	uint32_t target;  /* linked block or BT_NONE */
	uint32_t next_in; /* next exit linked to the same target */
	uint32_t rel_off; /* rel32 in code memory; BT_NONE: through cell */
	uint32_t stub_off;
	uint32_t site;
	uint32_t cell;
	int32_t gdelta; /* target gva - block start gva */
	uint32_t mode;  /* of the target: the block's own but after stac and clac */
	uint8_t fl;     /* enum fl_state at the exit */
	uint8_t spare;  /* the spare registers are in their slots */
	uint8_t dead;   /* so is its block */
} __attribute__((aligned(64)));

struct block {
	uint64_t gpa;  /* of the first byte */
	uint64_t gva;  /* page of it when the mode is not MODE_USER, else 0 */
	uint64_t gpa2; /* page of the bytes beyond the first page, or ~0 */
	uint32_t mode;
	uint32_t host_start;      /* its code: from here to host_end */
	uint32_t host, host_b;    /* entries: flags in the host's, in the slot */
	uint32_t host_s, host_sb; /* the same with the spare registers in their slots */
	uint32_t in_links;        /* exits linked to this block */
	uint32_t host_end;
	/* indirect exit: after its compare; the last instruction before which r10 is the target, and the slow path.  User code:
	 * its jmp r11, by when r10 is the target's page, else BT_NONE */
	uint32_t ind_jne, ind_jmp, ind_cold, ind_gone;
	uint32_t page_next[2];
	uint32_t site, n_sites, exit, n_exits;
	uint16_t len; /* guest bytes */
	uint16_t n_insns;
	uint64_t parts, parts2; /* 64-byte parts of the page(s) it was made from, looked-ahead bytes included */
	uint8_t fl_livein;
	uint8_t dead;
	uint8_t combine_fails;
	uint8_t locked; /* the first instruction is a locked read-modify-write */
} __attribute__((aligned(64)));

/*
 * The block index: open addressing, so that a look-up touches this and the block.  An entry is a word, hash << 32 | block, that is
 * written at once and stays where it is until all are forgotten, so a look-up needs no lock.
 */
#define BT_FREE    0xffffffffu /* block of an entry: a look-up ends here */
#define BT_REMOVED 0xfffffffeu /* it goes on */

/* A page that holds translated code. */
struct codepage {
	uint64_t frame;  /* RAM frame */
	uint64_t parts;  /* 64-byte parts that blocks cover */
	uint32_t blocks; /* list through page_next[] */
	uint32_t next;
	uint32_t writes; /* stores into it that hit no block, since it was made live */
	uint32_t limit;  /* so many turn it into a data page */
	uint32_t marked; /* how often it has become live */
	uint8_t live;    /* has blocks, or is about to */
	uint8_t clean;   /* no CPU's soft TLB has a write tag for it since it became live */
};

/* Instructions decoded lately: what a block looks ahead at is decoded again when its turn comes. */
#define BT_MEMO 1024
struct bt_memo {
	uint64_t gpa, features; /* where, and for which CPU (feature_word()) */
	struct insn in;
};

/*
 * The VM's.  Who changes or looks into the tables holds the lock, with these exceptions: translated code runs without it; what
 * a published block, site, exit or cell says of itself never changes but for links, so who has its number reads it without;
 * a signal handler bisects the published blocks; the index is looked up without it, and what is found may be dead by then: its
 * entries trap.  Everything is forgotten (bt_flush()) with the world stopped only, and a CPU
 * that is at a boundary keeps no number.
 * Order of locks: the own CPU (world.h), this one, others'.  Who holds it waits for no other CPU.
 */
struct bt {
	struct vm *vm;
	int fd;
	uint8_t *rw;
	const uint8_t *rx;
	uint32_t used;
	uint32_t copies; /* blocks end before: the CPUs' copies (copy_make()) */
	struct block *blocks;
	uint32_t n_blocks;
	struct site *sites;
	uint32_t n_sites;
	struct bexit *exits;
	uint32_t n_exits;
	struct insn *sys;
	uint32_t n_sys;
	struct bt_memo *memo;
	uint32_t n_cells;
	uint64_t *index;
	struct codepage *pages;
	uint32_t n_pages, *page_hash;
	uint32_t *cell_stub;    /* of each cell: where it points when it is not linked */
	uint64_t invalidations; /* of blocks: cells that were set aside before one may lead into it */
	uint32_t pages_made;    /* counts pages that became live */
	uint32_t pages_retired; /* and that no longer are */
	uint32_t flushes;       /* of everything, with the world stopped */
	struct mutex lock;      /* see below */
	struct vcpu *owner;     /* of the lock */
	unsigned depth;
	uint8_t downgraded[BT_DOWNGRADES]; /* by hashed gpa of a block: the first strategy that it may use */
	/* of an instruction by hashed gpa: how often a window did not serve it; OFF_WINDOW: it is left alone */
	uint8_t off_window[BT_OFF_WINDOW];
	uint64_t stop_rip; /* blocks do not run past it (tests) */
	bool exact_flags;  /* flags are kept for whatever may fault or be interrupted, read or not; set once */
	bool have_bmi2;
	bool smp;           /* several CPUs; set once */
	bool crowded;       /* more than the host has cores: pause gives way; set once */
	uint8_t vcpu_seg;   /* how translated code reaches struct vcpu: emit.vcpu_seg */
	int32_t vcpu_delta; /* set by vcpu_thread_init(), the same for all vcpus */
};

/* Does code of this mode access memory through the VM's window? */
bool mode_has_window(const struct bt *bt, uint32_t mode);

/* bt/cache.c: makes the code memory and tables; before the final seal.  0 or -errno. */
int bt_create(struct vm *vm);
void bt_destroy(struct vm *vm);
/* Forgets every translation, on all CPUs; at a boundary of @v.  bt_flush_since: unless that was done after @flushes was read. */
void bt_flush(struct vcpu *v);
void bt_flush_since(struct vcpu *v, uint32_t flushes);
/* The lock of the tables; may be taken again by who has it. */
void bt_lock(struct vcpu *v);
void bt_unlock(struct vcpu *v);

/*
 * The spare registers: those that compilers use least.  Translated code takes them as scratch registers first, and passes from
 * block to block with them left in their slots, so that loops need not bring back and spill again what they never touch.
 */
#define BT_SPARE ((uint16_t)(1u << R_10 | 1u << R_11))

/* Where to enter @b, from code that leaves its flags and spare registers as told.  Indirect branches: in slots, both. */
static inline uint32_t block_entry(const struct block *b, bool fl_slot, bool spare)
{
	if (spare)
		return fl_slot ? b->host_sb : b->host_s;
	return fl_slot ? b->host_b : b->host;
}

static inline uint64_t bt_invalidations(const struct bt *bt)
{
	return __atomic_load_n(&bt->invalidations, __ATOMIC_ACQUIRE);
}

static inline const uint8_t *bt_rx(const struct bt *bt, uint32_t off)
{
	return bt->rx + off;
}

/* bt/cache.c: finding blocks.  block_lookup() with or without the lock, on a CPU or with all stopped. */
uint32_t block_lookup(const struct bt *bt, uint64_t gpa, uint64_t gva, uint32_t mode);
uint32_t block_by_host(const struct bt *bt, uint32_t host_off);
void block_insert(struct bt *bt, uint32_t b);
void block_invalidate(struct vcpu *v, uint32_t b);
/* Is code memory offset @off an entry of @b, and which? */
bool block_entered_at(const struct block *b, uint32_t off, bool *spare, uint8_t *fl);
struct site *site_by_host(const struct bt *bt, const struct block *b, uint32_t host_off);

/*
 * bt/translate.c: translates the block at v->rip in @mode, whose first byte is at @gpa, with the lock held; block index, or
 * BT_NONE: when fetching raised a fault (v->exc_pending), else for what @why says has to be done at a boundary without the
 * lock before it is tried again: make a page clean, wait for stores, flush.
 */
struct bt_wait {
	bool full;     /* memory ran out */
	int64_t frame; /* codepage_clean(), or -1 */
	uint64_t cpus; /* codepage_wait_stores() */
};
uint32_t bt_translate(struct vcpu *v, uint64_t gpa, uint32_t mode, struct bt_wait *why);
void bt_wait(struct vcpu *v, const struct bt_wait *why, uint32_t flushes);

/* Blocks at @gpa are translated with no strategy before @strategy (bt/addr.h) from now on; what is there must be dropped. */
void bt_downgrade(struct bt *bt, uint64_t gpa, unsigned strategy);
bool bt_downgraded(struct bt *bt, uint64_t gpa, unsigned strategy);

/* bt/access_window.c: the instruction at @gpa has left the window too often. */
bool bt_off_window(const struct bt *bt, uint64_t gpa);
/* A host fault at @s, of an access through the window: BT_FAULT_AGAIN when it can be done now, else NULL. */
const void *window_fault(struct vcpu *v, const struct site *s);

/* bt/link.c */
void link_exit(struct vcpu *v, uint32_t exit, uint32_t target, bool global);
void unlink_exit(struct vcpu *v, uint32_t exit);
void unlink_incoming(struct vcpu *v, uint32_t block);
void cells_create(struct vcpu *v);                      /* of a new vcpu: lead to the stubs */
void cells_forget(struct vcpu *v);                      /* all blocks have gone */
void link_forget_cells(struct vcpu *v, uint32_t block); /* no cell of @v's leads to it any more */
/*
 * Copies @block to @v's place for it, so that a kick has an effect: all that leaves the copy goes to C, while other CPUs run the
 * block itself as fast as ever.  Its offset in code memory.  Async-signal-safe, on @v's thread, which is not in the copy.
 */
uint32_t copy_make(struct vcpu *v, uint32_t block);
/* Where in its block the code at @off is, if that is @v's copy; else @off. */
uint32_t copy_original(const struct vcpu *v, uint32_t off);
void cells_reset_user(struct vcpu *v);
void cells_reset_all(struct vcpu *v);
/* Points a cell at host address @host, where it pointed before a reset, unless it is in use. */
void cell_bring_back(struct vcpu *v, uint32_t cell, uint64_t host);

/* bt/lookup.c: block for v->rip in v->mode, translating if need be; BT_NONE after raising. */
uint32_t bt_find(struct vcpu *v, uint32_t extra_mode);
/* Host entry for continuing at v->rip without leaving translated code; NULL: go to the run loop. */
const void *bt_chain(struct vcpu *v);
int fetch_gpa(struct vcpu *v, uint64_t gva, uint64_t *gpa); /* walks for execution; -1 after raising */

/* bt/jumpcache.c */
void jump_cache_put(struct jump_cache *jc, unsigned i, uint64_t tag, uint64_t host);
void jump_cache_flush(struct vcpu *v, unsigned k);
/* Code of @mode is about to look into its table: what is there of another mode goes. */
void jump_cache_claim(struct vcpu *v, uint32_t mode);
static inline bool jump_cache_is_user(unsigned k)
{
	return k % JC_NOFPU == TLB_USER || k % JC_NOFPU == JC_USER32 || k % JC_NOFPU == JC_CODE16;
}

/* bt/state.c: brings v->regs[], flags and rip to the guest's state at @s from host_regs[]/host_flags. */
void state_sync(struct vcpu *v, const struct site *s);
void regs_sync(struct vcpu *v, uint16_t spill, uint8_t fl); /* registers and flags alone */
uint64_t site_rip(const struct vcpu *v, const struct site *s);
uint64_t block_rip(const struct vcpu *v, const struct block *b);
/* The guest instruction at @s, decoded again (saves the extended state: the decoder is a library); -1 when its bytes are not in RAM. */
int site_insn(struct vcpu *v, const struct site *s, struct insn *in);

/* bt/fault.c: signal handlers of the vcpu's thread.  Call once per thread. */
int fault_init_thread(void);
int fault_install(void);

/* bt/glue.S */
enum { BT_LEFT = 0, BT_KICKED = 1 };
int bt_enter(struct vcpu *v, const void *host);
void glue_set_self(struct vcpu *v); /* the calling thread's vcpu; once, before it enters */

/* bt/string.c: one string instruction, as far as it gets: 0 with v->rip after it or still at it, -1 after raising */
int bt_string(struct vcpu *v, const struct insn *in);

/* bt/cross.c: an access at @s that runs into the next page.  True: a load's operand is at gva + v->mem_addend; the store
 * that site_store() tells is done. */
bool cross_load(struct vcpu *v, const struct site *s, uint64_t gva);
bool cross_store(struct vcpu *v, const struct site *s, uint64_t gva);
/* tlb_read() for 4 or 8 bytes that are all RAM and may be read.  False: they are not, and nothing is raised. */
bool cross_read(struct vcpu *v, uint64_t lin, void *buf, unsigned len);

/* bt/branches.c: what is kept of guest mappings.  branches_create: 0 or -errno; without it nothing is kept by PCID. */
int branches_create(struct vcpu *v);
void branches_destroy(struct vcpu *v);
void branches_note_fetch(struct vcpu *v, uint64_t page, const struct walk *w); /* code is fetched through this page */
void branches_forget(struct vcpu *v); /* jump caches and cells alone: another base or limit for code */
extern const struct mmu_hook bt_mmu_hook;

/* bt/codepage.c */
/* The 64-byte parts of a page that bytes [off, off+len) touch; len >= 1, within the page. */
static inline uint64_t codepage_parts(unsigned off, unsigned len)
{
	unsigned a = off / 64, z = (off + len - 1) / 64;
	uint64_t m = z >= 63 ? ~0ull : (2ull << z) - 1;

	return m & ~((1ull << a) - 1);
}

struct codepage *codepage_get(struct bt *bt, uint64_t frame, bool create);
/* Does the page hold translated code?  Without the lock. */
static inline bool codepage_has(const struct vcpu *v, uint64_t frame)
{
	return gmem_bit(v->vm->mem->code_bm, frame);
}
/*
 * User code of RAM @frame runs at @page of the linear space.  Blocks do not know where they are, but a branch cell is good for one
 * address: those of a page that is mapped twice in one address space are not linked.
 */
void codepage_place(struct vcpu *v, uint64_t frame, uint64_t page);
/* The same with what was known before; not known yet in this epoch. */
void codepage_put(struct vcpu *v, uint32_t cp, uint64_t page, bool aliased);
/* What codepage_place() goes by has changed when this has. */
static inline uint32_t place_gen(const struct vcpu *v)
{
	return v->place_count + __atomic_load_n(&v->bt->pages_made, __ATOMIC_ACQUIRE);
}
/*
 * Before bytes of RAM @frame are read for translation: marks the page, so that every store to it from then on comes here.
 * False: other CPUs may have write tags for it, or a store under way: codepage_clean(), at a boundary without the lock, and again.
 */
bool codepage_mark(struct vcpu *v, uint64_t frame);
void codepage_clean(struct vcpu *v, uint64_t frame);
/* CPUs that may not have made the store yet that they announced, to these parts of RAM @frame. */
uint64_t codepage_storing(const struct vcpu *v, uint64_t frame, uint64_t parts);
void codepage_wait_stores(struct vcpu *v, uint64_t cpus);
void codepage_add(struct vcpu *v, uint32_t block);
void codepage_del(struct bt *bt, uint32_t block);
/* A store of @len bytes to RAM @frame at @off: 0 = hits no translation, 1 = translations were dropped. */
int codepage_store(struct vcpu *v, uint64_t frame, unsigned off, unsigned len);
int codepage_stored(struct vcpu *v, uint64_t frame, unsigned off, unsigned len); /* as struct mmu_hook has it */
/* A store to RAM @frame has faulted in a window, which is dear: after a few the page turns into data.  True: it is data. */
bool codepage_met(struct vcpu *v, uint64_t frame);

#endif

/*
 * The guest's CPUID: the host's, through an allow list per leaf.
 *
 * Invariant: a feature is shown only when the engine honours it: by running
 * the host's instruction (then the host must have it) or by doing it itself
 * (x2APIC, TSC deadline, NX, SMEP, SMAP, UMIP, PCID, 1G pages, ...: shown on
 * every host).
 *
 * The hypervisor leaves.  0x40000000 says who we are.  A second set at
 * 0x40000100 speaks KVM's published guest interface, the way VMMs show several
 * interfaces side by side.  Why: Linux (kernel/tsc.c, kernel/kvmclock.c,
 * apic/apic.c of 6.1) takes the TSC's frequency without measuring it only from
 * leaves 0x15/0x16 on Intel, or from a hypervisor it knows; and it uses x2APIC
 * without interrupt remapping only under a hypervisor it knows.  Of those it
 * knows, KVM's clock is the smallest honest contract: one structure per vCPU
 * that states tsc -> nanoseconds, which we implement in full (cpu/pvclock.c),
 * with the flag that it is stable across vCPUs, which is true.  No other KVM
 * feature is offered, so no hypercall is ever made.  With an invariant TSC
 * Linux then rates its own TSC clocksource higher than kvm-clock and, TSC_ADJUST
 * being there, runs no watchdog on it.  Leaf 0x40000010 gives the frequency in
 * kHz to those who look there.
 *
 * Mitigations.  Distribution kernels pick retpolines, return thunks, VERW or
 * page table isolation by what the CPU says of itself.  Guest code never runs
 * on the host's predictors as its own code (it is translated), so the guest's
 * software workarounds protect nothing; what is defended is said in
 * hvx-internals(7).  AMD: AutoIBRS, BTC_NO, SRSO_NO, SSB_NO, TSA_*_NO.
 * Intel: the *_NO bits of IA32_ARCH_CAPABILITIES (cpu/msr.c); and BHI_CTRL, as
 * Linux no longer believes BHI_NO: it sets a bit of SPEC_CTRL instead of
 * running a loop of branches at each system call.  The LFENCE behind SWAPGS stays on Intel:
 * nothing tells Linux that it can go.
 */
#include "vcpu/cpu/cpuid.h"

#include "common/gmem.h"
#include "vcpu/chipset/platform.h"
#include "vcpu/cpu/fpu.h"
#include "vcpu/cpu/operand.h"

#define BIT(n)      (1u << (n))
#define CACHE_SHARE 32 /* the last-level cache shown is at most this part of the guest's memory */

/* Leaf 1 */
#define F1C_HOST                                                                                                    \
	(BIT(0) | BIT(1) | BIT(9) | BIT(12) | BIT(13) | BIT(19) | BIT(20) | BIT(22) | BIT(23) | BIT(25) | BIT(26) | \
	 BIT(28) | BIT(29) | BIT(30))
/* sse3 pclmul ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand */
#define F1C_OURS    (BIT(17) | BIT(21) | BIT(24) | BIT(31)) /* pcid x2apic tsc-deadline hypervisor */
#define F1C_OSXSAVE BIT(27)
#define F1D_HOST    (BIT(0) | BIT(4) | BIT(8) | BIT(15) | BIT(19) | BIT(23) | BIT(24) | BIT(25) | BIT(26) | BIT(27))
/* fpu tsc cx8 cmov clfsh mmx fxsr sse sse2 ss */
#define F1D_OURS                                                                                                \
	(BIT(1) | BIT(2) | BIT(3) | BIT(5) | BIT(6) | BIT(7) | BIT(9) | BIT(11) | BIT(12) | BIT(13) | BIT(14) | \
	 BIT(16) | BIT(17)) /* vme de pse msr pae mce apic sep mtrr pge mca pat pse36 */
#define F1D_APIC BIT(9)
#define F1D_HTT  BIT(28)
/* Leaf 7.0 */
#define F7B_HOST                                                                                        \
	(BIT(3) | BIT(5) | BIT(6) | BIT(8) | BIT(9) | BIT(13) | BIT(18) | BIT(19) | BIT(23) | BIT(24) | \
	 BIT(29)) /* bmi1 avx2 fdp-excptn bmi2 erms zero-fcs rdseed adx clflushopt clwb sha */
#define F7B_OURS (BIT(0) | BIT(1) | BIT(7) | BIT(10) | BIT(20)) /* fsgsbase tsc_adjust smep invpcid smap */
#define F7C_HOST (BIT(8) | BIT(9) | BIT(10))                    /* gfni vaes vpclmulqdq */
#define F7C_OURS (BIT(2) | BIT(22))                             /* umip rdpid */
#define F7D_HOST BIT(4)                                         /* fsrm */
/* AVX-512: offered whole, with what x86-64-v4 asks for, or not at all */
#define F7B_V4      (BIT(16) | BIT(17) | BIT(28) | BIT(30) | BIT(31)) /* f dq cd bw vl */
#define F7B_AVX512  (F7B_V4 | BIT(21))                                /* ifma */
#define F7C_AVX512  (BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14))   /* vbmi vbmi2 vnni bitalg vpopcntdq */
#define F7D_AVX512  BIT(8)                                            /* vp2intersect */
#define F71A_AVX    BIT(4)                                            /* leaf 7.1: avx_vnni */
#define F71A_AVX512 BIT(5)                                            /* avx512_bf16 */
#define F7D_INTEL   (BIT(26) | BIT(27) | BIT(29) | BIT(31))           /* spec_ctrl stibp arch_capabilities ssbd */
#define F72D_INTEL  (BIT(4) | BIT(5))                                 /* leaf 7.2: bhi_ctrl, mcdt_no */
/* Leaf 0x80000001 */
#define FXC_HOST       (BIT(0) | BIT(5) | BIT(7) | BIT(8)) /* lahf abm misalignsse 3dnowprefetch */
#define FXC_CMP_LEGACY BIT(1)
#define FXC_TOPOEXT    BIT(22)
#define FXD_HOST       BIT(22)                                           /* mmxext */
#define FXD_OURS       (BIT(11) | BIT(20) | BIT(26) | BIT(27) | BIT(29)) /* syscall nx 1g rdtscp lm */
#define FXD_SYSCALL    BIT(11)
#define FXD_SHARED     0x0183f3ffu /* AMD repeats these of leaf 1 */
/* Leaf 0xd.1 */
#define XSAVE_CAPS 7u /* xsaveopt xsavec xgetbv(1) */
/* AMD leaves */
#define F8B_HOST  (BIT(2))                    /* xsaveerptr */
#define F8B_OURS  (BIT(26) | BIT(29))         /* ssb_no btc_no */
#define F21A_HOST (BIT(0) | BIT(2))           /* no_nested_data_bp, lfence serialises */
#define F21A_OURS (BIT(6) | BIT(8) | BIT(29)) /* null selector clears base, automatic ibrs, srso_no */
#define F21C_OURS (BIT(1) | BIT(2))           /* tsa_sq_no tsa_l1_no */

#define KVM_FEATURES (BIT(1) | BIT(3) | BIT(24)) /* nop io delay, clocksource2, clocksource stable */

/* What the build works on: the guest's CPU, and the leaves of the host's. */
struct build {
	struct vcpu *v;
	const struct cpuid_source *from;
	struct topology topo;
	uint64_t l3; /* bytes of the last-level cache that is shown; 0: none */
};

static void host_leaf(const struct build *b, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	b->from->leaf(b->from, leaf, subleaf, r);
}

void cpuid_host(uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	__asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(subleaf));
}

static void add(struct vcpu *v, uint32_t leaf, uint32_t sub, const uint32_t r[4])
{
	if (v->n_cpuid < CPUID_MAX)
		v->cpuid[v->n_cpuid++] = (struct cpuid_entry){leaf, sub, r[0], r[1], r[2], r[3]};
}

static void add_values(struct vcpu *v, uint32_t leaf, uint32_t sub, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
	const uint32_t r[4] = {a, b, c, d};

	add(v, leaf, sub, r);
}

static uint32_t in_socket(const struct build *b) /* CPUs */
{
	return b->topo.cores * b->topo.threads;
}

/* APIC ids that a socket's CPUs may have. */
static uint32_t socket_ids(const struct build *b)
{
	return 1u << topology_socket_shift(&b->topo);
}

static uint64_t host_xcr0(void)
{
	uint32_t lo, hi, r[4];

	cpuid_host(1, 0, r);
	if (!(r[2] & F1C_OSXSAVE))
		return 0;
	__asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
	return (uint64_t)hi << 32 | lo;
}

const char *cpuid_host_lacks(void)
{
	uint32_t r[4];

	if ((host_xcr0() & 3) != 3)
		return "xsave (CPUID 1 ECX bit 27)";
	cpuid_host(0x80000001, 0, r);
	if (!(r[2] & 1))
		return "lahf in 64-bit mode (CPUID 0x80000001 ECX bit 0)";
	return NULL;
}

/* Leaf 0x1f is Intel's and newer than 0xb, which says the same where there are no dies. */
static bool has_1f(const struct build *b)
{
	uint32_t r[4];

	host_leaf(b, 0, 0, r);
	return !b->v->amd && r[0] >= 0x1f;
}

static void build_basic(struct build *b)
{
	struct vcpu *v = b->v;
	bool avx = v->xcr0_mask & 4, avx512 = v->xcr0_mask & XCR0_AVX512_ONLY;
	uint32_t r[4], more[4] = {0};

	host_leaf(b, 0, 0, r);
	r[0] = has_1f(b) ? 0x1f : 0xd;
	add(v, 0, 0, r);
	host_leaf(b, 1, 0, r);
	r[1] = (r[1] & 0xffff) | socket_ids(b) << 16 | v->apic_id << 24;
	r[2] = (r[2] & F1C_HOST) | F1C_OURS;
	if (!avx)
		r[2] &= ~(BIT(12) | BIT(28) | BIT(29));
	r[3] = (r[3] & F1D_HOST) | F1D_OURS | (in_socket(b) > 1 ? F1D_HTT : 0);
	add(v, 1, 0, r);
	if (!v->amd)
		add_values(v, 2, 0, 0x0000ff01, 0, 0, 0); /* leaf 4 tells the caches */
	add_values(v, 6, 0, BIT(2), 0, 0, 0);             /* the APIC timer never stops */
	host_leaf(b, 7, 0, r);
	if (r[0])
		host_leaf(b, 7, 1, more);
	more[0] &= (avx ? F71A_AVX : 0) | (avx512 ? F71A_AVX512 : 0);
	r[0] = !v->amd ? 2 : more[0] ? 1 : 0;
	r[1] = (r[1] & (F7B_HOST | (avx512 ? F7B_AVX512 : 0))) | F7B_OURS;
	r[2] = (r[2] & (F7C_HOST | (avx512 ? F7C_AVX512 : 0))) | F7C_OURS;
	r[3] = (r[3] & (F7D_HOST | (avx512 ? F7D_AVX512 : 0))) | (v->amd ? 0 : F7D_INTEL);
	if (!avx) {
		r[1] &= ~BIT(5);
		r[2] &= ~(BIT(9) | BIT(10));
	}
	add(v, 7, 0, r);
	if (more[0])
		add_values(v, 7, 1, more[0], 0, 0, 0);
	if (!v->amd)
		add_values(v, 7, 2, 0, 0, 0, F72D_INTEL);
}

static uint64_t cache_size(const uint32_t r[4])
{
	uint64_t line = (r[1] & 0xfff) + 1, parts = (r[1] >> 12 & 0x3ff) + 1, ways = (r[1] >> 22) + 1;

	return line * parts * ways * ((uint64_t)r[2] + 1);
}

/*
 * The last level in proportion to the guest's memory, by fewer sets: the host's may be larger than all of it, and
 * programs size buffers by it.  At least as large as the level before.
 */
static void fit_cache(const struct build *b, uint64_t before, uint32_t r[4])
{
	uint64_t limit = b->v->vm->mem->size / CACHE_SHARE, sets = (uint64_t)r[2] + 1, set = cache_size(r) / sets;

	if (limit < before)
		limit = before;
	while (sets > 1 && set * sets > limit)
		sets /= 2;
	r[2] = (uint32_t)(sets - 1);
}

/* CPUs that share a cache: Intel counts APIC ids (a power of two), AMD CPUs. */
static uint32_t sharing(const struct build *b, unsigned level)
{
	if (b->v->amd)
		return level >= 3 ? in_socket(b) : b->topo.threads;
	return level >= 3 ? socket_ids(b) : 1u << topology_thread_bits(&b->topo);
}

/* Deterministic cache parameters (4 on Intel, 0x8000001d on AMD): the host's caches, our sharing. */
static void build_caches(struct build *b, uint32_t leaf)
{
	uint32_t r[4], sub;
	uint64_t before = 0;

	for (sub = 0; sub < 8; sub++) {
		uint32_t level;

		host_leaf(b, leaf, sub, r);
		if (!(r[0] & 31))
			break;
		level = (r[0] >> 5) & 7;
		if (level >= 3) {
			fit_cache(b, before, r);
			b->l3 = cache_size(r);
		}
		before = cache_size(r);
		r[0] = (r[0] & 0x3fff) | (sharing(b, level) - 1) << 14;
		if (leaf == 4)
			r[0] |= ((1u << topology_bits(b->topo.cores)) - 1) << 26;
		add(b->v, leaf, sub, r);
	}
	add_values(b->v, leaf, sub, 0, 0, 0, 0);
}

/* Extended topology (SDM 3A 8.9.1): threads, cores, and the end. */
static void build_levels(struct build *b, uint32_t leaf)
{
	struct vcpu *v = b->v;

	add_values(v, leaf, 0, topology_thread_bits(&b->topo), b->topo.threads, 0x100, v->apic_id);
	add_values(v, leaf, 1, topology_socket_shift(&b->topo), in_socket(b), 0x201, v->apic_id);
	add_values(v, leaf, 2, 0, 0, 2, v->apic_id);
}

/* Is all of AVX-512 switched on that guests are offered as one, and laid out within what we keep of it? */
static bool has_avx512(const struct build *b)
{
	static const uint16_t bytes[XS_COMPONENTS] = {[5] = 64, [6] = 512, [7] = 1024};
	uint32_t r[4];

	if ((b->from->xcr0 & XCR0_AVX512) != XCR0_AVX512)
		return false;
	host_leaf(b, 7, 0, r);
	if ((r[1] & F7B_V4) != F7B_V4 || !(r[1] & BIT(5)))
		return false;
	for (unsigned i = 5; i < XS_COMPONENTS; i++) {
		host_leaf(b, 0xd, i, r);
		if (r[0] != bytes[i] || r[1] < 832 || r[1] + r[0] > XS_ROOM)
			return false;
	}
	return true;
}

/* x87, SSE and AVX lie where they do on every CPU; the others where the host has them. */
static void build_layout(struct build *b)
{
	struct vcpu *v = b->v;
	uint32_t r[4];

	v->xs = (struct xsave_layout){{0, 160, 576}, {160, 256, v->xcr0_mask & 4 ? 256 : 0}, 0};
	for (unsigned i = 5; i < XS_COMPONENTS; i++) {
		if (!(v->xcr0_mask >> i & 1))
			continue;
		host_leaf(b, 0xd, i, r);
		v->xs.size[i] = (uint16_t)r[0];
		v->xs.off[i] = (uint16_t)r[1];
		v->xs.aligned |= (uint8_t)((r[2] >> 1 & 1) << i);
	}
}

static void build_xsave(struct build *b)
{
	struct vcpu *v = b->v;
	uint32_t r[4];

	build_layout(b);
	add_values(v, 0xd, 0, (uint32_t)v->xcr0_mask, 576, fpu_area_end(v, v->xcr0_mask, false), 0);
	host_leaf(b, 0xd, 1, r);
	v->xsave_caps = r[0] & XSAVE_CAPS;
	add_values(v, 0xd, 1, v->xsave_caps, 576, 0, 0);
	for (unsigned i = 2; i < XS_COMPONENTS; i++)
		if (v->xs.size[i])
			add_values(v, 0xd, i, v->xs.size[i], v->xs.off[i], (v->xs.aligned >> i & 1) << 1, 0);
}

static void build_hypervisor(struct build *b)
{
	struct vcpu *v = b->v;
	uint32_t khz = (uint32_t)(v->vm->tsc_hz / 1000);

	add_values(v, 0x40000000, 0, 0x40000010, 0x48585648, 0x56485856, 0x58564858); /* HVXHVXHVXHVX */
	add_values(v, 0x40000010, 0, khz, 0, 0, 0);
	if (khz == 0)
		return;
	add_values(v, CPUID_KVM_BASE, 0, CPUID_KVM_BASE + 1, 0x4b4d564b, 0x564b4d56, 0x4d); /* KVMKVMKVM\0\0\0 */
	add_values(v, CPUID_KVM_BASE + 1, 0, KVM_FEATURES, 0, 0, 0);
}

/* EDX of 0x80000006: the size in bits 31:18, in units of 512 KiB, in agreement with 0x8000001d. */
static uint32_t fit_amd_l3(const struct build *b, uint32_t edx)
{
	uint64_t size = b->l3 ? b->l3 : b->v->vm->mem->size / CACHE_SHARE;
	uint32_t units = edx >> 18, shown = (uint32_t)(size >> 19);

	if (units > shown)
		units = shown ? shown : 1;
	return (edx & 0x3ffff) | units << 18;
}

/*
 * Bits of a physical address: enough for twice the RAM, and 40 at least.  As many as the host's would be too many: OVMF maps
 * all that they can name in pages of 2 MiB, and fails where RAM is too small for such tables.
 */
static uint32_t phys_bits(struct build *b)
{
	uint64_t end = GMEM_HIGH_BASE + b->v->vm->mem->size;
	uint32_t r[4], bits = 40;

	host_leaf(b, 0x80000008, 0, r);
	while (end > 1ull << (bits - 1))
		bits++;
	return bits < (r[0] & 0xff) ? bits : r[0] & 0xff;
}

static void build_extended(struct build *b)
{
	struct vcpu *v = b->v;
	uint32_t r[4], one[4], max = v->amd ? 0x80000021 : 0x80000008;

	host_leaf(b, 0x80000000, 0, r);
	r[0] = max;
	add(v, 0x80000000, 0, r);
	host_leaf(b, 1, 0, one);
	host_leaf(b, 0x80000001, 0, r);
	r[2] &= FXC_HOST;
	r[3] = (r[3] & FXD_HOST & (v->amd ? ~0u : 0)) | FXD_OURS;
	if (v->amd) {
		r[2] |= FXC_TOPOEXT | (in_socket(b) > 1 ? FXC_CMP_LEGACY : 0);
		r[3] |= ((one[3] & F1D_HOST) | F1D_OURS) & FXD_SHARED;
	}
	add(v, 0x80000001, 0, r);
	for (uint32_t leaf = 0x80000002; leaf <= 0x80000006; leaf++) {
		host_leaf(b, leaf, 0, r);
		if (leaf == 0x80000006 && v->amd)
			r[3] = fit_amd_l3(b, r[3]);
		add(v, leaf, 0, r);
	}
	add_values(v, 0x80000007, 0, 0, 0, 0, BIT(8)); /* invariant TSC */
	host_leaf(b, 0x80000008, 0, r);
	r[0] = phys_bits(b) | 48 << 8;
	r[1] = v->amd ? (r[1] & F8B_HOST) | F8B_OURS : 0;
	r[2] = v->amd ? (in_socket(b) - 1) | topology_socket_shift(&b->topo) << 12 : 0;
	r[3] = 0;
	add(v, 0x80000008, 0, r);
}

static void build_amd(struct build *b)
{
	struct vcpu *v = b->v;
	uint32_t r[4], max[4];

	host_leaf(b, 0x80000000, 0, max);
	if (max[0] >= 0x8000001a) {
		host_leaf(b, 0x8000001a, 0, r);
		add(v, 0x8000001a, 0, r);
	}
	add_values(v, 0x8000001e, 0, v->apic_id,
		   (v->apic_id & (socket_ids(b) - 1)) >> topology_thread_bits(&b->topo) | (b->topo.threads - 1) << 8,
		   v->apic_id >> topology_socket_shift(&b->topo), 0); /* core, threads a core, node */
	r[0] = 0;
	if (max[0] >= 0x80000021)
		host_leaf(b, 0x80000021, 0, r);
	add_values(v, 0x80000021, 0, (r[0] & F21A_HOST) | F21A_OURS, 0, F21C_OURS, 0);
}

/* MXCSR bits the host has, from where fxsave says so. */
static uint32_t host_mxcsr_mask(struct vcpu *v)
{
	uint8_t area[512] __attribute__((aligned(16)));
	uint32_t mask;

	__asm__ volatile("fxsave64 (%0)" : : "r"(area) : "memory");
	mask = *(uint32_t *)(void *)(area + 28);
	return mask ? mask : 0xffbf;
}

static void derive(struct build *b)
{
	struct vcpu *v = b->v;
	uint32_t bits = phys_bits(b);

	v->phys_rsvd = bits >= 52 ? 0 : 0x000fffffffffffffull & ~((1ull << bits) - 1);
	v->mxcsr_mask = host_mxcsr_mask(v);
	v->cr4_mask = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE | CR4_PCE |
		      CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_UMIP | CR4_FSGSBASE | CR4_PCIDE | CR4_OSXSAVE | CR4_SMEP |
		      CR4_SMAP;
}

/* The caches come first: other leaves repeat what they say. */
static void build_vendor_caches(struct build *b)
{
	uint32_t max[4];

	host_leaf(b, 0x80000000, 0, max);
	if (!b->v->amd)
		build_caches(b, 4);
	else if (max[0] >= 0x8000001d)
		build_caches(b, 0x8000001d);
}

void cpuid_build_from(struct vcpu *v, const struct cpuid_source *from)
{
	struct build b = {.v = v, .from = from, .topo = vm_topology(v->vm)};
	uint32_t r[4];

	v->n_cpuid = 0;
	host_leaf(&b, 0, 0, r);
	v->amd = r[1] == 0x68747541 || r[1] == 0x6f677948; /* "Auth"enticAMD, "Hygo"nGenuine */
	v->xcr0_mask = (from->xcr0 & 7) | (has_avx512(&b) ? XCR0_AVX512_ONLY : 0);
	build_basic(&b);
	build_vendor_caches(&b);
	build_levels(&b, 0xb);
	if (has_1f(&b))
		build_levels(&b, 0x1f);
	build_xsave(&b);
	build_hypervisor(&b);
	build_extended(&b);
	if (v->amd)
		build_amd(&b);
	derive(&b);
}

static void from_cpu(const struct cpuid_source *s, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	(void)s;
	cpuid_host(leaf, subleaf, r);
}

void cpuid_build(struct vcpu *v)
{
	cpuid_build_from(v, &(struct cpuid_source){.leaf = from_cpu, .xcr0 = host_xcr0()});
}

static bool has_subleaves(uint32_t leaf)
{
	return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x1f || leaf == 0x8000001d;
}

/* What depends on the CPU's state. */
static void adjust(struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	uint64_t base;

	if (leaf == 1) {
		if (v->cr4 & CR4_OSXSAVE)
			r[2] |= F1C_OSXSAVE;
		if (platform_apic_rdmsr(v->vm->plat, v, 0x1b, &base) == 0 && !(base & BIT(11)))
			r[3] &= ~F1D_APIC;
	} else if (leaf == 0xd && subleaf <= 1) {
		r[1] = fpu_area_end(v, v->xcr0, subleaf == 1);
	} else if (leaf == 0x80000001 && !v->amd && !in_code64(v)) {
		r[3] &= ~FXD_SYSCALL;
	}
}

void cpuid_query(struct vcpu *v, uint32_t leaf, uint32_t subleaf, uint32_t r[4])
{
	r[0] = r[1] = r[2] = r[3] = 0;
	if ((leaf == 0xb || (leaf == 0x1f && v->cpuid[0].eax >= 0x1f)) &&
	    subleaf > 2) { /* levels that do not exist still tell the APIC ID */
		r[2] = subleaf & 0xff;
		r[3] = v->apic_id;
	}
	for (uint32_t i = 0; i < v->n_cpuid; i++) {
		const struct cpuid_entry *e = &v->cpuid[i];

		if (e->leaf != leaf || (has_subleaves(leaf) && e->subleaf != subleaf))
			continue;
		r[0] = e->eax;
		r[1] = e->ebx;
		r[2] = e->ecx;
		r[3] = e->edx;
		adjust(v, leaf, subleaf, r);
		return;
	}
}

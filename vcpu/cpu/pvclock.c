/*
 * The paravirtual clock: a structure in guest memory from which a guest
 * computes nanoseconds out of its TSC, after KVM's published interface.
 *
 * Invariant: system time is the host TSC in nanoseconds for every vCPU, so the
 * clocks of all vCPUs agree and never go backwards: the stable flag is true.
 */
#include "vcpu/cpu/pvclock.h"

#include "vcpu/mmu/mmu.h"

#define NS 1000000000ull

static uint64_t host_tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

struct scale {
	uint32_t mul; /* ns = (tsc << shift) * mul >> 32 */
	int8_t shift;
};

static struct scale scale_of(uint64_t hz)
{
	struct scale s = {0, 0};

	while (hz > 2 * NS) {
		hz >>= 1;
		s.shift--;
	}
	while (hz <= NS) {
		hz <<= 1;
		s.shift++;
	}
	s.mul = (uint32_t)((NS << 32) / hz);
	return s;
}

static uint64_t tsc_to_ns(const struct scale *s, uint64_t tsc)
{
	unsigned __int128 t = tsc;

	t = s->shift < 0 ? t >> -s->shift : t << s->shift;
	return (uint64_t)(t * s->mul >> 32);
}

struct time_info { /* 32 bytes, as the interface lays it out */
	uint32_t version, pad0;
	uint64_t tsc_timestamp, system_time;
	uint32_t mul;
	int8_t shift;
	uint8_t flags, pad[2];
};
_Static_assert(sizeof(struct time_info) == 32, "layout is the interface's");

struct wall_clock {
	uint32_t version, sec, nsec;
};

#define TIME_STABLE 1u
#define MSR_ENABLE  1ull

/* The same moment for all CPUs: of two, rounding would make clocks that are a nanosecond or two apart. */
static uint64_t reference(struct vm *vm)
{
	uint64_t none = 0, now = host_tsc();

	return atomic_compare_exchange_strong(&vm->pvclock_tsc, &none, now) ? now : none;
}

void pvclock_refresh(struct vcpu *v)
{
	uint64_t gpa = v->pv_time_msr & ~MSR_ENABLE, now;
	struct time_info t = {.flags = TIME_STABLE};
	struct scale s;
	uint32_t odd;

	if (!(v->pv_time_msr & MSR_ENABLE) || v->vm->tsc_hz == 0)
		return;
	now = reference(v->vm);
	s = scale_of(v->vm->tsc_hz);
	phys_read(v, gpa, &t.version, 4);
	odd = t.version | 1;
	t.version = odd + 1;
	t.tsc_timestamp = now + v->tsc_offset;
	t.system_time = tsc_to_ns(&s, now);
	t.mul = s.mul;
	t.shift = s.shift;
	phys_write(v, gpa, &odd, 4); /* odd: being changed */
	phys_write(v, gpa + 4, &t.pad0, sizeof(t) - 4);
	phys_write(v, gpa, &t.version, 4);
}

int pvclock_set_time(struct vcpu *v, uint64_t val)
{
	if (v->vm->tsc_hz == 0 || ((val & MSR_ENABLE) && (val & 2)))
		return -1;
	v->pv_time_msr = val;
	pvclock_refresh(v);
	return 0;
}

int pvclock_set_wall(struct vcpu *v, uint64_t val)
{
	struct wall_clock w = {.version = 2};
	struct timespec now;
	struct scale s;
	uint64_t ns;

	if (v->vm->tsc_hz == 0 || (val & 3))
		return -1;
	v->pv_wall_msr = val;
	s = scale_of(v->vm->tsc_hz);
	vcpu_fpu_out(v); /* the C library may use vector registers */
	clock_gettime(CLOCK_REALTIME, &now);
	ns = (uint64_t)now.tv_sec * NS + (uint64_t)now.tv_nsec - tsc_to_ns(&s, host_tsc());
	w.sec = (uint32_t)(ns / NS);
	w.nsec = (uint32_t)(ns % NS);
	phys_write(v, val, &w, sizeof(w));
	return 0;
}

/*
 * Counting.  A form counts as tested when a case of it reached the stop address
 * or faulted as the host did.
 *
 * Invariant: cases = equal + mismatched; skipped ones are counted apart.
 */
#include "tally.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "report.h"

#include "isa.h"

#define SEQ_FAILURES 200

int tally_init(struct tally *t, const struct forms *forms)
{
	t->forms = forms;
	t->f[0] = calloc(forms[0].n + 1, sizeof *t->f[0]);
	t->f[1] = calloc(forms[1].n + 1, sizeof *t->f[1]);
	t->seq = calloc(SEQ_FAILURES, sizeof *t->seq);
	return t->f[0] && t->f[1] && t->seq ? 0 : -1;
}

static unsigned brief(const struct result *r, char *buf, unsigned size)
{
	static const char *const name[] = {"died", "stop", "fault", "timeout", "odd"};

	if (r->outcome != OUT_FAULT)
		return (unsigned)snprintf(buf, size, "%s", name[r->outcome]);
	if (r->vector == 14)
		return (unsigned)snprintf(buf, size, "#14/%x at %llx", r->error, (unsigned long long)r->cr2);
	return (unsigned)snprintf(buf, size, "#%u/%x", r->vector, r->error);
}

static void note_bad(struct tally_form *f, const struct batch *b, uint32_t k, uint64_t id, uint32_t diff)
{
	const struct test *test = &b->test[b->tc[k].test];
	uint64_t at = test->start, n_rip = b->native.out[k].st.rip, e_rip = b->engine.out[k].st.rip;
	unsigned n;

	if (test->flags & TEST_SEQ)
		at = e_rip < n_rip ? e_rip : n_rip;
	f->diff |= diff;
	if (f->bad++)
		return;
	f->first = id;
	report_insn(b, test, at, f->text, sizeof f->text / 2);
	n = (unsigned)strlen(f->text);
	n += (unsigned)snprintf(f->text + n, sizeof f->text - n, " | host ");
	n += brief(&b->native.out[k], f->text + n, (unsigned)sizeof f->text - n);
	n += (unsigned)snprintf(f->text + n, sizeof f->text - n, " engine ");
	brief(&b->engine.out[k], f->text + n, (unsigned)sizeof f->text - n);
}

void tally_case(struct tally *t, const struct batch *b, const struct forms *fs, uint32_t k, uint64_t id, uint32_t diff)
{
	const struct test *test = &b->test[b->tc[k].test];
	struct tally_form *f = &t->f[fs->bits32][test->form];

	if (diff & DIFF_SKIP) {
		t->skipped++;
		return;
	}
	t->cases++;
	t->bad += diff != 0;
	if (b->native.out[k].outcome == OUT_FAULT) {
		t->faults++;
		t->by_vector[b->native.out[k].vector & 31]++;
	}
	if (test->flags & TEST_SEQ) {
		t->seq_cases++;
		t->seq_bad += diff != 0;
		if (diff && t->nseq < SEQ_FAILURES)
			note_bad(&t->seq[t->nseq++], b, k, id, diff);
		return;
	}
	f->cases++;
	if (diff)
		note_bad(f, b, k, id, diff);
}

static void write_form(FILE *out, const struct form *form, const struct tally_form *f, uint64_t seed, int kinds,
		       int bits32)
{
	char name[96], names[96];

	forms_name(form, name, sizeof name);
	compare_names(f->diff, names, sizeof names);
	fprintf(out, "%5u of %5u  %-36s %-20s %s | --seed=%llu --kinds=%d --case=%llu%s\n", f->bad, f->cases, name,
		names, f->text, (unsigned long long)seed, kinds, (unsigned long long)f->first,
		bits32 ? " (32-bit)" : "");
}

static int by_bad(const void *a, const void *b)
{
	const struct tally_form *x = *(const struct tally_form *const *)a, *y = *(const struct tally_form *const *)b;

	return (y->bad > x->bad) - (y->bad < x->bad);
}

static void write_mode(const struct tally *t, FILE *out, int m, uint64_t seed, int kinds)
{
	const struct tally_form **p = calloc(t->forms[m].n + 1, sizeof *p);
	uint32_t n = 0;

	for (uint32_t i = 0; p && i < t->forms[m].n; i++)
		if (t->f[m][i].bad)
			p[n++] = &t->f[m][i];
	if (n)
		qsort(p, n, sizeof *p, by_bad);
	fprintf(out, "# %s-bit code: %u forms with mismatches\n", m ? "32" : "64", n);
	for (uint32_t i = 0; i < n; i++)
		write_form(out, &t->forms[m].f[p[i] - t->f[m]], p[i], seed, kinds, m);
	free(p);
}

void tally_write(const struct tally *t, const char *path, uint64_t seed, int kinds)
{
	FILE *out = fopen(path, "w");
	char names[96];

	if (!out) {
		perror(path);
		return;
	}
	write_mode(t, out, 0, seed, kinds);
	write_mode(t, out, 1, seed, kinds);
	fprintf(out, "# sequences: %llu mismatches\n", (unsigned long long)t->seq_bad);
	for (uint32_t i = 0; i < t->nseq; i++) {
		compare_names(t->seq[i].diff, names, sizeof names);
		fprintf(out, "sequence %-20s %s | --seed=%llu --kinds=%d --case=%llu\n", names, t->seq[i].text,
			(unsigned long long)seed, kinds, (unsigned long long)t->seq[i].first);
	}
	fclose(out);
}

int tally_close(const struct tally *t, uint32_t native_deaths, uint32_t engine_deaths)
{
	uint32_t forms = 0, bad_forms = 0;

	for (int m = 0; m < 2; m++)
		for (uint32_t i = 0; i < t->forms[m].n; i++) {
			forms += t->f[m][i].cases != 0;
			bad_forms += t->f[m][i].bad != 0;
		}
	printf("insn-diff: faults by vector:");
	for (int i = 0; i < 32; i++)
		if (t->by_vector[i])
			printf(" #%d %llu", i, (unsigned long long)t->by_vector[i]);
	printf("\ninsn-diff: %llu cases (%llu of sequences, %llu ending in a fault), %u forms, %llu mismatches in %u forms and %llu "
	       "sequences, %llu skipped, %u native and %u engine deaths, on a CPU of %s\n",
	       (unsigned long long)t->cases, (unsigned long long)t->seq_cases, (unsigned long long)t->faults, forms,
	       (unsigned long long)t->bad, bad_forms, (unsigned long long)t->seq_bad, (unsigned long long)t->skipped,
	       native_deaths, engine_deaths, isa_host_is_amd() ? "AMD's" : "Intel's");
	return t->bad || !t->cases ? 1 : 0;
}

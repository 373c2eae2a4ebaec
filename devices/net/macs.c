/*
 * Learning by source addresses (IEEE 802.1Q 8.7), with two things that bridges do not do: a port has an address of its own
 * that nobody else can send from, and a learned one cannot be taken over by another port until it is forgotten.
 *
 * Invariant: an address is in the table at most once, and no port has more than MACS_LEARNED beside its own.
 */
#include "devices/net/macs.h"

#include <string.h>

void macs_init(struct macs *t, uint64_t ageing, bool strict)
{
	memset(t, 0, sizeof *t);
	t->ageing = ageing;
	t->strict = strict;
	for (unsigned i = 1; i <= MACS_MAX; i++)
		t->e[i].next = (uint16_t)(i < MACS_MAX ? i + 1 : 0);
	t->free = 1;
}

static uint16_t *bucket(struct macs *t, const uint8_t mac[6])
{
	uint32_t h = 0x811c9dc5;

	for (int i = 0; i < 6; i++)
		h = (h ^ mac[i]) * 0x01000193; /* FNV-1a */
	return &t->bucket[(h ^ h >> 16) % MACS_BUCKETS];
}

/* Where the entry's index stands: a bucket, or an entry's @next. */
static uint16_t *find(struct macs *t, const uint8_t mac[6])
{
	uint16_t *p = bucket(t, mac);

	while (*p && memcmp(t->e[*p].mac, mac, 6))
		p = &t->e[*p].next;
	return p;
}

static void drop(struct macs *t, uint16_t *p)
{
	uint16_t i = *p;
	struct mac_entry *e = &t->e[i];

	if (!e->own)
		t->learned[e->port]--;
	*p = e->next;
	e->next = t->free;
	t->free = i;
}

static bool is_old(const struct macs *t, const struct mac_entry *e, uint64_t now)
{
	return !e->own && now - e->seen >= t->ageing;
}

/* There is always a free entry: each port's are counted. */
static void add(struct macs *t, const uint8_t mac[6], unsigned port, bool own, uint64_t now)
{
	uint16_t i = t->free, *b = bucket(t, mac);
	struct mac_entry *e = &t->e[i];

	t->free = e->next;
	*e = (struct mac_entry){.port = (uint8_t)port, .own = own, .seen = now, .next = *b};
	memcpy(e->mac, mac, 6);
	*b = i;
	if (!own)
		t->learned[port]++;
}

static bool is_station(const uint8_t mac[6])
{
	static const uint8_t zero[6];

	return !(mac[0] & 1) && memcmp(mac, zero, 6);
}

bool macs_own(struct macs *t, const uint8_t mac[6], unsigned port)
{
	uint16_t *p = find(t, mac);

	if (!is_station(mac) || (*p && t->e[*p].own))
		return false;
	if (*p)
		drop(t, p);
	add(t, mac, port, true, 0);
	return true;
}

static void forget_old(struct macs *t, unsigned port, uint64_t now)
{
	for (unsigned b = 0; b < MACS_BUCKETS; b++)
		for (uint16_t *p = &t->bucket[b]; *p;) {
			struct mac_entry *e = &t->e[*p];
			if (e->port == port && is_old(t, e, now))
				drop(t, p);
			else
				p = &e->next;
		}
}

bool macs_source(struct macs *t, const uint8_t mac[6], unsigned port, uint64_t now)
{
	uint16_t *p = find(t, mac);

	if (*p && is_old(t, &t->e[*p], now)) {
		drop(t, p);
		p = find(t, mac);
	}
	if (*p) {
		bool here = t->e[*p].port == port;
		if (here)
			t->e[*p].seen = now;
		return here;
	}
	if (t->strict || !is_station(mac))
		return false;
	if (t->learned[port] == MACS_LEARNED)
		forget_old(t, port, now);
	if (t->learned[port] == MACS_LEARNED)
		return false;
	add(t, mac, port, false, now);
	return true;
}

int macs_find(struct macs *t, const uint8_t mac[6], uint64_t now)
{
	uint16_t *p = find(t, mac);

	if (*p && is_old(t, &t->e[*p], now)) {
		drop(t, p);
		return -1;
	}
	return *p ? t->e[*p].port : -1;
}

void macs_forget(struct macs *t, unsigned port)
{
	for (unsigned b = 0; b < MACS_BUCKETS; b++)
		for (uint16_t *p = &t->bucket[b]; *p;) {
			if (t->e[*p].port == port)
				drop(t, p);
			else
				p = &t->e[*p].next;
		}
}

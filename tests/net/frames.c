/* Frames for tests: see frames.h. */
#include "tests/net/frames.h"

#include <string.h>

static void be16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void be32(uint8_t *p, uint32_t v)
{
	be16(p, v >> 16);
	be16(p + 2, v & 0xffff);
}

static unsigned rd16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

/* RFC 1071, the slow way: one word after the other. */
static unsigned sum16(unsigned sum, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		sum += i & 1 ? p[i] : (unsigned)p[i] << 8;
		while (sum > 0xffff)
			sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

static unsigned pseudo(const uint8_t *ip, unsigned proto, size_t len)
{
	uint8_t tail[8] = {0};
	unsigned s = ip[0] >> 4 == 6 ? sum16(0, ip + 8, 32) : sum16(0, ip + 12, 8);

	be32(tail, (uint32_t)len);
	tail[7] = (uint8_t)proto;
	return sum16(s, tail, 8);
}

static size_t ether(uint8_t *b, bool v6, bool vlan)
{
	static const uint8_t macs[12] = {0x52, 0x54, 0, 9, 9, 9, 0x52, 0x54, 0, 1, 2, 3};
	size_t n = 12;

	memcpy(b, macs, sizeof macs);
	if (vlan) {
		be16(b + n, 0x8100);
		be16(b + n + 2, 42);
		n += 4;
	}
	be16(b + n, v6 ? 0x86dd : 0x0800);
	return n + 2;
}

static size_t ipv4(uint8_t *ip, unsigned options, uint16_t id, unsigned proto, size_t len)
{
	static const uint8_t addr[8] = {10, 0, 2, 15, 10, 0, 2, 2};
	size_t n = 20 + options;

	memset(ip, 0, n);
	ip[0] = (uint8_t)(0x40 | n / 4);
	be16(ip + 2, (unsigned)(n + len));
	be16(ip + 4, id);
	ip[6] = 0x40;
	ip[8] = 64;
	ip[9] = (uint8_t)proto;
	memcpy(ip + 12, addr, 8);
	memset(ip + 20, 1, options); /* no operation */
	be16(ip + 10, ~sum16(0, ip, n) & 0xffff);
	return n;
}

static size_t ipv6(uint8_t *ip, unsigned ext, unsigned proto, size_t len)
{
	memset(ip, 0, 40 + ext);
	ip[0] = 0x60;
	be16(ip + 4, (unsigned)(ext + len));
	ip[6] = (uint8_t)(ext ? 60 : proto);
	ip[7] = 64;
	for (int i = 0; i < 32; i++)
		ip[8 + i] = (uint8_t)(0xfd + 7 * i);
	if (ext) {
		ip[40] = (uint8_t)proto;
		ip[41] = (uint8_t)(ext / 8 - 1);
		ip[42] = 1; /* padding */
		ip[43] = (uint8_t)(ext - 4);
	}
	return 40 + ext;
}

size_t frames_tcp(uint8_t *b, const struct tcp_spec *s, size_t *l4, size_t *payload)
{
	size_t hdr = 20 + s->tcp_options, l3 = ether(b, s->v6, s->vlan), at;

	at = l3 + (s->v6 ? ipv6(b + l3, s->ip_options, 6, hdr + s->data)
			 : ipv4(b + l3, s->ip_options, s->id, 6, hdr + s->data));
	uint8_t *t = b + at;
	memset(t, 0, hdr);
	be16(t, s->port ? s->port : 5201);
	be16(t + 2, 40000);
	be32(t + 4, s->seq);
	be32(t + 8, s->ack);
	t[12] = (uint8_t)(hdr / 4 << 4);
	t[13] = s->flags;
	be16(t + 14, 512);
	memset(t + 20, 1, s->tcp_options);
	for (size_t i = 0; i < s->data; i++)
		t[hdr + i] = (uint8_t)(s->fill + i + i / 251);
	be16(t + 16, ~sum16(pseudo(b + l3, 6, hdr + s->data), t, hdr + s->data) & 0xffff);
	if (l4)
		*l4 = at;
	if (payload)
		*payload = at + hdr;
	return at + hdr + s->data;
}

size_t frames_udp(uint8_t *b, uint16_t port, size_t data, uint8_t fill)
{
	size_t l3 = ether(b, false, false), at = l3 + ipv4(b + l3, 0, 7, 17, 8 + data);
	uint8_t *u = b + at;

	be16(u, port);
	be16(u + 2, 4000);
	be16(u + 4, (unsigned)(8 + data));
	be16(u + 6, 0);
	for (size_t i = 0; i < data; i++)
		u[8 + i] = (uint8_t)(fill + i);
	unsigned c = ~sum16(pseudo(b + l3, 17, 8 + data), u, 8 + data) & 0xffff;
	be16(u + 6, c ? c : 0xffff);
	return at + 8 + data;
}

static const char *wrong_l4(const uint8_t *ip, const uint8_t *p, unsigned proto, size_t len)
{
	if (proto == 17 && (len < 8 || rd16(p + 4) != len))
		return "UDP's length";
	if (proto == 6 && (len < 20 || p[12] >> 4 < 5 || 4u * (p[12] >> 4) > len))
		return "TCP's header length";
	return sum16(pseudo(ip, proto, len), p, len) == 0xffff ? NULL : "checksum of the transport";
}

const char *frames_wrong(const uint8_t *f, size_t len)
{
	size_t l3 = rd16(f + 12) == 0x8100 ? 18 : 14, at;
	const uint8_t *ip = f + l3;
	unsigned proto;

	if (rd16(ip - 2) == 0x86dd) {
		if (rd16(ip + 4) + 40u != len - l3)
			return "IPv6's length";
		proto = ip[6];
		at = 40;
		if (proto == 60) {
			proto = ip[at];
			at += 8u * (ip[at + 1] + 1u);
		}
	} else {
		at = 4u * (ip[0] & 15);
		proto = ip[9];
		if (rd16(ip + 2) != len - l3)
			return "IPv4's length";
		if (sum16(0, ip, at) != 0xffff)
			return "IPv4's checksum";
	}
	return wrong_l4(ip, ip + at, proto, len - l3 - at);
}

void frames_partial(uint8_t *f, size_t len, size_t l4, size_t at)
{
	size_t l3 = rd16(f + 12) == 0x8100 ? 18 : 14;

	be16(f + l4 + at, pseudo(f + l3, at == 16 ? 6 : 17, len - l4));
}

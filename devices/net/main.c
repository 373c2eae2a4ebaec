/*
 * hvx-net: one network card.  Invariant: after the final seal it holds one wire (a stream to passt, a tap, a place at a
 * switch) and can make no other descriptor.
 */
#include "devices/net/net.h"
#include "devices/net/seal.h"

int main(int argc, char **argv)
{
	static const struct net_backend *const backends[NET_BACKEND_COUNT] = {
		[NET_PASST] = &passt_backend, [NET_TAP] = &tap_backend, [NET_SWITCH] = &port_backend};
	static struct net n = {
		.d = {.child = {.program = "hvx-net", .role = ROLE_NET, .table = &net_seal}, .ops = &front_ops}};

	n.d.priv = &n;
	device_start(&n.d, argc, argv);
	n.be = backends[n.d.cfg.net.backend];
	front_init(&n);
	n.be->start(&n);
	return device_run(&n.d);
}

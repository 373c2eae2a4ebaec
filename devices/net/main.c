/*
 * hvx-net: one network card.  Invariant: after the final seal it holds one wire (a stream to passt, a tap, a place at a
 * switch) and can make no other descriptor.
 */
#include "common/err.h"
#include "devices/net/net.h"
#include "devices/net/seal.h"

int main(int argc, char **argv)
{
	static const struct net_backend *const backends[NET_BACKEND_COUNT] = {[NET_PASST] = &passt_backend};
	static struct net n = {
		.d = {.child = {.program = "hvx-net", .role = ROLE_NET, .table = &net_seal}, .ops = &front_ops}};

	n.d.priv = &n;
	device_start(&n.d, argc, argv);
	n.be = backends[n.d.cfg.net.backend];
	if (!n.be)
		child_fail(&n.d.child, HVX_EXIT_CONFIG, "this kind of back end is not served yet");
	front_init(&n);
	if (n.be->start)
		n.be->start(&n);
	return device_run(&n.d);
}

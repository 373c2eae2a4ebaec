/*
 * The control queue: by how many pairs the driver receives (virtio 1.2 5.1.6.5.5).
 *
 *   chain: class, command, data (readable) | ack (writable)
 *
 * Invariant: what is not understood is answered by an error and changes nothing.
 */
#include "devices/net/net.h"

enum { CTRL_MQ = 4, MQ_PAIRS_SET = 0 };
enum { ACK_OK, ACK_ERR };

static uint8_t obey(struct net *n)
{
	uint8_t b[4];

	if (n->chain.out_len != sizeof b || virtq_read(&n->chain, 0, b, sizeof b) != sizeof b)
		return ACK_ERR;
	unsigned pairs = b[2] | (unsigned)b[3] << 8;
	if (b[0] != CTRL_MQ || b[1] != MQ_PAIRS_SET || !pairs || pairs > n->npairs)
		return ACK_ERR;
	n->pairs = pairs;
	rx_anew(n);
	return ACK_OK;
}

/* False: there is none, or the driver broke the rules. */
static bool serve(struct net *n, unsigned q)
{
	struct virtq_chain *c = &n->chain;

	if (!virtio_dev_get(&n->d.v, q, c))
		return false;
	if (!c->in_len) {
		virtq_unget(&n->d.v.queue[q], c);
		virtio_dev_broken(&n->d.v, "a command without a place for the answer");
		return false;
	}
	uint8_t ack = obey(n);
	virtq_write(c, 0, &ack, 1);
	virtio_dev_wrote(&n->d.v, c->seg + c->nout, c->nin, 1);
	virtio_dev_put(&n->d.v, q, c->head, 1);
	return true;
}

void mq_work(struct net *n)
{
	const unsigned q = (unsigned)n->control;

	do {
		while (serve(n, q))
			;
		if (n->d.v.active)
			virtio_dev_publish(&n->d.v, 1u << q);
	} while (virtio_dev_ready(&n->d.v, q) && virtio_dev_listen(&n->d.v, q));
}

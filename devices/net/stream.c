/* Frames in a stream: see stream.h. */
#include "devices/net/stream.h"

#include <errno.h>
#include <string.h>

#include "devices/net/frame.h"

int stream_peek(const struct stream *s, uint8_t **p, uint32_t *len)
{
	const uint8_t *b = s->buf + s->head;
	size_t have = s->tail - s->head;

	if (have < STREAM_PREFIX)
		return 0;
	uint32_t n = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
	if (n < FRAME_ETH || n > STREAM_FRAME_MAX)
		return -EPROTO;
	if (have - STREAM_PREFIX < n)
		return 0;
	*p = s->buf + s->head + STREAM_PREFIX;
	*len = n;
	return 1;
}

void stream_take(struct stream *s, size_t bytes)
{
	s->head += bytes;
	if (s->head == s->tail)
		s->head = s->tail = 0;
}

size_t stream_room(struct stream *s)
{
	/* never more than was taken since the last time */
	if (s->size - s->tail < STREAM_PREFIX + STREAM_FRAME_MAX && s->head && s->head >= s->tail - s->head) {
		memmove(s->buf, s->buf + s->head, s->tail - s->head);
		s->tail -= s->head;
		s->head = 0;
	}
	return s->size - s->tail;
}

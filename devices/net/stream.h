/*
 * Frames in a stream of bytes: each behind its length, 32 bits, most significant byte first (as passt(1) and QEMU's
 * stream sockets have it).  Invariant: [head, tail) of the buffer are bytes received and not yet taken.
 */
#ifndef HVX_NET_STREAM_H
#define HVX_NET_STREAM_H

#include <stddef.h>
#include <stdint.h>

#define STREAM_PREFIX    4u
#define STREAM_FRAME_MAX 65535u

struct stream {
	uint8_t *buf;
	size_t size, head, tail; /* size: three frames of the largest or more */
};

/* The frame at the head: 1, *p and *len are set; 0 when it is not whole yet; -EPROTO when its length makes no sense. */
int stream_peek(const struct stream *s, uint8_t **p, uint32_t *len);
/* Whole frames at the head were taken: @bytes with their lengths. */
void stream_take(struct stream *s, size_t bytes);
/* Room for more at buf + tail; its size, 0 only while there are whole frames to take. */
size_t stream_room(struct stream *s);

#endif

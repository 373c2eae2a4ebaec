/*
 * Segments of one TCP stream, one after the other in a buffer, made one large frame to be segmented.
 * See merge.c.
 */
#ifndef HVX_NET_MERGE_H
#define HVX_NET_MERGE_H

#include "devices/net/frame.h"
#include "devices/net/stream.h"

struct merge {
	struct frame f;
	unsigned frames;   /* in it */
	uint32_t taken;    /* bytes of the stream behind the first of them; 0 when there is one only */
	uint8_t head[128]; /* headers */
	struct iovec rest[FRAME_REST_MAX];
};

/*
 * Looks at the frame at the head of the stream, which is whole (@data, @len), and at those behind it.  True: m->f is a frame to be
 * segmented that stands for m->frames of them, @takes permitting.  The stream is not changed; the pieces lie in it.
 */
bool merge_frames(struct merge *m, const struct stream *s, uint8_t *data, uint32_t len, unsigned takes);

#endif

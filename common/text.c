/*
 * The one cleaner of text.  Invariant: what comes out is printable ASCII, so no
 * terminal, pager or JSON reader sees a control character, a C1 control of whatever
 * encoding, or a character that turns the line around.
 */
#include "common/text.h"

#include <string.h>

static bool plain(char c)
{
	return c >= ' ' && c <= '~';
}

size_t text_clean(char *dst, size_t room, const char *src, size_t n)
{
	static const char hex[] = "0123456789abcdef";
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)src[i];
		if (at + (plain(src[i]) ? 1 : 4) >= room)
			break;
		if (plain(src[i])) {
			dst[at++] = src[i];
			continue;
		}
		dst[at++] = '\\';
		dst[at++] = 'x';
		dst[at++] = hex[c >> 4];
		dst[at++] = hex[c & 15];
	}
	dst[at] = '\0';
	return at;
}

bool text_is_clean(const char *s)
{
	for (; *s; s++)
		if (!plain(*s))
			return false;
	return true;
}

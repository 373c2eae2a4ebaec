/*
 * Text that somebody else may have chosen, made fit for a terminal, a log or a
 * message.  See text.c.
 */
#ifndef HVX_TEXT_H
#define HVX_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Copies @n bytes of @src: printable ASCII as it is, every other byte as \xNN.  What does not fit in @room, with the
 * terminating zero, is cut, never within an escape.  Returns the length.  @room must not be 0. */
size_t text_clean(char *dst, size_t room, const char *src, size_t n);

/* Is every byte of @s one that text_clean() leaves alone? */
bool text_is_clean(const char *s);

#endif

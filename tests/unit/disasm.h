/* Emitted code as stable text: fields of struct vcpu and labels instead of addresses. */
#ifndef HVX_TESTS_DISASM_H
#define HVX_TESTS_DISASM_H

#include <stdio.h>

#include "vcpu/bt/bt.h"

/* Host code [from, to) of block @b, offsets from bt->rx; labels are numbered over the whole block. */
void disasm_host(FILE *f, const struct bt *bt, const struct block *b, uint32_t from, uint32_t to);
/* One guest instruction at @bytes for code of 4 or 8 bytes' size: its text into @buf, its length. */
unsigned disasm_guest(char *buf, size_t size, const uint8_t *bytes, size_t len, unsigned code_size, uint64_t gva);

#endif

/*
 * A machine of 8 MiB for tests of the real engine: page tables that map RAM one
 * to one for user and supervisor, one vcpu, the platform; no guest software.
 */
#ifndef HVX_TESTS_BTVM_H
#define HVX_TESTS_BTVM_H

#include "common/gmem.h"
#include "vcpu/bt/bt.h"
#include "vcpu/vcpu.h"

#define BTVM_RAM   (8u << 20)
#define BTVM_CODE  0x400000ull /* tests put their code here */
#define BTVM_DATA  0x500000ull
#define BTVM_LARGE 0x40000000ull         /* 2 MiB page onto [4 MiB, 6 MiB) */
#define BTVM_GIGA  0x80000000ull         /* 1 GiB page onto [0, 1 GiB) */
#define BTVM_KERN  0xffff800000000000ull /* global 4 KiB pages, supervisor: BTVM_DATA's first 16 */

/* The same vcpu each time: registers zero, CPL 3, 64-bit code, nothing translated, TLBs empty. */
struct vcpu *btvm_reset(void);
/* A guest kernel has its window from now on (mmu/window.h), or, with @on false, none. */
void btvm_window(struct vcpu *v, bool on);
/* The privilege level and code size of what runs next; flat segments. */
void btvm_mode(struct vcpu *v, unsigned cpl, unsigned code_size);
/* Writes RAM and drops what was translated from it. */
void btvm_put(struct vcpu *v, uint64_t gpa, const void *buf, size_t len);
/* Bytes written as hex digits with blanks between; their number. */
size_t btvm_hex(const char *hex, uint8_t *buf, size_t max);
/* The page table entry that maps a 4 KiB page at @gva; made if need be. */
uint64_t *btvm_pte(uint64_t gva);
/* Translates @hex at @gva (mapped one to one) in @mode. */
uint32_t btvm_translate(struct vcpu *v, uint64_t gva, uint32_t mode, const char *hex);
uint32_t btvm_translate_at(struct vcpu *v, uint64_t gpa, uint32_t mode); /* bt_translate() of what is there */

#endif

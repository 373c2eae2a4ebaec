/* The table of instruction forms, found by walking the opcode space. */
#ifndef HVX_INSN_FORMS_H
#define HVX_INSN_FORMS_H

#include <Zydis/Zydis.h>
#include <stdint.h>

enum form_prefix { FP_NONE, FP_66, FP_F3, FP_F2 };

struct form {
	uint8_t vex; /* 0 legacy, 1 VEX, 2 EVEX */
	uint8_t map; /* 0 one byte, 1 0F, 2 0F38, 3 0F3A */
	uint8_t opcode;
	uint8_t prefix;  /* enum form_prefix */
	uint8_t w, l, b; /* b: of EVEX */
	uint8_t has_modrm, mem, vsib, faults;
	uint8_t opsize[2]; /* bytes of the first two operands */
	uint16_t mnemonic;
	uint64_t combos; /* with mem: bit per ModRM.reg; without: bit per reg * 8 + rm; that decode to this form */
};

struct forms {
	struct form *f;
	uint32_t n;
	ZydisDecoder dec;
	int bits32;
};

/* Builds the table for 64-bit code, or for 32-bit code.  0, or -1 when out of memory. */
int forms_build(struct forms *t, int bits32);

/* A form's short name, for reports. */
void forms_name(const struct form *f, char *buf, unsigned size);

#endif

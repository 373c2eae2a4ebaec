/*
 * The x87 instruction and data pointers as the guest may see them.
 *
 * x87 instructions run at host addresses, so the registers name those.  What a guest loads is kept in vcpu.x87 and the
 * registers get a mark instead; a save that finds the mark gives back what the guest loaded, for no x87 instruction has run
 * since; any other value is the engine's own and is stored as zero.
 */
#ifndef HVX_CPU_FPU_H
#define HVX_CPU_FPU_H

#include <stdbool.h>

#include "vcpu/vcpu.h"

#define FPU_MARK 1u /* no instruction's address */

/* Legacy area of an fxsave or xsave image: where FOP and the pointers are. */
enum { FX_FOP = 6, FX_FIP = 8, FX_FCS = 12, FX_FDP = 16, FX_FDS = 20, FX_POINTERS = 16 };

#define FX_AREA 512 /* bytes of an fxsave image; the header of xsave is behind it */

/*
 * Bytes up to the end of the last of @components (bits as in XCR0) in an area of the standard or of the compacted format, and where
 * component @which of an area with @components begins (SDM 1 13.4.2, 13.4.3).
 */
unsigned fpu_area_end(const struct vcpu *v, uint64_t components, bool compact);
unsigned fpu_component_at(const struct vcpu *v, uint64_t components, bool compact, unsigned which);

/* Before loading @fx (@wide: its pointers have 64 bits): keeps the guest's pointers and puts the mark in their place. */
void fpu_pointers_in(struct vcpu *v, uint8_t *fx, bool wide);

/* Before saving into @fx: prepares the pointers' place, so that fpu_pointers_out() can tell whether the CPU wrote there. */
void fpu_pointers_prepare(uint8_t *fx);

/* After saving into @fx: the guest's pointers, zeros, or @old's where the CPU left them alone (AMD's do without an exception). */
void fpu_pointers_out(const struct vcpu *v, uint8_t *fx, const uint8_t *old, bool wide);

/* The same for the environment of fnstenv and fnsave, fldenv and frstor, in its 28-byte form. */
void fpu_env_in(struct vcpu *v, uint32_t env[7]);
void fpu_env_out(const struct vcpu *v, uint32_t env[7]);

#endif

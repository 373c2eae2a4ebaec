/*
 * Between C and translated code.
 *
 * bt_enter(v, host) runs from @host until something returns NULL or a kick is
 * found.  In translated code rsp is the guest's.  The thread's pointer is what
 * it is in C: struct vcpu is found in the thread's storage, whatever segment
 * translated code reaches it by.  All guest state goes in and out through struct
 * vcpu: regs[] and flags on the way in, host_regs[] and host_flags on the way
 * out (what is spilled is already in regs[]).
 */
#include "vcpu/bt/offsets.h"

	.section .tbss, "awT", @nobits
	.balign 8
glue_self:	.zero 8 /* this thread's struct vcpu */
glue_save:	.zero 8
glue_to:	.zero 8 /* where to go on */

	.text

	/* void glue_set_self(struct vcpu *v) */
	.globl glue_set_self
	.type glue_set_self, @function
glue_set_self:
	movq %rdi, %fs:glue_self@tpoff
	ret
	.size glue_set_self, . - glue_set_self

	/* Everything translated code holds -> host_regs[], host_flags.  Ends on the engine's stack, rdi = v. */
	.macro SAVE_ALL
	movq %rax, %fs:glue_save@tpoff
	movq %fs:glue_self@tpoff, %rax
	movq %rcx, (V_HOST_REGS + 8)(%rax)
	movq %rdx, (V_HOST_REGS + 16)(%rax)
	movq %rbx, (V_HOST_REGS + 24)(%rax)
	movq %rsp, (V_HOST_REGS + 32)(%rax)
	movq %rbp, (V_HOST_REGS + 40)(%rax)
	movq %rsi, (V_HOST_REGS + 48)(%rax)
	movq %rdi, (V_HOST_REGS + 56)(%rax)
	movq %r8, (V_HOST_REGS + 64)(%rax)
	movq %r9, (V_HOST_REGS + 72)(%rax)
	movq %r10, (V_HOST_REGS + 80)(%rax)
	movq %r11, (V_HOST_REGS + 88)(%rax)
	movq %r12, (V_HOST_REGS + 96)(%rax)
	movq %r13, (V_HOST_REGS + 104)(%rax)
	movq %r14, (V_HOST_REGS + 112)(%rax)
	movq %r15, (V_HOST_REGS + 120)(%rax)
	movq %rax, %rdi
	movq %fs:glue_save@tpoff, %rcx
	movq %rcx, (V_HOST_REGS + 0)(%rdi)
	lahf
	seto %al
	movw %ax, V_HOST_FLAGS(%rdi)
	movq V_ENGINE_SP(%rdi), %rsp
	cld
	.endm

	/* Flags out of @from, a word in the format of vcpu.flags; rdi = v. */
	.macro LOAD_FLAGS from
	cmpb $0, V_DF(%rdi)
	je 1f
	std
1:	movzwl \from(%rdi), %eax
	addb $0x7f, %al
	sahf
	.endm

	/* All registers but rsp and rdi out of @from; rdi = v. */
	.macro LOAD_REGS from
	movq (\from + 0)(%rdi), %rax
	movq (\from + 8)(%rdi), %rcx
	movq (\from + 16)(%rdi), %rdx
	movq (\from + 24)(%rdi), %rbx
	movq (\from + 40)(%rdi), %rbp
	movq (\from + 48)(%rdi), %rsi
	movq (\from + 64)(%rdi), %r8
	movq (\from + 72)(%rdi), %r9
	movq (\from + 80)(%rdi), %r10
	movq (\from + 88)(%rdi), %r11
	movq (\from + 96)(%rdi), %r12
	movq (\from + 104)(%rdi), %r13
	movq (\from + 112)(%rdi), %r14
	movq (\from + 120)(%rdi), %r15
	.endm

	.globl bt_enter
	.type bt_enter, @function
bt_enter:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	subq $8, %rsp
	movq %rsp, V_ENGINE_SP(%rdi)
	movq %rsi, %fs:glue_to@tpoff

	/* A kick between here and the jump goes to glue_abort (the signal handler sees to it). */
	.globl glue_load_begin, glue_load_end, glue_abort
glue_load_begin:
	cmpl $0, V_KICK(%rdi)
	jne glue_abort
	LOAD_FLAGS V_FLAGS
	LOAD_REGS V_REGS
	movq (V_REGS + 32)(%rdi), %rsp
	movq (V_REGS + 56)(%rdi), %rdi
	jmpq *%fs:glue_to@tpoff
glue_load_end:

glue_abort:
	movl $1, %eax /* BT_KICKED */
	jmp glue_return

	/* rax: where to continue, or NULL. */
glue_continue:
	movq %fs:glue_self@tpoff, %rdi
	movq %rax, %fs:glue_to@tpoff
	testq %rax, %rax
	jnz glue_load_begin
glue_leave:
	xorl %eax, %eax /* BT_LEFT */
glue_return:
	movq %fs:glue_self@tpoff, %rdi
	movq V_ENGINE_SP(%rdi), %rsp
	cld
	addq $8, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret
	.size bt_enter, . - bt_enter

	.globl glue_exit
glue_exit:
	SAVE_ALL
	call bt_c_exit
	jmp glue_continue

	.globl glue_indirect
glue_indirect:
	SAVE_ALL
	call bt_c_indirect
	jmp glue_continue

	.globl glue_indirect_step
glue_indirect_step:
	SAVE_ALL
	call bt_c_indirect_step
	jmp glue_continue

	.globl glue_stale
glue_stale:
	SAVE_ALL
	call bt_c_stale
	jmp glue_continue

	.globl glue_sys
glue_sys:
	SAVE_ALL
	call bt_c_sys
	jmp glue_continue

	/*
	 * Entered from the signal handler, which has filled host_regs[] and host_flags.  What the guest does not see goes
	 * on where it was: C says so by BT_FAULT_AGAIN, and where in resume.
	 */
	.globl glue_fault
glue_fault:
	movq %fs:glue_self@tpoff, %rdi
	movq V_ENGINE_SP(%rdi), %rsp
	cld
	call bt_c_fault
	cmpq $V_FAULT_AGAIN, %rax
	jne glue_continue
	movq %fs:glue_self@tpoff, %rdi
	jmp glue_resume_begin

	/* The same, with the block in site and its entry in exit. */
	.globl glue_gone
glue_gone:
	movq %fs:glue_self@tpoff, %rdi
	movq V_ENGINE_SP(%rdi), %rsp
	cld
	call bt_c_gone
	jmp glue_continue

	.globl glue_mem
glue_mem:
	SAVE_ALL
	call bt_c_mem
mem_done:
	testl %eax, %eax
	jz glue_leave
	movq %fs:glue_self@tpoff, %rdi

	/* A kick between here and the jump goes to glue_resume_kicked.  What C preserves is the guest's all the while. */
	.globl glue_resume_begin, glue_resume_end, glue_resume_kicked
glue_resume_begin:
	cmpl $0, V_KICK(%rdi)
	jne glue_resume_kicked
glue_resume_loads:
	LOAD_FLAGS V_HOST_FLAGS
	movq V_RESUME(%rdi), %rax
	movq %rax, %fs:glue_to@tpoff
	movq (V_HOST_REGS + 0)(%rdi), %rax
	movq (V_HOST_REGS + 8)(%rdi), %rcx
	movq (V_HOST_REGS + 16)(%rdi), %rdx
	movq (V_HOST_REGS + 32)(%rdi), %rsp
	movq (V_HOST_REGS + 48)(%rdi), %rsi
	movq (V_HOST_REGS + 64)(%rdi), %r8
	movq (V_HOST_REGS + 72)(%rdi), %r9
	movq (V_HOST_REGS + 80)(%rdi), %r10
	movq (V_HOST_REGS + 88)(%rdi), %r11
	movq (V_HOST_REGS + 56)(%rdi), %rdi
	jmpq *%fs:glue_to@tpoff
glue_resume_end:

glue_resume_kicked:
	movq %fs:glue_self@tpoff, %rdi
	movq V_ENGINE_SP(%rdi), %rsp
	cld
	call bt_c_kicked
	movq %fs:glue_self@tpoff, %rdi
	jmp glue_resume_loads

	.globl glue_mem_checked
glue_mem_checked:
	SAVE_ALL
	call bt_c_mem_checked
	jmp mem_done

	.globl glue_gather
glue_gather:
	SAVE_ALL
	call bt_c_gather
	testl %eax, %eax
	jnz mem_done
	movq %fs:glue_self@tpoff, %rdi
	call bt_c_sys
	jmp glue_continue

	.section .note.GNU-stack, "", @progbits

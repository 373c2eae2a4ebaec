/*
 * Between C and translated code.
 *
 * bt_enter(v, host) runs from @host until something returns NULL or a kick is
 * found.  In translated code rsp is the guest's and gs points at struct vcpu.
 * All guest state goes in and out through struct vcpu: regs[] and flags on the
 * way in, host_regs[] and host_flags on the way out (what is spilled is already
 * in regs[]).
 */
#include "vcpu/bt/offsets.h"

	.text

	/* Everything translated code holds -> host_regs[], host_flags.  Ends on the engine's stack. */
	.macro SAVE_ALL
	movq %rax, %gs:(V_HOST_REGS + 0)
	movq %rcx, %gs:(V_HOST_REGS + 8)
	movq %rdx, %gs:(V_HOST_REGS + 16)
	movq %rbx, %gs:(V_HOST_REGS + 24)
	movq %rsp, %gs:(V_HOST_REGS + 32)
	movq %rbp, %gs:(V_HOST_REGS + 40)
	movq %rsi, %gs:(V_HOST_REGS + 48)
	movq %rdi, %gs:(V_HOST_REGS + 56)
	movq %r8, %gs:(V_HOST_REGS + 64)
	movq %r9, %gs:(V_HOST_REGS + 72)
	movq %r10, %gs:(V_HOST_REGS + 80)
	movq %r11, %gs:(V_HOST_REGS + 88)
	movq %r12, %gs:(V_HOST_REGS + 96)
	movq %r13, %gs:(V_HOST_REGS + 104)
	movq %r14, %gs:(V_HOST_REGS + 112)
	movq %r15, %gs:(V_HOST_REGS + 120)
	lahf
	seto %al
	movw %ax, %gs:V_HOST_FLAGS
	movq %gs:V_ENGINE_SP, %rsp
	movq %gs:V_SELF, %rdi
	cld
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
	movq %rsp, %gs:V_ENGINE_SP
	movq %rsi, %gs:V_RESUME

	/* A kick between here and the jump goes to glue_abort (the signal handler sees to it). */
	.globl glue_load_begin, glue_load_end, glue_abort
glue_load_begin:
	cmpl $0, %gs:V_KICK
	jne glue_abort
	cmpb $0, %gs:V_DF
	je 1f
	std
1:	movzwl %gs:V_FLAGS, %eax
	addb $0x7f, %al
	sahf
	movq %gs:(V_REGS + 0), %rax
	movq %gs:(V_REGS + 8), %rcx
	movq %gs:(V_REGS + 16), %rdx
	movq %gs:(V_REGS + 24), %rbx
	movq %gs:(V_REGS + 40), %rbp
	movq %gs:(V_REGS + 48), %rsi
	movq %gs:(V_REGS + 56), %rdi
	movq %gs:(V_REGS + 64), %r8
	movq %gs:(V_REGS + 72), %r9
	movq %gs:(V_REGS + 80), %r10
	movq %gs:(V_REGS + 88), %r11
	movq %gs:(V_REGS + 96), %r12
	movq %gs:(V_REGS + 104), %r13
	movq %gs:(V_REGS + 112), %r14
	movq %gs:(V_REGS + 120), %r15
	movq %gs:(V_REGS + 32), %rsp
	jmpq *%gs:V_RESUME
glue_load_end:

glue_abort:
	movq %gs:V_ENGINE_SP, %rsp
	cld
	movl $1, %eax /* BT_KICKED */
	jmp glue_return

	/* rax: where to continue, or NULL. */
glue_continue:
	movq %rax, %gs:V_RESUME
	testq %rax, %rax
	jnz glue_load_begin
glue_leave:
	xorl %eax, %eax /* BT_LEFT */
glue_return:
	movq %gs:V_ENGINE_SP, %rsp
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

	/* Entered from the signal handler, which has filled host_regs[] and host_flags. */
	.globl glue_fault
glue_fault:
	movq %gs:V_ENGINE_SP, %rsp
	movq %gs:V_SELF, %rdi
	cld
	call bt_c_fault
	jmp glue_continue

	/* The same, with the block in site and its entry in exit. */
	.globl glue_gone
glue_gone:
	movq %gs:V_ENGINE_SP, %rsp
	movq %gs:V_SELF, %rdi
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

	/* A kick between here and the jump goes to glue_resume_kicked. */
	.globl glue_resume_begin, glue_resume_end, glue_resume_kicked
glue_resume_begin:
	cmpl $0, %gs:V_KICK
	jne glue_resume_kicked
glue_resume_loads:
	cmpb $0, %gs:V_DF
	je 1f
	std
1:	movq %gs:(V_HOST_REGS + 0), %rax
	movq %gs:(V_HOST_REGS + 8), %rcx
	movq %gs:(V_HOST_REGS + 16), %rdx
	movq %gs:(V_HOST_REGS + 32), %rsp
	movq %gs:(V_HOST_REGS + 48), %rsi
	movq %gs:(V_HOST_REGS + 56), %rdi
	movq %gs:(V_HOST_REGS + 64), %r8
	movq %gs:(V_HOST_REGS + 72), %r9
	movq %gs:(V_HOST_REGS + 80), %r10
	movq %gs:(V_HOST_REGS + 88), %r11
	jmpq *%gs:V_RESUME
glue_resume_end:

glue_resume_kicked:
	movq %gs:V_ENGINE_SP, %rsp
	movq %gs:V_SELF, %rdi
	cld
	call bt_c_kicked
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
	movq %gs:V_SELF, %rdi
	call bt_c_sys
	jmp glue_continue

	.section .note.GNU-stack, "", @progbits

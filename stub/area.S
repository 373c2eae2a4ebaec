/*
 * All the code of ours that a stub keeps: the guest thread's way in and out, and the helper.
 * Invariant: it can be jumped to by guest code, at any instruction, with any registers.  So each system call is allowed at
 * one place alone, with what registers cannot change, and behind the stop there is no way into guest code but the answer.
 */
#include <asm/unistd.h>
#include "proto/stub.h"

	.set orders, stub_code + STUB_PAGE
	.set own, orders + STUB_O_OWN

	.section .rodata
	.balign STUB_PAGE
	.globl stub_code, stub_launch, stub_end
	.globl stub_at_stop, stub_at_fs, stub_at_gs, stub_at_return, stub_at_wait, stub_at_order, stub_at_ack
stub_code:
/* Every signal of the guest thread.  The stop's fourth argument tells the data segments: the frame does not. */
	mov	%gs, %r10d
	shl	$16, %r10
	mov	%fs, %eax
	or	%rax, %r10
	shl	$16, %r10
	mov	%es, %eax
	or	%rax, %r10
	shl	$16, %r10
	mov	%ds, %eax
	or	%rax, %r10
.Lstop:	mov	$STUB_STOP, %eax
	syscall
stub_at_stop:
	cmp	$-38, %rax			/* ENOSYS: nobody listens any more */
	je	.Lend
	test	%rax, %rax
	js	.Lstop				/* interrupted */
	mov	%rax, %r12
	test	$STUB_GO_SEGS, %r12b
	jz	1f
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %fs
	mov	%eax, %gs
1:	test	$STUB_GO_FS, %r12b
	jz	2f
	mov	$__NR_arch_prctl, %eax
	mov	$0x1002, %edi			/* ARCH_SET_FS */
	mov	orders + STUB_O_FS(%rip), %rsi
	syscall
stub_at_fs:
2:	test	$STUB_GO_GS, %r12b
	jz	3f
	mov	$__NR_arch_prctl, %eax
	mov	$0x1001, %edi			/* ARCH_SET_GS */
	mov	orders + STUB_O_GS(%rip), %rsi
	syscall
stub_at_gs:
3:	mov	orders + STUB_O_SP(%rip), %rsp
	push	$2				/* rt_sigreturn leaves NT and ID as they are */
	popfq
	mov	$__NR_rt_sigreturn, %eax
	syscall
stub_at_return:
.Lend:	ud2

/* From here on there is no stack, and nothing but the area.  Ends as the guest thread, in its first stop. */
stub_launch:
	mov	$__NR_munmap, %eax
	xor	%edi, %edi
	mov	own(%rip), %rsi
	syscall
	mov	$__NR_munmap, %eax
	mov	own + 8(%rip), %rdi
	mov	own + 16(%rip), %rsi
	syscall
	test	%rax, %rax
	jnz	.Lend
	mov	$__NR_clone, %eax
	mov	$0x50f00, %edi			/* VM, FS, FILES, SIGHAND, THREAD, SYSVSEM */
	xor	%esi, %esi
	xor	%edx, %edx
	xor	%r10d, %r10d
	xor	%r8d, %r8d
	syscall
	test	%rax, %rax
	js	.Lend
	jz	helper
	mov	$__NR_prctl, %eax		/* each system call from elsewhere is a signal */
	mov	$59, %edi			/* PR_SET_SYSCALL_USER_DISPATCH */
	mov	$1, %esi
	lea	stub_code(%rip), %rdx
	mov	$STUB_PAGE, %r10d
	xor	%r8d, %r8d
	syscall
	test	%rax, %rax
	jnz	.Lend
	mov	$__NR_seccomp, %eax
	mov	$1, %edi			/* SECCOMP_SET_MODE_FILTER */
	mov	$8, %esi			/* SECCOMP_FILTER_FLAG_NEW_LISTENER */
	lea	own + 24(%rip), %rdx
	syscall
	ud2

/* Registers only.  Sends the descriptors as soon as there is the listener. */
helper:	mov	$__NR_sendmsg, %eax
	mov	$STUB_FD_CHANNEL, %edi
	lea	own + 56(%rip), %rsi
	xor	%edx, %edx
	syscall
	test	%rax, %rax
	jns	1f
	mov	$__NR_sched_yield, %eax
	syscall
	jmp	helper
1:	mov	$__NR_close, %eax
	mov	$STUB_FD_CHANNEL, %edi
	syscall
	mov	$__NR_close, %eax
	mov	$STUB_FD_LISTEN, %edi
	syscall
	mov	$__NR_seccomp, %eax
	mov	$1, %edi
	xor	%esi, %esi
	lea	own + 40(%rip), %rdx
	syscall
	test	%rax, %rax
	jnz	.Lend
	xor	%ebp, %ebp
.Lwait:	mov	orders + STUB_O_SEQ(%rip), %eax
	cmp	%eax, %ebp
	jne	1f
	mov	$__NR_futex, %eax
	lea	orders + STUB_O_SEQ(%rip), %rdi
	xor	%esi, %esi			/* FUTEX_WAIT */
	mov	%ebp, %edx
	xor	%r10d, %r10d
	syscall
stub_at_wait:
	jmp	.Lwait
1:	mov	%eax, %ebp
	mov	orders + STUB_O_N(%rip), %r13
	lea	orders + STUB_O_ORDER(%rip), %r14
	lea	orders + STUB_O_OK(%rip), %r15
2:	test	%r13, %r13
	jz	4f
	mov	(%r14), %rax
	mov	8(%r14), %rdi
	mov	16(%r14), %rsi
	mov	24(%r14), %rdx
	mov	32(%r14), %r10
	mov	40(%r14), %r8
	mov	48(%r14), %r9
	syscall
stub_at_order:
	cmp	$-4095, %rax
	jb	3f
	lea	orders + STUB_O_FAILED(%rip), %r15
3:	add	$56, %r14
	dec	%r13
	jmp	2b
4:	mov	$__NR_write, %eax
	mov	$STUB_FD_ACK, %edi
	mov	%r15, %rsi
	mov	$8, %edx
	syscall
stub_at_ack:
	jmp	.Lwait
stub_end:

	.section .note.GNU-stack, "", @progbits

/*
 * Entry of 64-bit flat guests: multiboot's 32-bit protected mode to long mode,
 * trap stubs, register loading.  Invariant: struct regs in rt.h is what
 * rt_common pushes.
 */
	.section .boot, "awx"
	.code32
	.align 4
	.long 0x1badb002, 0x3, -(0x1badb002 + 0x3)

	.globl start
start:
	cli
	cld
	movl $boot_stack_top, %esp
	movl %eax, rt_boot_magic
	movl %ebx, rt_boot_info
	/* 4 GiB identity mapped by 2 MiB pages, user, writable */
	movl $boot_pd, %edi
	movl $0x87, %eax
1:	movl %eax, (%edi)
	movl $0, 4(%edi)
	addl $8, %edi
	addl $0x200000, %eax
	jnc 1b
	movl $boot_pd + 7, %eax
	movl $boot_pdpt, %edi
	movl $4, %ecx
2:	movl %eax, (%edi)
	addl $8, %edi
	addl $0x1000, %eax
	loop 2b
	movl $boot_pdpt + 7, rt_pml4
	movl $rt_pml4, %eax
	movl %eax, %cr3
	movl $0x620, %eax		/* PAE OSFXSR OSXMMEXCPT */
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl $0x80010033, %eax		/* PG WP NE ET MP PE */
	movl %eax, %cr0
	lgdt boot_gdtr
	ljmpl $8, $start64

	.align 8
boot_gdtr:
	.word 32 * 8 - 1
	.quad rt_gdt

	.code64
start64:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movl $boot_stack_top, %esp
	fninit
	call rt_main
	hlt

	.text
	.globl rt_setjmp, rt_longjmp, rt_enter, rt_stubs
rt_setjmp:
	movq %rbx, 0(%rdi)
	movq %rbp, 8(%rdi)
	movq %r12, 16(%rdi)
	movq %r13, 24(%rdi)
	movq %r14, 32(%rdi)
	movq %r15, 40(%rdi)
	leaq 8(%rsp), %rax
	movq %rax, 48(%rdi)
	movq (%rsp), %rax
	movq %rax, 56(%rdi)
	xorl %eax, %eax
	ret

rt_longjmp:
	movl $0x10, %eax
	movl %eax, %ss
	movl %eax, %ds
	movl %eax, %es
	movq 0(%rdi), %rbx
	movq 8(%rdi), %rbp
	movq 16(%rdi), %r12
	movq 24(%rdi), %r13
	movq 32(%rdi), %r14
	movq 40(%rdi), %r15
	movq 48(%rdi), %rsp
	pushq $2
	popfq
	movl $1, %eax
	jmp *56(%rdi)

	.align 16
rt_stubs:
	.set vec, 0
	.rept 256
	.align 16
	.if (vec == 8) || (vec >= 10 && vec <= 14) || (vec == 17) || (vec == 21) || (vec == 29) || (vec == 30)
	.else
	pushq $0
	.endif
	pushq $vec
	jmp rt_common
	.set vec, vec + 1
	.endr
	.align 16

rt_common:
	pushq %rax
	pushq %rbx
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %rbp
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, %rdi
	cld
	call rt_trap
	movq %rsp, %rdi
rt_enter:
	movq %rdi, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rbp
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rbx
	popq %rax
	addq $16, %rsp
	.globl rt_iret
rt_iret:
	iretq

	.bss
	.align 4096
	.globl rt_pml4
rt_pml4:
	.skip 4096
boot_pdpt:
	.skip 4096
boot_pd:
	.skip 4 * 4096
	.skip 32768
boot_stack_top:
	.section .note.GNU-stack, "", @progbits

/*
 * Entry of 32-bit flat guests: multiboot's protected mode, our own tables,
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
	movl $0x600, %eax		/* OSFXSR OSXMMEXCPT */
	movl %eax, %cr4
	movl $0x33, %eax		/* NE ET MP PE */
	movl %eax, %cr0
	lgdt boot_gdtr
	ljmpl $8, $1f
1:	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %fs
	movl %eax, %gs
	movl %eax, %ss
	fninit
	call rt_main
	hlt

	.align 8
boot_gdtr:
	.word 32 * 8 - 1
	.long rt_gdt

	.text
	.globl rt_setjmp, rt_longjmp, rt_enter, rt_stubs
rt_setjmp:
	movl 4(%esp), %edx
	movl %ebx, 0(%edx)
	movl %ebp, 4(%edx)
	movl %esi, 8(%edx)
	movl %edi, 12(%edx)
	leal 4(%esp), %eax
	movl %eax, 16(%edx)
	movl (%esp), %eax
	movl %eax, 20(%edx)
	xorl %eax, %eax
	ret

rt_longjmp:
	movl 4(%esp), %edx
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %fs
	movl %eax, %gs
	movl %eax, %ss
	movl 16(%edx), %esp
	movl 0(%edx), %ebx
	movl 4(%edx), %ebp
	movl 8(%edx), %esi
	movl 12(%edx), %edi
	pushl $2
	popfl
	movl $1, %eax
	jmp *20(%edx)

	.align 16
rt_stubs:
	.set vec, 0
	.rept 256
	.align 16
	.if (vec == 8) || (vec >= 10 && vec <= 14) || (vec == 17) || (vec == 21) || (vec == 29) || (vec == 30)
	.else
	pushl $0
	.endif
	pushl $vec
	jmp rt_common
	.set vec, vec + 1
	.endr
	.align 16

rt_common:
	pushal
	pushl %ds
	pushl %es
	pushl %fs
	pushl %gs
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %esp, %eax
	cld
	pushl %eax
	call rt_trap
	addl $4, %esp
	jmp 1f
rt_enter:
	movl 4(%esp), %esp
1:	popl %gs
	popl %fs
	popl %es
	popl %ds
	popal
	addl $8, %esp
	.globl rt_iret
rt_iret:
	iretl

	.bss
	.align 4096
	.skip 32768
boot_stack_top:
	.section .note.GNU-stack, "", @progbits

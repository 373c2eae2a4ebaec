/*
 * The guest of the end-to-end tests: a multiboot kernel that echoes COM1 and obeys
 * single letters.
 *   p power off   r reset   t triple fault   x exit port, value 5   d deaf to the power button from now on
 *   h halt with interrupts off   w start the watchdog (0.4 s) and hang, interrupts off
 *   e a line with a terminal control to the debug console   m read an MSR that is none, and crash   anything else: echoed
 * It prints "ready" when it starts and "button" when the power button is pressed, and then
 * powers off unless deaf.  Ports: COM1 0x3f8, PM1a events 0x600, control 0x604, reset 0xcf9.
 */
	.set MAGIC, 0x1badb002
	.section .text
	.code32
	.long MAGIC, 0, -MAGIC

	.globl _start
_start:
	cli
	mov $stack_top, %esp
	xor %ebx, %ebx			/* deaf */
	mov $0x3f9, %dx			/* no interrupts */
	xor %al, %al
	out %al, %dx
	mov $0x3fa, %dx			/* FIFOs on */
	mov $1, %al
	out %al, %dx
	mov $msg_ready, %esi
	call puts
loop:
	mov $0x600, %dx			/* PM1 status: power button, bit 8 */
	in %dx, %ax
	test $0x100, %ax
	jnz button
	mov $0x3fd, %dx
	in %dx, %al
	test $1, %al
	jnz input
	pause
	jmp loop

button:
	mov $0x100, %ax			/* write one to clear */
	out %ax, %dx
	mov $msg_button, %esi
	call puts
	test %ebx, %ebx
	jnz loop
power_off:
	mov $0x604, %dx
	mov $0x3400, %ax		/* SLP_EN, type 5 */
	out %ax, %dx
	jmp loop

input:
	mov $0x3f8, %dx
	in %dx, %al
	cmp $'p', %al
	je power_off
	cmp $'r', %al
	je reset
	cmp $'t', %al
	je triple
	cmp $'x', %al
	je leave
	cmp $'d', %al
	je deaf
	cmp $'h', %al
	je halt
	cmp $'w', %al
	je watchdog
	cmp $'e', %al
	je debug
	cmp $'m', %al
	je no_msr
	call putc
	jmp loop

debug:
	mov $msg_debug, %esi
	mov $0xe9, %dx
1:	lodsb
	test %al, %al
	jz loop
	out %al, %dx
	jmp 1b
no_msr:
	mov $0x12345, %ecx
	rdmsr

reset:
	mov $0xcf9, %dx
	mov $6, %al
	out %al, %dx
	jmp loop
triple:
	lidt no_idt
	int3
leave:
	mov $0xf4, %dx
	mov $5, %eax
	out %eax, %dx
	jmp loop
deaf:
	mov $1, %ebx
	mov $msg_deaf, %esi
	call puts
	jmp loop
halt:
	hlt
	jmp halt

watchdog:				/* the i6300esb at 00:1c.0 */
	mov $0x8000e010, %eax
	call config_at
	in %dx, %eax
	and $~15, %eax
	mov %eax, %esi
	mov $0x8000e060, %eax
	call config_at
	mov $3, %ax			/* no interrupt, output on, 1 kHz */
	out %ax, %dx
	movb $0x80, 12(%esi)
	movb $0x86, 12(%esi)
	movl $200, (%esi)
	movb $0x80, 12(%esi)
	movb $0x86, 12(%esi)
	movl $200, 4(%esi)
	mov $0x8000e068, %eax
	call config_at
	mov $2, %al			/* enable */
	out %al, %dx
1:	jmp 1b
config_at:				/* %eax; %dx becomes the data port */
	mov $0xcf8, %dx
	out %eax, %dx
	mov $0xcfc, %dx
	ret

putc:					/* %al */
	mov %al, %ah
	mov $0x3fd, %dx
1:	in %dx, %al
	test $0x20, %al
	jz 1b
	mov $0x3f8, %dx
	mov %ah, %al
	out %al, %dx
	ret
puts:					/* %esi */
	lodsb
	test %al, %al
	jz 1f
	call putc
	jmp puts
1:	ret

	.section .data
no_idt:	.word 0
	.long 0
msg_ready:	.asciz "ready\r\n"
msg_button:	.asciz "button\r\n"
msg_deaf:	.asciz "deaf\r\n"
msg_debug:	.ascii "debug \x9b"
	.asciz "2J\033[6n end\n"
	.section .bss
	.align 16
	.skip 4096
stack_top:

/*
 * The client's side of an attached console.  See attach.c.
 */
#ifndef HVX_MONITOR_ATTACH_H
#define HVX_MONITOR_ATTACH_H

/* Relays between the terminal and the stream @fd until Ctrl-A x, or the VM's end.  At end of file on a stdin that
 * is no terminal, output goes on until the VM ends.  Returns an exit status.
 * @resized, unless NULL, is called at the start and when the terminal has another size. */
int attach_console(int fd, const char *name, void (*resized)(void *ctx), void *ctx);

#endif

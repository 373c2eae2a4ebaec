/*
 * What shells complete.  See completion.c.
 */
#ifndef HVX_MONITOR_COMPLETION_H
#define HVX_MONITOR_COMPLETION_H

#include <stdbool.h>
#include <stdio.h>

void completion_print(FILE *f, bool zsh);

#endif

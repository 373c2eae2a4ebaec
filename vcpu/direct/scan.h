/* Which code may run as it is.  See scan.c. */
#ifndef HVX_DIRECT_SCAN_H
#define HVX_DIRECT_SCAN_H

#include <stdbool.h>
#include <stdint.h>

/* Is there nothing on @page, 4,096 bytes, that would neither trap nor behave? */
bool scan_clean(const uint8_t *page);

#endif

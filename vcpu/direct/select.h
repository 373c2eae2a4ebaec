/* Selectors of ring 3 on a 64-bit Linux host: a guest's are run as they are only where they are the same. */
#ifndef HVX_DIRECT_SELECT_H
#define HVX_DIRECT_SELECT_H

enum { SELECT_CS64 = 0x33, SELECT_DATA = 0x2b };

#endif

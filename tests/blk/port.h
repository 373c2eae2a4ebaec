/*
 * A port of AHCI with nothing around it: front.c's memory and stores, and the test as the guest's driver.  See port.c.
 */
#ifndef HVX_TEST_PORT_H
#define HVX_TEST_PORT_H

#include "devices/blk/hba.h"
#include "tests/blk/front.h"

#define PORT_LIST  0x1000u
#define PORT_FIS   0x2000u
#define PORT_TABLE 0x100000u /* of slot 0; 4 KiB each */
#define PORT_DATA  0x200000u

/* PxIS */
enum { PORT_DHRS = 1, PORT_PSS = 2, PORT_OFS = 1 << 24, PORT_IFS = 1 << 27, PORT_HBFS = 1 << 29, PORT_TFES = 1 << 30 };

struct port_command {
	uint8_t command, feature, device;
	uint64_t lba;
	uint16_t count;
	uint8_t cdb[12]; /* of a packet: command is 0xa0 */
	unsigned nprd;   /* 0: one, at PORT_DATA, of 64 KiB */
	struct {
		uint64_t at;
		uint32_t len;
	} prd[4];
};

struct port {
	struct front *f;
	struct device_ops ops;
	uint64_t list, fis;           /* for the next activation */
	uint32_t called, causes, tfd; /* since port_ring() began */
};

void port_start(struct port *p, const struct front_setup *s, enum msg_blk_bus bus);
void port_activate(struct port *p);
bool port_reset(struct port *p); /* true: answered at once */
void port_free(struct port *p);
void port_put(struct port *p, unsigned slot, const struct port_command *c);
void port_look(struct port *p);
void port_ring(struct port *p, uint32_t slots);
/* Puts it into slot 0 and rings: the causes. */
uint32_t port_do(struct port *p, const struct port_command *c);

#endif

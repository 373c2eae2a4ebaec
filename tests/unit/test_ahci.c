/* devices/blk: commands of a SATA disk and a CD drive, tables that point anywhere, resets; stores in memory (tests/blk/). */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <string.h>

#include "tests/blk/port.h"

#define MIB       (1u << 20)
#define SECTORS   (MIB / 512)
#define LBA       0x40
#define GOOD(p)   ((p).called == 1 && !((p).causes & PORT_TFES) && ((p).tfd & 0xff) == ATA_READY)
#define ABORTED   (ATA_READY | ATA_ERR | ATA_ABORTED << 8)
#define NOT_FOUND (ATA_READY | ATA_ERR | ATA_NOT_FOUND << 8)

static struct port p;

static void start(enum msg_blk_bus bus)
{
	static const struct front_setup disk = {.size = MIB}, cd = {.size = MIB, .readonly = true};

	port_start(&p, bus == BLK_CDROM ? &cd : &disk, bus);
	for (uint32_t i = 0; i < MIB; i++)
		p.f->base.data[i] = (uint8_t)(i / 512 + i);
}

static uint8_t *data(void)
{
	return p.f->ram + PORT_DATA;
}

static uint32_t moved(void)
{
	uint32_t n;

	memcpy(&n, p.f->ram + PORT_LIST + 4, 4);
	return n;
}

/* Slot 0 is not done, an error was raised with @cause, and neither data nor the disk were written. */
static bool fails(const struct port_command *c, uint32_t cause, uint32_t tfd)
{
	unsigned n = p.f->base.n[BLK_READ] + p.f->base.n[BLK_WRITE];

	memset(data(), 0xee, FRONT_ROOM);
	port_do(&p, c);
	bool ok = !p.called && (p.causes & PORT_TFES) && (p.causes & cause) == cause && p.tfd == tfd &&
		  front_all(data(), FRONT_ROOM, 0xee) && n == p.f->base.n[BLK_READ] + p.f->base.n[BLK_WRITE];
	port_reset(&p);
	port_activate(&p);
	return ok;
}

/* ---- a disk ---- */

static void test_move(void)
{
	static const struct {
		uint8_t read, write;
		uint64_t lba;
		uint16_t count;
	} cases[] = {
		{0xc8, 0xca, 3, 2}, {0x25, 0x35, 5, 9}, {0x20, 0x30, SECTORS - 1, 1}, {0x24, 0x34, SECTORS - 128, 128},
		{0xc4, 0x3d, 0, 1},
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		start(BLK_AHCI);
		uint8_t *disk = p.f->base.data + cases[i].lba * 512;
		uint32_t n = cases[i].count * 512u;
		struct port_command c = {
			.command = cases[i].read, .device = LBA, .lba = cases[i].lba, .count = cases[i].count};
		port_do(&p, &c);
		CU_ASSERT_TRUE(GOOD(p) && (p.causes & PORT_DHRS) && moved() == n);
		CU_ASSERT_TRUE(!memcmp(data(), disk, n) && (n == FRONT_ROOM || !data()[n]));
		CU_ASSERT_EQUAL(p.f->ram[PORT_FIS + 0x40], 0x34);
		CU_ASSERT_EQUAL(p.f->ram[PORT_FIS + 0x42], ATA_READY);
		memset(data(), 0x5a, FRONT_ROOM);
		c.command = cases[i].write;
		port_do(&p, &c);
		CU_ASSERT_TRUE(GOOD(p) && moved() == n && front_all(disk, n, 0x5a));
		CU_ASSERT_TRUE(cases[i].lba + cases[i].count == SECTORS || disk[n] != 0x5a || disk[n + 1] != 0x5a);
		CU_ASSERT_EQUAL(p.f->base.fua, cases[i].write == 0x3d);
		port_free(&p);
	}
}

/* Pieces of the table; count 0 is 256 sectors or 65536. */
static void test_table(void)
{
	start(BLK_AHCI);
	struct port_command c = {.command = 0xc8, .device = LBA, .count = 2, .nprd = 3};
	c.prd[0].at = PORT_DATA, c.prd[0].len = 2;
	c.prd[1].at = PORT_DATA + 0x1000, c.prd[1].len = 700;
	c.prd[2].at = PORT_DATA + 0x2000, c.prd[2].len = 4096;
	port_do(&p, &c);
	CU_ASSERT_TRUE(GOOD(p) && moved() == 1024);
	CU_ASSERT_TRUE(!memcmp(data(), p.f->base.data, 2) && !data()[2]);
	CU_ASSERT_TRUE(!memcmp(data() + 0x1000, p.f->base.data + 2, 700));
	CU_ASSERT_TRUE(!memcmp(data() + 0x2000, p.f->base.data + 702, 322) && front_all(data() + 0x2000 + 322, 64, 0));
	c = (struct port_command){.command = 0xc8, .device = LBA, .nprd = 1};
	c.prd[0].at = PORT_DATA, c.prd[0].len = 256 * 512;
	port_do(&p, &c);
	CU_ASSERT_TRUE(GOOD(p) && moved() == 256 * 512 && !memcmp(data(), p.f->base.data, 256 * 512));
	c.prd[0].len -= 512;
	CU_ASSERT_TRUE(fails(&c, PORT_OFS, ABORTED));
	c.command = 0x25; /* more than there are */
	CU_ASSERT_TRUE(fails(&c, 0, NOT_FOUND));
	port_free(&p);
}

static void test_identify(void)
{
	uint16_t w[256];
	uint8_t sum = 0;

	start(BLK_AHCI);
	port_do(&p, &(struct port_command){.command = 0xec});
	CU_ASSERT_TRUE(GOOD(p) && (p.causes & PORT_PSS) && moved() == 512);
	memcpy(w, data(), 512);
	for (int i = 0; i < 512; i++)
		sum = (uint8_t)(sum + data()[i]);
	CU_ASSERT_TRUE(!sum && w[60] == SECTORS && !w[61] && w[100] == SECTORS && (w[83] & 1 << 10) &&
		       (w[85] & 1 << 5));
	CU_ASSERT_EQUAL(memcmp(data() + 20, "wtneytc-ahartcre-s02", 20), 0);
	port_do(&p, &(struct port_command){.command = 0xef, .feature = 0x82});
	CU_ASSERT_TRUE(GOOD(p) && !p.f->b.writeback);
	port_do(&p, &(struct port_command){.command = 0xe7});
	CU_ASSERT_TRUE(GOOD(p) && p.f->base.n[BLK_FLUSH] == 1);
	CU_ASSERT_TRUE(fails(&(struct port_command){.command = 0xa1}, 0, ABORTED)); /* of a packet device */
	port_free(&p);
}

static void test_beyond(void)
{
	static const struct {
		uint8_t command, device;
		uint64_t lba;
		uint16_t count;
	} cases[] = {
		{0xc8, LBA, SECTORS, 1},
		{0xc8, LBA, SECTORS - 1, 2},
		{0xca, LBA, SECTORS - 1, 2},
		{0x25, LBA, 0xffffffffffffull, 1},
		{0x35, LBA, SECTORS, 1},
		{0x35, LBA, 1ull << 40, 1},
		{0xc8, LBA | 0xf, 0, 1},
		{0xc8, 0, 0, 1},     /* cylinders: sectors count from 1 */
		{0xc8, 0, 64, 1},    /* to 63 */
		{0xc8, 0, 0x301, 1}, /* cylinder 3 */
		{0x42, LBA, SECTORS, 1},
	};

	start(BLK_AHCI);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct port_command c = {.command = cases[i].command,
					 .device = cases[i].device,
					 .lba = cases[i].lba,
					 .count = cases[i].count};
		CU_ASSERT_TRUE(fails(&c, 0, NOT_FOUND));
	}
	port_do(&p,
		&(struct port_command){.command = 0xc8, .lba = 0x201, .count = 1}); /* cylinder 2, head 0, sector 1 */
	CU_ASSERT_TRUE(GOOD(p) && !memcmp(data(), p.f->base.data + 2 * 16 * 63 * 512, 512));
	port_free(&p);
}

/* ---- what points outside RAM ---- */

static void test_prd_outside(void)
{
	static const uint64_t at[] = {FRONT_RAM, FRONT_RAM - 256, 1ull << 32, ~0ull - 511, 1ull << 63};

	start(BLK_AHCI);
	for (size_t i = 0; i < sizeof at / sizeof at[0]; i++)
		for (unsigned where = 0; where < 2; where++) {
			struct port_command c = {.command = 0xc8, .device = LBA, .count = 2, .nprd = 2};
			c.prd[where].at = at[i], c.prd[where].len = 512;
			c.prd[!where].at = PORT_DATA, c.prd[!where].len = 512;
			CU_ASSERT_TRUE(fails(&c, PORT_HBFS, ABORTED));
			c.command = 0x35;
			CU_ASSERT_TRUE(fails(&c, PORT_HBFS, ABORTED));
			c.command = 0xec;
			CU_ASSERT_TRUE(fails(&c, PORT_HBFS, ABORTED));
		}
	port_free(&p);
}

/* Thousands of entries, more than there is RAM behind the table; few, and one of them large. */
static void test_prdt_oversized(void)
{
	struct port_command c = {.command = 0xc8, .device = LBA, .count = 2};
	uint32_t hdr, table = FRONT_RAM - 4096;
	static const uint8_t zero[16];

	start(BLK_AHCI);
	port_put(&p, 0, &c);
	memcpy(p.f->ram + table, p.f->ram + PORT_TABLE, 0x80);
	for (uint32_t i = table + 0x80; i < FRONT_RAM; i += 16) { /* of one byte each: too few */
		memcpy(p.f->ram + i, zero, 16);
		p.f->ram[i + 2] = PORT_DATA >> 16;
	}
	hdr = 5 | 0xffffu << 16;
	memcpy(p.f->ram + PORT_LIST, &hdr, 4);
	memcpy(p.f->ram + PORT_LIST + 8, &table, 4);
	port_ring(&p, 1);
	CU_ASSERT_TRUE(!p.called && p.causes == (PORT_DHRS | PORT_HBFS | PORT_TFES) && p.tfd == ABORTED);
	CU_ASSERT_TRUE(front_all(data(), FRONT_ROOM, 0) && !p.f->base.n[BLK_READ]);
	port_reset(&p);
	port_activate(&p);
	c.nprd = 1; /* the reserved bits of a count are no length */
	c.prd[0].at = PORT_DATA, c.prd[0].len = 0xffc00000u | 1024;
	port_do(&p, &c);
	CU_ASSERT_TRUE(GOOD(p) && moved() == 1024 && !data()[1024]);
	c.prd[0].len = 1 << 22; /* all RAM that an entry can say is more than there is from here on */
	CU_ASSERT_TRUE(fails(&c, PORT_HBFS, ABORTED));
	port_free(&p);
}

static void test_table_outside(void)
{
	static const uint64_t at[] = {FRONT_RAM, FRONT_RAM + 0x80, 0xb0000000, 1ull << 32, ~0x7full};

	start(BLK_AHCI);
	for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
		port_put(&p, 0, &(struct port_command){.command = 0x35, .device = LBA, .count = 1});
		memcpy(p.f->ram + PORT_LIST + 8, &at[i], 8);
		port_ring(&p, 1);
		CU_ASSERT_TRUE(!p.called && (p.causes & PORT_HBFS) && (p.causes & PORT_TFES) && p.tfd == ABORTED);
		CU_ASSERT_EQUAL(p.f->base.n[BLK_WRITE], 0);
		port_ring(&p, 2); /* the list has stopped */
		CU_ASSERT_TRUE(!p.called && !p.causes);
		port_reset(&p);
		port_activate(&p);
	}
	p.list = FRONT_RAM;
	port_reset(&p);
	port_activate(&p);
	port_ring(&p, 1);
	CU_ASSERT_TRUE(!p.called && (p.causes & PORT_HBFS) && (p.causes & PORT_TFES));
	port_free(&p);
}

/* The command is done, but nobody could be told how. */
static void test_fis_outside(void)
{
	static const uint64_t at[] = {FRONT_RAM, 0xb0000000, 1ull << 32, ~0xffull};

	start(BLK_AHCI);
	for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
		p.fis = at[i];
		port_reset(&p);
		port_activate(&p);
		port_do(&p, &(struct port_command){.command = 0xc8, .device = LBA, .count = 1});
		CU_ASSERT_TRUE(!p.called && (p.causes & PORT_HBFS) && (p.causes & PORT_TFES));
		CU_ASSERT_TRUE(front_all(p.f->ram + PORT_FIS, 256, 0) && front_all(p.f->ram, PORT_LIST, 0));
	}
	port_free(&p);
}

/* No FIS of a command, or none of its length. */
static void test_no_fis(void)
{
	start(BLK_AHCI);
	for (int i = 0; i < 2; i++) {
		port_put(&p, 0, &(struct port_command){.command = 0x35, .device = LBA, .count = 1});
		p.f->ram[i ? PORT_LIST : PORT_TABLE] = i ? 4 : 0x34;
		port_ring(&p, 1);
		CU_ASSERT_TRUE(!p.called && (p.causes & PORT_IFS) && (p.causes & PORT_TFES) && p.tfd == ABORTED);
		CU_ASSERT_EQUAL(p.f->base.n[BLK_WRITE], 0);
		port_reset(&p);
		port_activate(&p);
	}
	port_free(&p);
}

/* ---- a CD drive ---- */

static struct port_command packet(uint8_t a, uint8_t b3, uint8_t b4, uint8_t b5, uint8_t b8)
{
	struct port_command c = {.command = 0xa0, .cdb = {a, 0, 0, b3, b4, b5, 0, 0, b8}};

	return c;
}

static void test_packet(void)
{
	struct port_command c = packet(0x12, 0, 36, 0, 0);

	start(BLK_CDROM);
	port_do(&p, &(struct port_command){.command = 0xa1});
	CU_ASSERT_TRUE(GOOD(p) && data()[0] == 0x80 && data()[1] == 0x85);
	memset(data(), 0, 512);
	port_do(&p, &c);
	CU_ASSERT_TRUE(GOOD(p) && moved() == 36 && data()[0] == 5 && !memcmp(data() + 8, "HVX     CD-ROM", 14));
	c = packet(0x12, 0, 5, 0, 0);
	memset(data(), 0xee, 64);
	port_do(&p, &c);
	CU_ASSERT_TRUE(GOOD(p) && moved() == 5 && data()[4] == 31 && data()[5] == 0xee);
	c = packet(0x25, 0, 0, 0, 0);
	port_do(&p, &c);
	CU_ASSERT_TRUE(GOOD(p) && !memcmp(data(), "\0\0\1\xff\0\0\x08\0", 8));
	c = packet(0x28, 0, 1, 0xfe, 2);
	port_do(&p, &c);
	CU_ASSERT_TRUE(GOOD(p) && moved() == 4096 && !memcmp(data(), p.f->base.data + 510 * 2048, 4096));
	c = packet(0x28, 0, 0, 0, 0);
	port_do(&p, &c);
	CU_ASSERT_TRUE(GOOD(p) && !moved());
	port_free(&p);
}

/* Each ends with sense data that says why. */
static void test_packet_fails(void)
{
	const struct {
		struct port_command c;
		uint8_t asc;
	} cases[] = {
		{packet(0x28, 0, 2, 0, 1), 0x21},          {packet(0x28, 0, 1, 0xff, 2), 0x21},
		{packet(0x28, 0xff, 0xff, 0xff, 1), 0x21}, {packet(0x2a, 0, 0, 0, 1), 0x20},
		{packet(0xaa, 0, 0, 0, 1), 0x20},
	};

	start(BLK_CDROM);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		CU_ASSERT_TRUE(fails(&cases[i].c, 0, ATA_READY | ATA_ERR | 0x54 << 8));
		struct port_command c = packet(0x03, 0, 18, 0, 0);
		port_do(&p, &c);
		CU_ASSERT_TRUE(GOOD(p) && data()[2] == 5 && data()[12] == cases[i].asc);
	}
	CU_ASSERT_TRUE(fails(&(struct port_command){.command = 0x35, .device = LBA, .count = 1}, 0, ABORTED));
	CU_ASSERT_TRUE(fails(&(struct port_command){.command = 0xca, .device = LBA, .count = 1}, 0, ABORTED));
	struct port_command c = packet(0x28, 0, 0, 0, 2);
	c.nprd = 1;
	c.prd[0].at = PORT_DATA, c.prd[0].len = 4095;
	CU_ASSERT_TRUE(fails(&c, PORT_OFS, ABORTED));
	CU_ASSERT_EQUAL(p.f->base.n[BLK_WRITE], 0);
	port_free(&p);
}

/* ---- resets ---- */

/* What a reset overtakes is not told to the list after it. */
static void test_reset(void)
{
	start(BLK_AHCI);
	p.f->base.later = true;
	port_do(&p, &(struct port_command){.command = 0xc8, .device = LBA, .count = 1});
	CU_ASSERT_TRUE(!p.called && p.f->base.nheld == 1);
	port_ring(&p, 4); /* one at a time */
	CU_ASSERT_EQUAL(p.f->base.nheld, 1);
	CU_ASSERT_FALSE(port_reset(&p));
	port_activate(&p); /* waits */
	fakestore_complete(&p.f->base, 0);
	blk_settle(&p.f->b);
	port_look(&p);
	CU_ASSERT_TRUE(!p.called && !p.causes && p.f->b.dev.v.active && !p.f->b.inflight);
	p.f->base.later = false;
	port_do(&p, &(struct port_command){.command = 0xc8, .device = LBA, .count = 1});
	CU_ASSERT_TRUE(GOOD(p));
	port_free(&p);
}

static void test_host_error(void)
{
	start(BLK_AHCI);
	fakestore_fail(&p.f->base, BLK_READ, -EIO, 1);
	port_do(&p, &(struct port_command){.command = 0xc8, .device = LBA, .count = 1});
	CU_ASSERT_TRUE(!p.called && (p.causes & PORT_TFES) && p.tfd == (ATA_READY | ATA_ERR | ATA_UNCORRECTABLE << 8));
	port_free(&p);
}

CU_ErrorCode suite_ahci(void);
CU_ErrorCode suite_ahci(void)
{
	static const struct {
		const char *name;
		void (*fn)(void);
	} tests[] = {
		{"reads and writes", test_move},
		{"tables in pieces", test_table},
		{"IDENTIFY, features, flush", test_identify},
		{"beyond the end", test_beyond},
		{"entries outside RAM", test_prd_outside},
		{"tables too large", test_prdt_oversized},
		{"tables and lists outside RAM", test_table_outside},
		{"FISes outside RAM", test_fis_outside},
		{"no FIS", test_no_fis},
		{"packets", test_packet},
		{"packets that fail", test_packet_fails},
		{"resets", test_reset},
		{"errors of the host", test_host_error},
	};
	CU_pSuite s = CU_add_suite("ahci", NULL, NULL);

	for (size_t i = 0; s && i < sizeof tests / sizeof tests[0]; i++)
		if (!CU_add_test(s, tests[i].name, tests[i].fn))
			break;
	return CU_get_error();
}

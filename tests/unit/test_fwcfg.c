/* chipset/fwcfg: items by ports and by requests in memory, the directory, what is refused. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/chipfakes.h"
#include "vcpu/boot/load.h"
#include "vcpu/chipset/fwcfg.h"

static struct fwcfg f;
static uint8_t ram[8192];
static uint16_t chosen;
static unsigned choices;

static void on_selected(void *ctx, uint16_t key)
{
	chosen = key;
	choices++;
}

static bool on_copy(void *ctx, uint64_t gpa, void *buf, size_t len, bool write)
{
	if (gpa > sizeof ram || len > sizeof ram - gpa)
		return false;
	if (write)
		memcpy(ram + gpa, buf, len);
	else
		memcpy(buf, ram + gpa, len);
	return true;
}

static void setup(void)
{
	memset(&f, 0, sizeof f);
	memset(ram, 0xcc, sizeof ram);
	f.copy = on_copy;
	f.selected = on_selected;
	fwcfg_init(&f);
	choices = 0;
}

static void choose(uint16_t key)
{
	fwcfg_ops.write(&f, 0, key, 2);
}

static uint32_t be32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_be32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* A request at 64 of memory; its control word afterwards. */
static uint32_t request(uint32_t control, uint32_t len, uint32_t to)
{
	uint8_t at[4];

	put_be32(ram + 64, control);
	put_be32(ram + 68, len);
	put_be32(ram + 72, 0);
	put_be32(ram + 76, to);
	put_be32(at, 64);
	fwcfg_dma_ops.write(&f, 4, get32(at), 4);
	return be32(ram + 64);
}

static void test_ports(void)
{
	char sig[5] = "";

	setup();
	choose(FWCFG_SIGNATURE);
	for (int i = 0; i < 4; i++)
		sig[i] = (char)rd8(&fwcfg_ops, &f, 1);
	CU_ASSERT_STRING_EQUAL(sig, "QEMU");
	CU_ASSERT_EQUAL(rd8(&fwcfg_ops, &f, 1), 0); /* beyond the end */
	choose(FWCFG_ID);
	CU_ASSERT_EQUAL(rd8(&fwcfg_ops, &f, 1), 3);
	CU_ASSERT_EQUAL(chosen, FWCFG_ID);
	CU_ASSERT_EQUAL(choices, 2);
	choose(0x4000);
	CU_ASSERT_EQUAL(rd8(&fwcfg_ops, &f, 1), 0);
	CU_ASSERT_EQUAL(fwcfg_dma_ops.read(&f, 0, 4), get32((const uint8_t *)"QEMU"));
	CU_ASSERT_EQUAL(fwcfg_dma_ops.read(&f, 4, 4), get32((const uint8_t *)" CFG"));
}

static void test_files(void)
{
	static const char body[] = "0123456789";

	setup();
	CU_ASSERT_EQUAL(fwcfg_add_file(&f, "etc/a", body, 10), FWCFG_FILES);
	CU_ASSERT_EQUAL(fwcfg_add_file(&f, "etc/b", body, 3), FWCFG_FILES + 1);
	CU_ASSERT_EQUAL(fwcfg_add_file(&f, "etc/a", body, 3), -EEXIST);
	CU_ASSERT_EQUAL(fwcfg_add_file(&f, "a name that does not fit into the fifty-six bytes it may have", body, 3),
			-ENOSPC);
	CU_ASSERT_EQUAL(request(FWCFG_DIR << 16 | 8 | 2, 4 + 2 * 64, 1024), 0);
	CU_ASSERT_EQUAL(be32(ram + 1024), 2);
	CU_ASSERT_EQUAL(be32(ram + 1028), 10);
	CU_ASSERT_EQUAL(be32(ram + 1032), FWCFG_FILES << 16);
	CU_ASSERT_STRING_EQUAL((char *)ram + 1036, "etc/a");
	CU_ASSERT_EQUAL(be32(ram + 1092), 3);
	CU_ASSERT_STRING_EQUAL((char *)ram + 1100, "etc/b");
	fwcfg_set(&f, FWCFG_FILES, body, 7); /* a file that changes its size changes the directory */
	CU_ASSERT_EQUAL(request(FWCFG_DIR << 16 | 8 | 2, 132, 1024), 0);
	CU_ASSERT_EQUAL(be32(ram + 1028), 7);
	for (unsigned i = 0; i < FWCFG_ITEMS - 5; i++)
		CU_ASSERT_EQUAL(fwcfg_add(&f, (uint16_t)(0x100 + i), body, 1), 0);
	CU_ASSERT_EQUAL(fwcfg_add(&f, 0x200, body, 1), -ENOSPC);
	CU_ASSERT_EQUAL(fwcfg_add(&f, FWCFG_ID, body, 1), -EEXIST);
}

static void test_requests(void)
{
	static const char body[] = "0123456789";

	setup();
	fwcfg_add_file(&f, "etc/a", body, 10);
	CU_ASSERT_EQUAL(request(FWCFG_FILES << 16 | 8 | 2, 4, 1024), 0);
	CU_ASSERT_NSTRING_EQUAL(ram + 1024, "0123", 4);
	CU_ASSERT_EQUAL(ram[1028], 0xcc);
	CU_ASSERT_EQUAL(request(4, 2, 0), 0); /* skip */
	CU_ASSERT_EQUAL(request(2, 8, 1024), 0);
	CU_ASSERT_EQUAL(memcmp(ram + 1024, "6789\0\0\0\0", 8), 0);
	CU_ASSERT_EQUAL(request(4, UINT32_MAX, 0), 0);
	CU_ASSERT_EQUAL(request(2, 1, 1024), 0);
	CU_ASSERT_EQUAL(ram[1024], 0);
}

static void test_refused(void)
{
	static const char body[] = "0123456789";

	setup();
	fwcfg_add_file(&f, "etc/a", body, 10);
	CU_ASSERT_EQUAL(request(FWCFG_FILES << 16 | 8 | 0x10, 4, 1024), 1);  /* a write */
	CU_ASSERT_EQUAL(request(FWCFG_FILES << 16 | 8 | 2, 4, 8190), 1);     /* no memory */
	CU_ASSERT_EQUAL(request(FWCFG_FILES << 16 | 8 | 2, 2u << 20, 0), 1); /* zeros without end */
	CU_ASSERT_EQUAL(request(FWCFG_FILES << 16 | 8 | 2, UINT32_MAX, 0), 1);
	CU_ASSERT_EQUAL(ram[2000], 0xcc); /* nothing is copied of what is refused */
	CU_ASSERT_NSTRING_EQUAL(body, "0123456789", 10);
	memset(ram, 0xcc, sizeof ram);
	fwcfg_dma_ops.write(&f, 0, UINT32_MAX, 4); /* a request where there is no memory: nothing happens */
	fwcfg_dma_ops.write(&f, 4, 0, 4);
	for (size_t i = 0; i < sizeof ram; i++)
		CU_ASSERT_EQUAL_FATAL(ram[i], 0xcc);
}

/* An item that is a part of a file on the host, which has become shorter since. */
static void test_part(void)
{
	char path[] = "/tmp/hvx-fwcfg-XXXXXX";
	int fd = mkstemp(path);

	CU_ASSERT_FATAL(fd >= 0);
	unlink(path);
	CU_ASSERT_EQUAL_FATAL(pwrite(fd, "0123456789", 10, 0), 10);
	setup();
	CU_ASSERT_EQUAL(fwcfg_add_part(&f, FWCFG_KERNEL, fd, 3, 5), 0);
	CU_ASSERT_EQUAL(request(FWCFG_KERNEL << 16 | 8 | 2, 6, 1024), 0);
	CU_ASSERT_EQUAL(memcmp(ram + 1024, "34567\0", 6), 0);
	CU_ASSERT_EQUAL_FATAL(ftruncate(fd, 5), 0);
	CU_ASSERT_EQUAL(request(FWCFG_KERNEL << 16 | 8 | 2, 6, 1024), 1);
	close(fd);
}

CU_ErrorCode suite_fwcfg(void)
{
	CU_pSuite s = CU_add_suite("fwcfg", NULL, NULL);

	CU_add_test(s, "ports", test_ports);
	CU_add_test(s, "files and their directory", test_files);
	CU_add_test(s, "requests in memory", test_requests);
	CU_add_test(s, "what is refused", test_refused);
	CU_add_test(s, "a part of a file", test_part);
	return CU_get_error();
}

/* hvx.conf and its values. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <string.h>

#include "monitor/config.h"
#include "monitor/firmware.h"
#include "vcpu/trace.h"

static struct config c;
static char err[512];

static int set(const char *key, const char *value)
{
	err[0] = '\0';
	config_next_source(&c);
	return config_set(&c, key, value, err, sizeof err);
}

static int parse(const char *text)
{
	config_init(&c);
	return config_parse(&c, text, strlen(text), "test", err, sizeof err);
}

static void test_memory(void)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {{"512M", 512ull << 20},   {"512", 512ull << 20},    {"1G", 1ull << 30},   {"2048k", 2ull << 20},
		    {"1024G", 1024ull << 30}, {"1m", 1ull << 20},       {"1T", 1ull << 40},   {"1.5G", 3ull << 29},
		    {"512MiB", 512ull << 20}, {"1GiB", 1ull << 30},     {"0.5t", 1ull << 39}, {"1.25gib", 5ull << 28},
		    {"1.3G", 1395863552},     {"65536KiB", 64ull << 20}};
	static const char *const bad[] = {"",           "0",
					  "M",          "-1",
					  "12X",        "512MB",
					  "1025G",      "99999999999999999999G",
					  "1K",         "1025K",
					  " 1G",        "0x100M",
					  "1.5",        "18446744073709551615",
					  "1.G",        ".5G",
					  "1..5G",      "1.5.5G",
					  "1.1234567G", "2T",
					  "1GB",        "1Gi",
					  "1iB",        "16777216T",
					  "1,5G",       "1.5GiBx"};

	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		CU_ASSERT_EQUAL(set("memory", good[i].text), 0);
		CU_ASSERT_EQUAL(c.memory, good[i].bytes);
	}
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		CU_ASSERT_EQUAL(set("memory", bad[i]), -EINVAL);
}

/* A little more than 8 bytes a page for us, 64 for the guest's kernel. */
static void test_memory_cost(void)
{
	CU_ASSERT(config_memory_cost(1ull << 40) > 18ull << 30 && config_memory_cost(1ull << 40) < 20ull << 30);
	CU_ASSERT(config_memory_cost(1ull << 30) < 20ull << 20);
}

/* One source says a thing once; what can be there several times is told by the table. */
static void test_twice(void)
{
	static const char *const once[][2] = {
		{"name", "a"},
		{"memory", "1G"},
		{"cpus", "1"},
		{"kernel", "/k"},
		{"append", "x"},
		{"console", "pty"},
		{"virtio-console", "pty"},
		{"sandbox", "best"},
		{"trace", "irq"},
		{"trace-file", "/t"},
		{"no-reboot", NULL},
		{"debug-exit", NULL},
		{"exact-flags", NULL},
		{"windows", "kernel"},
		{"direct", "auto"},
		{"debugcon", "stderr"},
		{"pidfile", "/p"},
		{"log", "/l"},
		{"rng", NULL},
		{"balloon", NULL},
		{"watchdog", "reset"},
	};
	static const char *const often[][2] = {{"initrd", "/i"}, {"disk", "path=/d"}, {"net", "user"}};
	char want[64];

	config_init(&c);
	for (size_t i = 0; i < sizeof once / sizeof once[0]; i++) {
		CU_ASSERT_EQUAL(config_set(&c, once[i][0], once[i][1], err, sizeof err), 0);
		CU_ASSERT_EQUAL(config_set(&c, once[i][0], once[i][1], err, sizeof err), -EINVAL);
		snprintf(want, sizeof want, "%s is given twice", once[i][0]);
		CU_ASSERT_STRING_EQUAL(err, want);
	}
	for (size_t i = 0; i < sizeof often / sizeof often[0]; i++)
		for (int n = 0; n < 2; n++)
			CU_ASSERT_EQUAL(config_set(&c, often[i][0], often[i][1], err, sizeof err), 0);
	config_next_source(&c);
	CU_ASSERT_EQUAL(config_set(&c, "memory", "2G", err, sizeof err), 0);
	CU_ASSERT_EQUAL(c.memory, 2ull << 30);
	CU_ASSERT_EQUAL(parse("kernel = /k\nappend = a\n\nappend = b\n"), -EINVAL);
	CU_ASSERT_STRING_EQUAL(err, "test:4: append is given twice");
	CU_ASSERT_EQUAL(parse("kernel = /k\ninitrd = /a\ninitrd = /b\n"), 0);
}

static void test_names(void)
{
	CU_ASSERT(config_name_ok("a"));
	CU_ASSERT(config_name_ok("web-1.example_x"));
	CU_ASSERT_FALSE(config_name_ok(""));
	CU_ASSERT_FALSE(config_name_ok("."));
	CU_ASSERT_FALSE(config_name_ok("../x"));
	CU_ASSERT_FALSE(config_name_ok("a/b"));
	CU_ASSERT_FALSE(config_name_ok("-x"));
	CU_ASSERT_FALSE(config_name_ok("a b"));
	char longest[65];
	memset(longest, 'a', 64);
	longest[64] = '\0';
	CU_ASSERT_FALSE(config_name_ok(longest));
	longest[63] = '\0';
	CU_ASSERT(config_name_ok(longest));
}

static void test_values(void)
{
	config_init(&c);
	CU_ASSERT_EQUAL(set("nonsense", "1"), -ENOENT);
	CU_ASSERT_EQUAL(set("kernel", NULL), -EINVAL);
	CU_ASSERT_EQUAL(set("kernel", ""), -EINVAL);
	CU_ASSERT_EQUAL(set("append", ""), 0);
	CU_ASSERT_EQUAL(set("cpus", "1"), 0);
	CU_ASSERT_EQUAL(set("cpus", "0"), -EINVAL);
	CU_ASSERT_EQUAL(set("cpus", "1x"), -EINVAL);
	CU_ASSERT_EQUAL(set("cpus", "33"), -EINVAL);
	CU_ASSERT_EQUAL(set("cpus", "32"), 0);
	CU_ASSERT_EQUAL(set("console", "pty"), 0);
	CU_ASSERT_EQUAL(c.console, CONSOLE_PTY);
	CU_ASSERT_EQUAL(set("console", "file:/tmp/x"), 0);
	CU_ASSERT_STRING_EQUAL(c.console_path, "/tmp/x");
	CU_ASSERT_EQUAL(set("console", "file:"), -EINVAL);
	CU_ASSERT_EQUAL(set("console", "serial"), -EINVAL);
	CU_ASSERT_EQUAL(set("sandbox", "best"), 0);
	CU_ASSERT_FALSE(c.strict);
	CU_ASSERT_EQUAL(set("sandbox", "none"), -EINVAL);
	CU_ASSERT_EQUAL(set("no-reboot", NULL), 0);
	CU_ASSERT(c.no_reboot);
	CU_ASSERT_EQUAL(set("no-reboot", "no"), 0);
	CU_ASSERT_FALSE(c.no_reboot);
	CU_ASSERT_EQUAL(set("no-reboot", "maybe"), -EINVAL);
}

static void test_local(void)
{
	config_init(&c);
	CU_ASSERT_FALSE(c.local.rng);
	CU_ASSERT_EQUAL(set("rng", NULL), 0);
	CU_ASSERT(c.local.rng && c.local.rng_bytes == DEVOPT_RNG_BYTES);
	CU_ASSERT_EQUAL(set("rng", "bytes=64K,bytes-burst=1"), 0);
	CU_ASSERT(c.local.rng_bytes == 65536 && c.local.rng_burst == 1);
	CU_ASSERT_EQUAL(set("rng", "bytes=none"), 0);
	CU_ASSERT_EQUAL(c.local.rng_bytes, 0);
	CU_ASSERT_EQUAL(set("rng", "no"), 0);
	CU_ASSERT_FALSE(c.local.rng);
	CU_ASSERT_EQUAL(set("rng", "yes"), 0);
	CU_ASSERT(c.local.rng);
	CU_ASSERT_EQUAL(set("rng", "ops=5"), -EINVAL);
	CU_ASSERT_EQUAL(set("rng", "bytes=x"), -EINVAL);
	CU_ASSERT_EQUAL(set("rng", "bytes"), -EINVAL);
	CU_ASSERT_EQUAL(set("rng", "colour=red"), -EINVAL);
	CU_ASSERT_EQUAL(set("rng", ""), -EINVAL);
	CU_ASSERT_EQUAL(set("disk", "path=/d.raw,id=rng"), -EINVAL);
	CU_ASSERT_EQUAL(set("disk", "path=/d.raw,id=cpu12"), -EINVAL);
	CU_ASSERT_EQUAL(set("disk", "path=/d.raw,id=cpus"), 0);
	CU_ASSERT_EQUAL(set("windows", "off"), 0);
	CU_ASSERT_EQUAL(c.windows, WINDOWS_OFF);
	CU_ASSERT_EQUAL(set("windows", "all"), -EINVAL);
	CU_ASSERT_EQUAL(c.direct, DIRECT_NEVER);
	CU_ASSERT_EQUAL(set("direct", "always"), 0);
	CU_ASSERT_EQUAL(c.direct, DIRECT_ALWAYS);
	CU_ASSERT_EQUAL(set("direct", "sometimes"), -EINVAL);
	CU_ASSERT_EQUAL(set("direct", "never"), 0);
	CU_ASSERT_EQUAL(set("watchdog", "pause"), 0);
	CU_ASSERT_EQUAL(c.local.watchdog, WATCHDOG_PAUSE);
	CU_ASSERT_EQUAL(set("watchdog", "no"), 0);
	CU_ASSERT_EQUAL(c.local.watchdog, WATCHDOG_OFF);
	CU_ASSERT_EQUAL(set("watchdog", NULL), -EINVAL);
	CU_ASSERT_EQUAL(set("watchdog", "bark"), -EINVAL);
	CU_ASSERT_EQUAL(set("balloon", NULL), 0);
	CU_ASSERT(c.local.balloon);
	CU_ASSERT_EQUAL(set("balloon", "no"), 0);
	CU_ASSERT_FALSE(c.local.balloon);
	CU_ASSERT_EQUAL(set("balloon", "1G"), -EINVAL);
	CU_ASSERT_EQUAL(parse("kernel = /k\nrng = bytes=1M\n"), 0);
	CU_ASSERT(c.local.rng);
}

static void test_trace(void)
{
	CU_ASSERT_EQUAL(trace_parse("exec"), TRACE_EXEC);
	CU_ASSERT_EQUAL(trace_parse("mmio,pio"), TRACE_MMIO | TRACE_PIO);
	CU_ASSERT_EQUAL(trace_parse("all"), TRACE_ALL);
	CU_ASSERT_EQUAL(trace_parse(""), 0);
	CU_ASSERT_EQUAL(trace_parse("exec,"), 0);
	CU_ASSERT_EQUAL(trace_parse("exec,foo"), 0);
	CU_ASSERT_EQUAL(set("trace", "irq,foo"), -EINVAL);
}

static void test_file(void)
{
	CU_ASSERT_EQUAL(parse("# a comment\n\n  kernel =  /boot/vmlinuz  \nmemory=1G\r\nappend = root=/dev/vda quiet\n"
			      "no-reboot = yes"),
			0);
	CU_ASSERT_STRING_EQUAL(c.kernel, "/boot/vmlinuz");
	CU_ASSERT_EQUAL(c.memory, 1ull << 30);
	CU_ASSERT_STRING_EQUAL(c.append, "root=/dev/vda quiet");
	CU_ASSERT(c.no_reboot);
	CU_ASSERT_EQUAL(config_check(&c, err, sizeof err), 0);
}

static void test_file_errors(void)
{
	CU_ASSERT_EQUAL(parse("kernel=/k\nmemory"), -EINVAL);
	CU_ASSERT_STRING_EQUAL(err, "test:2: no '=' in the line");
	CU_ASSERT_EQUAL(parse("\n\nfoo = 1\n"), -EINVAL);
	CU_ASSERT_STRING_EQUAL(err, "test:3: unknown setting 'foo'");
	CU_ASSERT_EQUAL(parse("memory = lots\n"), -EINVAL);
	CU_ASSERT_EQUAL(config_parse(&c, "a\0b", 3, "test", err, sizeof err), -EINVAL);
	static char big[70000];
	memset(big, '\n', sizeof big);
	CU_ASSERT_EQUAL(config_parse(&c, big, sizeof big, "test", err, sizeof err), -EINVAL);
	CU_ASSERT_EQUAL(config_load(&c, "/nonexistent/hvx.conf", err, sizeof err), -ENOENT);
}

/* What is not there yet is said, not ignored. */
static void test_direct(void)
{
	config_init(&c);
	CU_ASSERT_EQUAL(set("kernel", "/k"), 0);
	CU_ASSERT_EQUAL(set("direct", "auto"), 0);
	CU_ASSERT_EQUAL(config_check(&c, err, sizeof err), 0);
	CU_ASSERT_EQUAL(set("cpus", "2"), 0);
	CU_ASSERT_EQUAL(config_check(&c, err, sizeof err), -EINVAL);
	CU_ASSERT_STRING_EQUAL(err, "direct=auto is not there yet for VMs with several CPUs");
	CU_ASSERT_EQUAL(set("cpus", "1"), 0);
	CU_ASSERT_EQUAL(set("merge", "self"), 0);
	CU_ASSERT_EQUAL(config_check(&c, err, sizeof err), -EINVAL);
	CU_ASSERT_EQUAL(set("direct", "never"), 0);
	CU_ASSERT_EQUAL(config_check(&c, err, sizeof err), 0);
}

static void test_check(void)
{
	config_init(&c);
	CU_ASSERT_EQUAL(config_check(&c, err, sizeof err), -EINVAL);
	set("kernel", "/k");
	CU_ASSERT_EQUAL(config_check(&c, err, sizeof err), 0);
	set("trace-file", "/t");
	CU_ASSERT_EQUAL(config_check(&c, err, sizeof err), -EINVAL);
	set("trace", "exec");
	CU_ASSERT_EQUAL(config_check(&c, err, sizeof err), 0);
	set("debugcon", "stderr");
	CU_ASSERT_EQUAL(config_check(&c, err, sizeof err), -EINVAL);
	set("debug-exit", NULL);
	CU_ASSERT_EQUAL(config_check(&c, err, sizeof err), 0);
}

/* Checks lines of settings; what is wrong, or "". */
static const char *start(const char *lines)
{
	err[0] = '\0';
	if (!parse(lines))
		config_check(&c, err, sizeof err);
	return err;
}

static void test_firmware(void)
{
	static const char *const good[] = {
		"kernel=/k",
		"disk=path=/d",
		"disk=path=/d\nboot=disk",
		"disk=path=/d\nboot=disk,menu",
		"disk=path=/d\nboot=menu",
		"disk=path=/d,id=root\nboot=root",
		"net=user\nboot=net",
		"disk=path=/d\nfirmware=uefi\nnvram=/n",
		"firmware=/f\nnvram=/n",
		"firmware=uefi\nkernel=/k\ninitrd=/i\nappend=x",
		"disk=path=/d\ndebugcon=stderr",
	};
	static const char *const bad[] = {
		"",
		"net=user",
		"append=x\ndisk=path=/d",
		"initrd=/i\ndisk=path=/d",
		"kernel=/k\nfirmware=bios",
		"kernel=/k\nnvram=/n",
		"kernel=/k\nboot=disk",
		"disk=path=/d\nnvram=/n",
		"disk=path=/d\nboot=net",
		"disk=path=/d\nboot=root",
		"disk=path=/d\nboot=disk,often",
		"net=user\nboot=disk",
		"firmware=uefi\nkernel=/k\ninitrd=/i\ninitrd=/j",
	};

	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		CU_ASSERT_STRING_EQUAL(start(good[i]), "");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		CU_ASSERT_STRING_NOT_EQUAL(start(bad[i]), "");
	start("disk=path=/d");
	CU_ASSERT_EQUAL(c.firmware, FIRMWARE_BIOS);
	start("kernel=/k\ndisk=path=/d");
	CU_ASSERT_EQUAL(c.firmware, FIRMWARE_NONE);
	start("disk=path=/d\nboot=disk,menu");
	CU_ASSERT(c.boot_menu);
}

static void test_order(void)
{
	char order[MSG_ORDER_MAX];

	start("disk=path=/d\ndisk=path=/e,id=second\nnet=user");
	firmware_order(&c, 1, order, sizeof order);
	CU_ASSERT_STRING_EQUAL(order, "/pci@i0cf8/scsi@2/disk@0,0\n/pci@i0cf8/scsi@3/disk@0,0\n"
				      "/pci@i0cf8/ethernet@1/ethernet-phy@0\n");
	start("disk=path=/d\ndisk=path=/e,id=second\nnet=user\nboot=second");
	firmware_order(&c, 15, order, sizeof order);
	CU_ASSERT_STRING_EQUAL(order, "/pci@i0cf8/scsi@11/disk@0,0\n/pci@i0cf8/scsi@10/disk@0,0\n"
				      "/pci@i0cf8/ethernet@f/ethernet-phy@0\n");
	start("disk=path=/d\nnet=user\nboot=net");
	firmware_order(&c, 1, order, sizeof order);
	CU_ASSERT_STRING_EQUAL(
		order, "/rom@genroms/net.rom\n/pci@i0cf8/ethernet@1/ethernet-phy@0\n/pci@i0cf8/scsi@2/disk@0,0\n");
}

CU_ErrorCode suite_config(void)
{
	CU_pSuite s = CU_add_suite("config", NULL, NULL);

	if (!s || !CU_ADD_TEST(s, test_memory) || !CU_ADD_TEST(s, test_memory_cost) || !CU_ADD_TEST(s, test_twice) ||
	    !CU_ADD_TEST(s, test_names) || !CU_ADD_TEST(s, test_values) || !CU_ADD_TEST(s, test_trace) ||
	    !CU_ADD_TEST(s, test_local) || !CU_ADD_TEST(s, test_file) || !CU_ADD_TEST(s, test_file_errors) ||
	    !CU_ADD_TEST(s, test_direct) || !CU_ADD_TEST(s, test_check) || !CU_ADD_TEST(s, test_firmware) ||
	    !CU_ADD_TEST(s, test_order))
		return CU_get_error();
	return CUE_SUCCESS;
}

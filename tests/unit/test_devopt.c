/* --disk= and --net=: what is accepted, and that everything else is refused with a line. */
#include <CUnit/CUnit.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "monitor/config.h"
#include "monitor/image.h"

static struct disk_option d;
static struct net_option n;
static char err[512];

static int disk(const char *text)
{
	err[0] = '\0';
	return devopt_disk(&d, text, err, sizeof err);
}

static int net(const char *text)
{
	err[0] = '\0';
	return devopt_net(&n, text, err, sizeof err);
}

static void test_disk(void)
{
	CU_ASSERT_EQUAL(disk("path=/a/b.raw"), 0);
	CU_ASSERT_STRING_EQUAL(d.path, "/a/b.raw");
	CU_ASSERT_EQUAL(d.queues, 0);
	CU_ASSERT_EQUAL(disk("path=/a,queues=8"), 0);
	CU_ASSERT_EQUAL(d.queues, 8);
	CU_ASSERT_EQUAL(disk("path=/a/b.raw"), 0);
	CU_ASSERT(d.format == FORMAT_AUTO && !d.readonly && !d.snapshot && !d.nocache && !d.pause_error && !d.id[0]);
	CU_ASSERT_EQUAL(disk("path=x,,y=z,format=qcow2,snapshot,cache=none,on-error=pause,serial=S-1,id=root,ops=10K,"
			     "ops-burst=20,bytes=1M,bytes-burst=none"),
			0);
	CU_ASSERT_STRING_EQUAL(d.path, "x,y=z");
	CU_ASSERT(d.format == FORMAT_QCOW2 && d.snapshot && d.nocache && d.pause_error);
	CU_ASSERT_STRING_EQUAL(d.serial, "S-1");
	CU_ASSERT_STRING_EQUAL(d.id, "root");
	CU_ASSERT(d.limits.ops == 10240 && d.limits.ops_burst == 20 && d.limits.bytes == 1 << 20 &&
		  d.limits.bytes_burst == 0);
}

static void test_disk_bad(void)
{
	static const char *const bad[] = {
		"",
		"readonly",
		"path",
		"path=",
		"path=a,",
		",path=a",
		"path=a,path=b",
		"path=a,format=iso",
		"path=a,format",
		"path=a,readonly=yes",
		"path=a,readonly,readonly",
		"path=a,readonly,snapshot",
		"path=a,cache=unsafe",
		"path=a,on-error=stop",
		"path=a,serial=123456789012345678901",
		"path=a,serial=a b",
		"path=a,queues=0",
		"path=a,queues=9",
		"path=a,queues=2x",
		"path=a,queues=-1",
		"path=a,queues=2,bus=ahci",
		"path=a,id=1a",
		"path=a,id=a/b",
		"path=a,id=abcdefghijklmnopqrstuvwxyzabcdef",
		"path=a,ops=-1",
		"path=a,ops=1X",
		"path=a,ops",
		"path=a,bytes=99999999999999999999",
		"path=a,bytes=2097152T",
		"path=a,unknown=1",
		"path=a,=b",
		"a_key_that_is_longer_than_any=1,path=a",
	};
	char longest[DEVOPT_PATH_MAX + 16] = "path=";

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CU_ASSERT_EQUAL(disk(bad[i]), -EINVAL);
		CU_ASSERT(err[0] && !strchr(err, '\n'));
	}
	memset(longest + 5, 'a', DEVOPT_PATH_MAX - 1);
	CU_ASSERT_EQUAL(disk(longest), 0);
	longest[5 + DEVOPT_PATH_MAX - 1] = 'a';
	CU_ASSERT_EQUAL(disk(longest), -EINVAL);
}

/* What a path without path= and one with a single comma end in says how to write it. */
static void test_disk_hints(void)
{
	CU_ASSERT_EQUAL(disk("/images/a-rather-long-name-of-a.raw"), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(err, "path=FILE"));
	CU_ASSERT_EQUAL(disk("a.raw,readonly"), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(err, "path=FILE"));
	CU_ASSERT_EQUAL(disk("path=/images/a,b.raw"), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(err, "'b.raw' (a comma within a value is written twice)"));
	CU_ASSERT_EQUAL(disk("path=/images/a,b=c.raw,readonly"), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(err, "written twice"));
	CU_ASSERT_EQUAL(disk("colour=red"), -EINVAL);
	CU_ASSERT_PTR_NULL(strstr(err, "path=FILE"));
	CU_ASSERT_EQUAL(disk("path=/images/a,,b.raw"), 0);
	CU_ASSERT_STRING_EQUAL(d.path, "/images/a,b.raw");
}

static void test_net(void)
{
	static const uint8_t mac[6] = {0x52, 0x54, 0, 0x12, 0xab, 0xff};

	CU_ASSERT_EQUAL(net("user,forward=tcp:127.0.0.1:2222:22,forward=udp::53:5353,forward=tcp:[::1]:1:65535"), 0);
	CU_ASSERT(n.backend == NET_PASST && n.nforwards == 3 && !n.restricted && !n.has_mac && !n.mtu);
	CU_ASSERT_STRING_EQUAL(n.forward[0].addr, "127.0.0.1");
	CU_ASSERT(!n.forward[0].udp && n.forward[0].host_port == 2222 && n.forward[0].guest_port == 22);
	CU_ASSERT(n.forward[1].udp && !n.forward[1].addr[0] && n.forward[1].guest_port == 5353);
	CU_ASSERT_STRING_EQUAL(n.forward[2].addr, "::1");
	CU_ASSERT_EQUAL(n.forward[2].ports, 1);
	CU_ASSERT_EQUAL(net("user,forward=tcp:localhost:8000-8010:80,forward=udp::1-256:300-555"), -EINVAL); /* 267 */
	CU_ASSERT_EQUAL(net("user,forward=tcp:localhost:8000-8010:80,forward=udp:[0:0::1]:8000-8002:7-9"), 0);
	CU_ASSERT_STRING_EQUAL(n.forward[0].addr, "127.0.0.1");
	CU_ASSERT(n.forward[0].host_port == 8000 && n.forward[0].guest_port == 80 && n.forward[0].ports == 11);
	CU_ASSERT_STRING_EQUAL(n.forward[1].addr, "::1");
	CU_ASSERT(n.forward[1].guest_port == 7 && n.forward[1].ports == 3);
	CU_ASSERT_EQUAL(net("tap=tap0,mac=52:54:00:12:Ab:ff,mtu=9000,link=down,packets=5,id=lan"), 0);
	CU_ASSERT(n.backend == NET_TAP && n.has_mac && n.mtu == 9000 && n.link_down && n.limits.ops == 5);
	CU_ASSERT(!memcmp(n.mac, mac, 6));
	CU_ASSERT_EQUAL(net("switch=/run/s,mtu=65521"), 0);
	CU_ASSERT_EQUAL(n.queues, 0);
	CU_ASSERT_EQUAL(net("user,queues=8"), 0);
	CU_ASSERT_EQUAL(n.queues, 8);
	CU_ASSERT_EQUAL(net("switch=/run/s,mtu=65521"), 0);
	CU_ASSERT_STRING_EQUAL(n.target, "/run/s");
	CU_ASSERT_EQUAL(net("user,restrict"), 0);
	CU_ASSERT(n.restricted);
}

static void test_net_bad(void)
{
	static const char *const bad[] = {
		"",
		"mac=52:54:00:12:34:56",
		"user=x",
		"user,tap=a",
		"tap=",
		"tap=abcdefghijklmnop",
		"tap=a/b",
		"switch",
		"user,user",
		"tap=a,restrict",
		"tap=a,forward=tcp:127.0.0.1:1:2",
		"user,forward=tcp:127.0.0.1:1",
		"user,forward=tcp",
		"user,forward=sctp:127.0.0.1:1:2",
		"user,forward=tcp:127.0.0.1:0:2",
		"user,forward=tcp:127.0.0.1:1:65536",
		"user,forward=tcp:127.0.0:1:2",
		"user,forward=tcp:127.0.0.1:10-9:2",
		"user,forward=tcp:127.0.0.1:10-:2",
		"user,forward=tcp:127.0.0.1:-10:2",
		"user,forward=tcp:127.0.0.1:8K:2",
		"user,forward=tcp:127.0.0.1:10-12:20-21",
		"user,forward=tcp:127.0.0.1:10-12:65534",
		"user,forward=tcp:127.0.0.1:1-257:1",
		"user,forward=tcp:LOCALHOST:1:2",
		"user,forward=tcp:[localhost]:1:2",
		"user,forward=tcp:127.0.0.1:1:2,forward=tcp:127.0.0.1:1:3",
		"user,forward=tcp:127.0.0.1:1:2,forward=tcp:127.0.0.2:1:3",
		"user,forward=udp::10-20:1,forward=udp::20:3",
		"user,forward=tcp:[::1]:1:2,restrict",
		"user,forward=tcp:[::g]:1:2",
		"user,forward=tcp:[]:1:2",
		"user,forward=tcp:]:1:2",
		"user,forward=tcp:[::1:1:2",
		"user,forward=tcp:::1:1:2",
		"user,forward=tcp:-q:1:2",
		"user,mac=01:00:5e:00:00:01",
		"user,mac=00:00:00:00:00:00",
		"user,mac=52:54:00:12:34",
		"user,mac=52-54-00-12-34-56",
		"user,mac=5g:54:00:12:34:56",
		"user,mtu=575",
		"user,queues=0",
		"user,queues=9",
		"user,queues",
		"user,mtu=65522",
		"user,link=on",
		"user,,mac=1",
	};

	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		CU_ASSERT_EQUAL(net(bad[i]), -EINVAL);
		CU_ASSERT(err[0] && !strchr(err, '\n'));
	}
}

/* A port is one card's; of two addresses each may have it. */
static void test_forwards(void)
{
	static struct config c;

	CU_ASSERT_EQUAL(net("user,forward=tcp::70000:22"), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(err, "no port, they are 1 to 65535: '70000'"));
	CU_ASSERT_EQUAL(net("user,forward=tcp::1:1,forward=tcp::1:2"), -EINVAL);
	CU_ASSERT_PTR_NOT_NULL(strstr(err, "forwarded twice: 'tcp::1:2'"));
	CU_ASSERT_EQUAL(net("user,forward=tcp::1:1,forward=udp::1:1"), 0);
	config_init(&c);
	CU_ASSERT_EQUAL(config_set(&c, "net", "user,forward=tcp:127.0.0.1:80-90:80", err, sizeof err), 0);
	CU_ASSERT_EQUAL(config_set(&c, "net", "user,forward=tcp:localhost:90:80", err, sizeof err), -EINVAL);
	CU_ASSERT_EQUAL(config_set(&c, "net", "user,forward=tcp::80:80", err, sizeof err), -EINVAL);
	CU_ASSERT_EQUAL(config_set(&c, "net", "user,forward=tcp:0.0.0.0:80:80", err, sizeof err), -EINVAL);
	CU_ASSERT_EQUAL(c.nnets, 1);
	CU_ASSERT_EQUAL(config_set(&c, "net", "user,forward=tcp:[::]:80:80", err, sizeof err), 0);
	CU_ASSERT_EQUAL(config_set(&c, "net", "user,forward=tcp:[::1]:80:80", err, sizeof err), -EINVAL);
	CU_ASSERT_EQUAL(config_set(&c, "net", "user,forward=tcp:127.0.0.2:80:80", err, sizeof err), 0);
	CU_ASSERT_EQUAL(config_set(&c, "net", "user,forward=udp:127.0.0.1:80:80", err, sizeof err), 0);
	CU_ASSERT_EQUAL(config_set(&c, "net", "user,forward=tcp:127.0.0.1:91:80", err, sizeof err), 0);
}

static void test_ids(void)
{
	static struct config c;

	config_init(&c);
	CU_ASSERT_EQUAL(config_set(&c, "disk", "path=a.raw", err, sizeof err), 0);
	CU_ASSERT_EQUAL(config_set(&c, "disk", "path=b.raw", err, sizeof err), 0);
	CU_ASSERT_EQUAL(config_set(&c, "net", "user", err, sizeof err), 0);
	CU_ASSERT(c.ndisks == 2 && c.nnets == 1);
	CU_ASSERT_STRING_EQUAL(c.disk[1].id, "blk1");
	CU_ASSERT_STRING_EQUAL(c.net[0].id, "net0");
	CU_ASSERT_EQUAL(config_set(&c, "net", "user,id=blk1", err, sizeof err), -EINVAL);
	CU_ASSERT_EQUAL(c.nnets, 1);
	for (int i = 2; i < CONFIG_DISKS; i++)
		CU_ASSERT_EQUAL(config_set(&c, "disk", "path=b.raw", err, sizeof err), 0);
	CU_ASSERT_EQUAL(config_set(&c, "disk", "path=b.raw", err, sizeof err), -EINVAL);
}

static int open_as(const char *path, const char *options)
{
	char text[200];
	struct image *i;

	snprintf(text, sizeof text, "path=%s%s", path, options);
	CU_ASSERT_EQUAL_FATAL(disk(text), 0);
	return image_open(&d, NULL, 0, &i, err, sizeof err) ? -1 : image_take(i);
}

/* Open file descriptions of one process exclude each other as those of two do. */
static void test_image_lock(void)
{
	char path[] = "/tmp/hvx-image-XXXXXX.raw", pid[32];
	int fd = mkstemps(path, 4);

	CU_ASSERT_FATAL(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
	close(fd);
	int a = open_as(path, ""), b;
	CU_ASSERT(a >= 0 && d.format == FORMAT_RAW && (fcntl(a, F_GETFL) & O_ACCMODE) == O_RDWR);
	CU_ASSERT_EQUAL(open_as(path, ""), -1);
	snprintf(pid, sizeof pid, "process %d", (int)getpid());
	CU_ASSERT_PTR_NOT_NULL(strstr(err, pid));
	CU_ASSERT_EQUAL(open_as(path, ",readonly"), -1);
	close(a);
	a = open_as(path, ",readonly");
	b = open_as(path, ",snapshot");
	CU_ASSERT(a >= 0 && b >= 0 && (fcntl(a, F_GETFL) & O_ACCMODE) == O_RDONLY);
	CU_ASSERT_EQUAL(open_as(path, ""), -1);
	close(a);
	close(b);
	unlink(path);
}

static void test_image_format(void)
{
	char path[] = "/tmp/hvx-image-XXXXXX";
	int fd = mkstemp(path), a;
	uint8_t head[512] = "QFI\xfb";

	CU_ASSERT_FATAL(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
	CU_ASSERT_EQUAL(open_as(path, ""), -1); /* nothing known, and nobody says it is raw */
	CU_ASSERT_PTR_NOT_NULL(strstr(err, "format=raw"));
	CU_ASSERT_EQUAL(open_as(path, ",format=qcow2"), -1);
	a = open_as(path, ",format=raw");
	CU_ASSERT(a >= 0);
	close(a);
	head[7] = 3;
	CU_ASSERT_EQUAL_FATAL(pwrite(fd, head, sizeof head, 0), sizeof head);
	a = open_as(path, "");
	CU_ASSERT(a >= 0 && d.format == FORMAT_QCOW2);
	close(a);
	head[32 + 3] = 1;
	CU_ASSERT_EQUAL_FATAL(pwrite(fd, head, sizeof head, 0), sizeof head);
	CU_ASSERT_EQUAL(open_as(path, ""), -1);
	CU_ASSERT_PTR_NOT_NULL(strstr(err, "encrypted"));
	close(fd);
	unlink(path);
	CU_ASSERT_EQUAL(open_as(path, ""), -1);
	CU_ASSERT_EQUAL(open_as("/tmp", ""), -1);
}

CU_ErrorCode suite_devopt(void);
CU_ErrorCode suite_devopt(void)
{
	CU_pSuite s = CU_add_suite("devopt", NULL, NULL);

	CU_add_test(s, "disk", test_disk);
	CU_add_test(s, "disk, bad", test_disk_bad);
	CU_add_test(s, "net", test_net);
	CU_add_test(s, "net, bad", test_net_bad);
	CU_add_test(s, "forwards", test_forwards);
	CU_add_test(s, "ids", test_ids);
	CU_add_test(s, "disk, hints", test_disk_hints);
	CU_add_test(s, "image: lock", test_image_lock);
	CU_add_test(s, "image: format", test_image_format);
	return CU_get_error();
}

/*
 * Fuzz target: the configuration.  The first byte's low bit says whether the rest is the text of an hvx.conf or a
 * command line, one argument a line.
 *
 * Properties: what is accepted has terminated strings, a name fit for a socket and whole pages of memory; what is
 * refused is refused with a message.
 */
#include <errno.h>
#include <string.h>

#include "monitor/cli.h"
#include "monitor/config.h"
#include "tests/fuzz/fuzz.h"

#define ARGS 24

static void check_string(const char *s, size_t room)
{
	FUZZ_CHECK(memchr(s, 0, room));
}

static void check_devices(const struct config *c)
{
	FUZZ_CHECK(c->ndisks <= CONFIG_DISKS && c->nnets <= CONFIG_NETS);
	for (unsigned i = 0; i < c->ndisks; i++) {
		const struct disk_option *d = &c->disk[i];
		check_string(d->id, sizeof d->id);
		check_string(d->path, sizeof d->path);
		check_string(d->serial, sizeof d->serial);
		FUZZ_CHECK(d->id[0] && d->path[0] && d->format < FORMAT_COUNT);
	}
	for (unsigned i = 0; i < c->nnets; i++) {
		const struct net_option *n = &c->net[i];
		check_string(n->id, sizeof n->id);
		check_string(n->target, sizeof n->target);
		FUZZ_CHECK(n->id[0] && n->backend && n->nforwards <= DEVOPT_FORWARDS && !(n->mac[0] & 1));
	}
}

static void check_config(const struct config *c)
{
	check_devices(c);
	check_string(c->name, sizeof c->name);
	FUZZ_CHECK(!c->name[0] || config_name_ok(c->name));
	FUZZ_CHECK(c->memory >= 1 << 20 && c->memory % 4096 == 0);
	FUZZ_CHECK(msg_cpus_count(&c->cpus) >= 1 && msg_cpus_count(&c->cpus) <= MSG_CPUS_MAX);
	check_string(c->kernel, sizeof c->kernel);
	FUZZ_CHECK(c->ninitrds <= MSG_MODULES_MAX);
	for (unsigned i = 0; i < c->ninitrds; i++) {
		check_string(c->initrd[i].path, sizeof c->initrd[i].path);
		check_string(c->initrd[i].args, sizeof c->initrd[i].args);
		FUZZ_CHECK(c->initrd[i].path[0]);
	}
	check_string(c->append, sizeof c->append);
	check_string(c->console_path, sizeof c->console_path);
	check_string(c->trace_file, sizeof c->trace_file);
	check_string(c->debugcon, sizeof c->debugcon);
	check_string(c->pidfile, sizeof c->pidfile);
	check_string(c->log, sizeof c->log);
	FUZZ_CHECK(c->console != CONSOLE_FILE || c->console_path[0]);
	check_string(c->second_path, sizeof c->second_path);
	FUZZ_CHECK(c->second != CONSOLE_FILE || c->second_path[0]);
	FUZZ_CHECK(c->local.watchdog < WATCHDOG_COUNT && (c->local.rng_bytes | c->local.rng_burst) <= MSG_RATE_MAX);
}

static void parse_file(const char *text, size_t len)
{
	static struct config c;
	char err[700] = "";
	int rc;

	config_init(&c);
	rc = config_parse(&c, text, len, "hvx.conf", err, sizeof err);
	FUZZ_CHECK(rc == 0 || rc == -EINVAL);
	FUZZ_CHECK(memchr(err, 0, sizeof err) && (rc == 0) == !err[0]);
	check_config(&c);
	if (!rc) {
		rc = config_check(&c, err, sizeof err);
		FUZZ_CHECK(rc == 0 || err[0]);
	}
}

static void parse_args(char *text)
{
	char *argv[ARGS + 2] = {(char[]){"hvx-monitor"}}, *save, err[700] = "";
	static struct cli c;
	int argc = 1, rc;

	for (char *a = strtok_r(text, "\n", &save); a && argc <= ARGS; a = strtok_r(NULL, "\n", &save))
		if (strncmp(a, "--config=", 9)) /* opens no files */
			argv[argc++] = a;
	rc = cli_parse(&c, argc, argv, err, sizeof err);
	FUZZ_CHECK(rc >= 0 && (rc == 0) == !err[0]);
	check_config(&c.cfg);
	FUZZ_CHECK(rc || c.cmd != CMD_NONE || c.help_on == CMD_NONE);
	FUZZ_CHECK(rc || (c.cmd != CMD_RUN && c.cmd != CMD_START) || c.cfg.kernel[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *text;

	if (!len)
		return 0;
	text = malloc(len);
	FUZZ_CHECK(text);
	memcpy(text, data + 1, len - 1);
	text[len - 1] = 0;
	if (data[0] & 1)
		parse_args(text);
	else
		parse_file(text, len - 1);
	free(text);
	return 0;
}

size_t fuzz_seed(unsigned i, uint8_t *buf)
{
	static const char *const seeds[] = {
		"0# a guest\nname = vm1\nmemory = 512M\ncpus = 1\nkernel = /boot/vmlinuz\n",
		"0initrd=/boot/initrd.img\r\nappend = console=ttyS0 quiet \nconsole = file:/var/log/vm.log\nsandbox = best\n",
		"0trace = exec,irq,mmio,mmu,exc,sys,pio\ntrace-file = /tmp/t\nno-reboot = yes\ndebug-exit = no\ntrace = all",
		"0rng = bytes=64K,bytes-burst=1\nballoon = yes\nwatchdog = pause\nvirtio-console = file:/tmp/c\nrng = no",
		"0debugcon = stderr\npidfile = /run/x.pid\nlog = /tmp/l",
		"0memory = 1G\nmemory=1048576K\nconsole = pty\nconsole = stdio\nsandbox = strict\ndebug-exit = yes\n",
		"0\n\n\t # x\n = \nname\n",
		"1run\n--name=vm1\n--memory=64M\n--cpus=1\n--kernel=/boot/vmlinuz\n--initrd=/x,args=y z\n--initrd=/b\n--append=console=ttyS0\n",
		"1start\n--kernel=k\n--console=pty\n--sandbox=strict\n--trace=exec,irq\n--trace-file=f\n--no-reboot\n--debug\n",
		"1run\n--kernel=k\n--rng=bytes=none\n--balloon\n--watchdog=reset\n--virtio-console=stdio\n",
		"1start\n--kernel=k\n--debug-exit\n--debugcon=stderr\n--pidfile=p\n--log=l\n--name=a.b_c-d",
		"0disk = path=/a,,b.raw,format=raw,readonly,serial=s,id=a\ndisk=path=b,format=qcow2,snapshot,ops=1K\n"
		"net = tap=t0,mac=52:54:00:00:00:01,mtu=9000,link=down\nnet=switch=/s,packets=1,bytes=2M,bytes-burst=none\n",
		"1run\n--kernel=k\n--disk=path=x.img,cache=none,on-error=pause\n"
		"--net=user,restrict,forward=tcp:127.0.0.1:2222:22,forward=udp:[::1]:53:53,forward=tcp::1:2\n",
		"1limit\nvm1\nblk0\nops=10\nbytes=none\n",
		"1link\nvm1\nnet0\ndown\n",
		"1list\n",
		"1status\nvm1\n",
		"1stats\nvm1\n--json\n",
		"1stop\nvm1\n--timeout=10\n",
		"1kill\n--name=vm1\n",
		"1help\nrun\n",
		"1--version\n",
	};
	size_t n;

	if (i >= sizeof seeds / sizeof seeds[0])
		return 0;
	n = strlen(seeds[i]);
	memcpy(buf, seeds[i], n);
	return n;
}

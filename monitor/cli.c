/*
 * Words of the command line to struct cli.  Invariant: options given on the
 * command line win over those of --config, wherever they stand.
 */
#include "monitor/cli.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/err.h"
#include "monitor/command.h"
#include "monitor/notify.h"

static const char vm_options[] =
	"  --name=NAME          name of the VM (default: vm and the process number)\n"
	"  --memory=SIZE        guest RAM: a number with K, M, G or T (default 512M)\n"
	"  --cpus=N[,sockets=S][,cores=C][,threads=T]  virtual CPUs, 1 to 32 (default 1)\n"
	"  --kernel=FILE        bzImage, PVH or multiboot kernel\n"
	"  --initrd=FILE[,args=TEXT]  initial ramdisk, or multiboot module; once for each\n"
	"  --append=TEXT        kernel command line\n"
	"  --firmware=WHICH     bios (default without --kernel), uefi or a file: starts from disks and the network\n"
	"  --nvram=FILE         where UEFI keeps its variables; made at first use\n"
	"  --boot=WHAT[,menu]   start from disk, net or the device of this id; menu: ask on the console\n"
	"  --console=WHERE      stdio (run's default), pty (start's), file:PATH\n"
	"  --virtio-console=WHERE  a second console, the guest's hvc0; it knows the terminal's size\n"
	"  --config=FILE        settings from a file, hvx.conf(5); options win over it\n"
	"  --disk=path=FILE[,...]  a disk: format=auto|raw|qcow2|vmdk|vdi|vhdx|vpc, readonly, snapshot,\n"
	"                       serial=, cache=writeback|none, on-error=report|pause, id=, ops=, bytes=\n"
	"  --net=user[,...]     a network card; or tap=INTERFACE[,create], switch=SOCKET; forward=tcp:ADDR:PORT:GUESTPORT,\n"
	"                       restrict, mac=, mtu=, link=up|down, id=, packets=, bytes=\n"
	"  --rng[=bytes=N|none] a source of random numbers, at most N bytes a second (default 1M)\n"
	"  --watchdog=ACTION    a watchdog; when it runs out: reset, poweroff, pause, none\n"
	"  --balloon[=auto]     the guest can give memory back: hvx-monitor balloon, and what it does not use;\n"
	"                       auto: and is told to when the host is short of it\n"
	"  --memory-guarantee=SIZE  that the host is to have for it, or the VM is refused\n"
	"  --memory-short=go-on|pause  what becomes of it when the host is out of memory\n"
	"  --cpu-limit=PERCENT  of a host CPU, for all processes of the VM; --cpu-weight=N: against others, 100 is usual\n"
	"  --memory-limit=SIZE  for all of them; --pids=N; --io-limit=bytes=N,ops=N: a second, of all disks\n"
	"  --cpu-affinity=LIST  CPUs of the host that they may use, such as 0-3,8\n"
	"  --merge=self|GROUP   equal pages are kept once, of the VM or of this user's VMs of that group\n"
	"  --merge-rate=PERCENT of a CPU at most for finding them (default 5)\n"
	"  --sandbox=LEVEL      strict (default): every layer or no start; best: what can be had\n"
	"  --trace=LIST         of exec,irq,mmio,mmu,exc,sys,pio or all\n"
	"  --trace-file=FILE    where to (default: hvx-NAME.trace)\n"
	"  --no-reboot          a restart by the guest ends the VM\n"
	"  --debug-exit         test devices: exit port 0xf4, debug console 0xe9\n"
	"  --exact-flags        arithmetic flags right at every fault and interrupt, for debuggers; slower\n"
	"  --windows=WHICH      guest code whose memory accesses the host's MMU checks: off, kernel or auto (default)\n"
	"  --direct=WHEN        ring 3 of the guest runs as it is: never (default), auto or always\n"
	"  --debugcon=WHERE     what the debug console gets: stderr or a file\n"
	"  --pidfile=FILE       the monitor's process number goes there\n"
	"  --log=FILE           messages (default: syslog, where standard error is a terminal or gone)\n"
	"  --debug              log every message between the processes\n";

void cli_help(enum cli_command cmd)
{
	const struct command *c = command_of(cmd);

	if (c) {
		printf("usage: hvx-monitor %s %s\n  %s\n", c->name, c->args, c->what);
		if (c->takes & TAKES_VM)
			printf("options:\n%s", vm_options);
		return;
	}
	printf("usage: hvx-monitor COMMAND [options]\n"
	       "Runs unmodified x86 guests on hosts without VT-x or SVM.\ncommands:\n");
	for (c = command_table; c < command_table + command_count; c++)
		if (c->name && !(c->takes & TAKES_HIDDEN))
			printf("  %-8s %-26s %s\n", c->name, c->args, c->what);
	printf("options of run and start:\n%s"
	       "exit status: 0 done, 1 failed, 2 bad usage, 3 bad configuration, 4 the host lacks something,\n"
	       "  5 the guest crashed, 6 a child process died, 8 ended from outside; see hvx-monitor(1)\n",
	       vm_options);
}

static bool takes(const struct cli *c, unsigned what)
{
	const struct command *cmd = command_of(c->cmd);

	return cmd && cmd->takes & what;
}

static bool takes_vm_options(const struct cli *c)
{
	return takes(c, TAKES_VM);
}

int cli_usage(char *err, size_t len, const char *what, const char *arg)
{
	snprintf(err, len, "%s '%.200s'; try hvx-monitor --help", what, arg);
	return HVX_EXIT_USAGE;
}

/* ---- options of commands ---- */

static int seconds(unsigned *to, const char *v, unsigned most, char *err, size_t len)
{
	char *end;
	unsigned long n = strtoul(v, &end, 10);

	if (v[0] < '0' || v[0] > '9' || *end || n > most)
		return cli_usage(err, len, "bad number", v);
	*to = (unsigned)n;
	return 0;
}

static int set_timeout(struct cli *c, const char *v, char *err, size_t len)
{
	return seconds(&c->timeout, v, 86400, err, len);
}

static int set_interval(struct cli *c, const char *v, char *err, size_t len)
{
	int rc = seconds(&c->interval, v, 86400, err, len);

	return rc || c->interval ? rc : cli_usage(err, len, "bad number", v);
}

static int set_count(struct cli *c, const char *v, char *err, size_t len)
{
	return seconds(&c->count, v, 1000000000, err, len);
}

static int set_json(struct cli *c, const char *v, char *err, size_t len)
{
	(void)v, (void)err, (void)len;
	c->json = true;
	return 0;
}

static int set_all(struct cli *c, const char *v, char *err, size_t len)
{
	(void)v, (void)err, (void)len;
	c->all = true;
	return 0;
}

static int set_second(struct cli *c, const char *v, char *err, size_t len)
{
	(void)v, (void)err, (void)len;
	c->ask.console.second = true;
	return 0;
}

static int set_http(struct cli *c, const char *v, char *err, size_t len)
{
	(void)v, (void)err, (void)len;
	c->http = true;
	return 0;
}

static int set_output(struct cli *c, const char *v, char *err, size_t len)
{
	if (!*v)
		return cli_usage(err, len, "no file in", "--output");
	c->output = v;
	return 0;
}

static int set_debug(struct cli *c, const char *v, char *err, size_t len)
{
	(void)v, (void)err, (void)len;
	c->debug = true;
	return 0;
}

/* load_files() has read it. */
static int set_config(struct cli *c, const char *v, char *err, size_t len)
{
	(void)c;
	return *v ? 0 : cli_usage(err, len, "no file in", "--config");
}

const struct cli_option cli_options[] = {
	{"json", TAKES_JSON, false, set_json},
	{"all", TAKES_ALL, false, set_all},
	{"second", TAKES_SECOND, false, set_second},
	{"timeout", TAKES_TIMEOUT, true, set_timeout},
	{"interval", TAKES_INTERVAL, true, set_interval},
	{"count", TAKES_INTERVAL, true, set_count},
	{"output", TAKES_OUTPUT, true, set_output},
	{"http", TAKES_OUTPUT, false, set_http},
	{"debug", TAKES_VM, false, set_debug},
	{"config", TAKES_VM, true, set_config},
};
const unsigned cli_option_count = sizeof cli_options / sizeof cli_options[0];

/* Those that may be there once; the others are config.c's. */
static bool own_twice(struct cli *c, const char *key)
{
	for (unsigned i = 0; i < cli_option_count; i++) {
		if (strcmp(key, cli_options[i].name))
			continue;
		bool twice = c->given >> i & 1;
		c->given |= 1u << i;
		return twice;
	}
	return false;
}

/* Options that only some commands have, and those that set no configuration. */
static int own_option(struct cli *c, const char *key, const char *v, bool *taken, char *err, size_t len)
{
	*taken = true;
	if (!strcmp(key, "help") && !v) {
		c->help_on = c->cmd;
		c->cmd = CMD_HELP;
		return 0;
	}
	if (!strcmp(key, "version") && !v) {
		c->cmd = CMD_VERSION;
		return 0;
	}
	for (const struct cli_option *o = cli_options; o < cli_options + cli_option_count; o++) {
		if (strcmp(key, o->name) || !takes(c, o->takes) || (v && !o->value))
			continue;
		return v || !o->value ? o->set(c, v, err, len) : cli_usage(err, len, "no value in option", key);
	}
	*taken = false;
	return 0;
}

static int option(struct cli *c, const char *arg, char *err, size_t len)
{
	char key[32], why[300];
	const char *eq = strchr(arg, '=');
	size_t n = eq ? (size_t)(eq - arg) : strlen(arg);
	bool taken;

	if (n >= sizeof key)
		return cli_usage(err, len, "unknown option", arg - 2);
	memcpy(key, arg, n);
	key[n] = '\0';
	if (own_twice(c, key))
		return cli_usage(err, len, "given twice:", arg - 2);
	int rc = own_option(c, key, eq ? eq + 1 : NULL, &taken, err, len);
	if (rc || taken)
		return rc;
	if (!takes_vm_options(c) && strcmp(key, "name"))
		return cli_usage(err, len, "unknown option", arg - 2);
	if (eq && config_is_switch(key))
		return cli_usage(err, len, "this option takes no value:", arg - 2);
	rc = config_set(&c->cfg, key, eq ? eq + 1 : NULL, why, sizeof why);
	if (rc == -ENOENT)
		return cli_usage(err, len, "unknown option", arg - 2);
	if (!rc)
		return 0;
	snprintf(err, len, "--%s: %s", key, why);
	return HVX_EXIT_USAGE;
}

static int word(struct cli *c, const char *arg, char *err, size_t len)
{
	const struct command *cmd = command_of(c->cmd);
	char why[300];

	if ((c->cfg.name[0] || takes(c, TAKES_WORD)) && cmd->word) {
		int rc = cmd->word(c, arg, err, len);
		c->words++;
		return rc;
	}
	if (takes(c, TAKES_NO_NAME) || c->cfg.name[0])
		return cli_usage(err, len, "one argument too many:", arg);
	if (config_set(&c->cfg, "name", arg, why, sizeof why))
		return cli_usage(err, len, "not the name of a VM:", arg);
	return 0;
}

static int load_files(struct cli *c, int argc, char **argv, char *err, size_t len)
{
	for (int i = 2; i < argc && takes_vm_options(c); i++)
		if (!strncmp(argv[i], "--config=", 9) && argv[i][9] && config_load(&c->cfg, argv[i] + 9, err, len))
			return HVX_EXIT_CONFIG;
	config_next_source(&c->cfg);
	return 0;
}

static bool asks_for(int argc, char **argv, const char *what)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], what))
			return true;
	return false;
}

static int finish_vm(struct cli *c, char *err, size_t len)
{
	if (c->cmd == CMD_START && (c->cfg.console == CONSOLE_STDIO || c->cfg.second == CONSOLE_STDIO)) {
		snprintf(err, len, "start leaves the terminal: its console cannot be stdio");
		return HVX_EXIT_USAGE;
	}
	if (c->cfg.console == CONSOLE_DEFAULT)
		c->cfg.console = c->cmd == CMD_RUN && c->cfg.second != CONSOLE_STDIO && !notify_wanted() ? CONSOLE_STDIO
													 : CONSOLE_PTY;
	if (!c->cfg.name[0])
		snprintf(c->cfg.name, sizeof c->cfg.name, "vm%d", (int)getpid());
	return config_check(&c->cfg, err, len) ? HVX_EXIT_CONFIG : 0;
}

int cli_parse(struct cli *c, int argc, char **argv, char *err, size_t len)
{
	memset(c, 0, sizeof *c);
	config_init(&c->cfg);
	c->timeout = 60;
	c->interval = 2;
	const struct command *cmd = argc > 1 ? command_named(argv[1]) : NULL;
	if (cmd)
		c->cmd = cmd->cmd;
	if (asks_for(argc, argv, "--help") || (argc > 1 && !strcmp(argv[1], "help"))) {
		c->help_on = c->cmd;
		c->cmd = CMD_HELP;
		return 0;
	}
	if (asks_for(argc, argv, "--version")) {
		c->cmd = CMD_VERSION;
		return 0;
	}
	if (!cmd)
		return argc > 1 ? cli_usage(err, len, "unknown command", argv[1])
				: cli_usage(err, len, "no command given to", "hvx-monitor");
	int rc = load_files(c, argc, argv, err, len);
	for (int i = 2; i < argc && !rc; i++)
		rc = strncmp(argv[i], "--", 2) ? word(c, argv[i], err, len) : option(c, argv[i] + 2, err, len);
	if (!rc && (c->words < cmd->words || (c->ask.limit.id[0] && !c->ask.limit.given)))
		rc = cli_usage(err, len, "words are missing after", argv[1]);
	if (!rc && takes_vm_options(c))
		rc = finish_vm(c, err, len);
	return rc;
}

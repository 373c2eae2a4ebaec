/*
 * Shell completion from the tables of commands, options and keys: printed once, when HVX is built.  Invariant: nothing is
 * listed here that a table lists.
 */
#include "monitor/completion.h"

#include <string.h>

#include "monitor/command.h"

static bool shown(const struct command *c)
{
	return c->name && !(c->takes & TAKES_HIDDEN);
}

static bool named(const struct command *c)
{
	return !(c->takes & TAKES_NO_NAME);
}

/* "--json --timeout= " of a command. */
static void print_options(FILE *f, const struct command *c)
{
	const char *key;

	for (unsigned i = 0; i < cli_option_count; i++)
		if (cli_options[i].takes & c->takes)
			fprintf(f, "--%s%s ", cli_options[i].name, cli_options[i].value ? "=" : "");
	for (unsigned i = 0; c->takes & TAKES_VM && (key = config_key(i)); i++)
		fprintf(f, "--%s%s ", key, config_is_switch(key) ? "" : "=");
	fputs("--help", f);
}

static const char bash_head[] = "# bash completion of hvx-monitor; made by: hvx-monitor completion bash\n"
				"_hvx_monitor()\n{\n"
				"\tlocal line=${COMP_LINE:0:COMP_POINT} cmd=${COMP_WORDS[1]} cur options= vms= word\n"
				"\tcur=${line##*[[:space:]]}\n"
				"\tCOMPREPLY=()\n";

static const char bash_tail[] =
	"\tcase $cur in\n"
	"\t--*=*) # a file, or nothing known; what readline has split off at = is not repeated\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -f -- \"${cur#*=}\")\n"
	"\t\tcompopt -o filenames 2>/dev/null ;;\n"
	"\t-*)\n"
	"\t\tCOMPREPLY=($(compgen -W \"$options\" -- \"$cur\"))\n"
	"\t\t[[ ${COMPREPLY[0]} != *= ]] || compopt -o nospace 2>/dev/null ;;\n"
	"\t*)\n"
	"\t\t[ -z \"$vms\" ] || COMPREPLY=($(compgen -W \"$(\"${COMP_WORDS[0]}\" list 2>/dev/null | while read -r word _; do echo \"$word\"; done)\" -- \"$cur\")) ;;\n"
	"\tesac\n}\n"
	"complete -F _hvx_monitor hvx-monitor\n";

static void print_bash(FILE *f)
{
	fputs(bash_head, f);
	fputs("\tif [ \"$COMP_CWORD\" -le 1 ]; then\n\t\tCOMPREPLY=($(compgen -W \"", f);
	for (unsigned i = 0; i < command_count; i++)
		if (shown(&command_table[i]))
			fprintf(f, "%s ", command_table[i].name);
	fputs("--help --version\" -- \"$cur\"))\n\t\treturn\n\tfi\n\tcase $cmd in\n", f);
	for (unsigned i = 0; i < command_count; i++) {
		if (!shown(&command_table[i]))
			continue;
		fprintf(f, "\t%s)%s options='", command_table[i].name, named(&command_table[i]) ? " vms=y" : "");
		print_options(f, &command_table[i]);
		fputs("' ;;\n", f);
	}
	fputs("\tesac\n", f);
	fputs(bash_tail, f);
}

/* Within single quotes, in an item of _describe: no colon but the first, no quote. */
static void print_what(FILE *f, const char *s)
{
	for (; *s; s++)
		if (*s == '\'')
			fputs("'\\''", f);
		else if (*s == ':')
			fputs("\\:", f);
		else
			fputc(*s, f);
}

static void print_zsh(FILE *f)
{
	fputs("#compdef hvx-monitor\n# zsh completion of hvx-monitor; made by: hvx-monitor completion zsh\n"
	      "local -a commands options vms\ncommands=(\n",
	      f);
	for (unsigned i = 0; i < command_count; i++) {
		if (!shown(&command_table[i]))
			continue;
		fprintf(f, "\t'%s:", command_table[i].name);
		print_what(f, command_table[i].what);
		fputs("'\n", f);
	}
	fputs(")\nif (( CURRENT == 2 )); then\n\t_describe command commands\n\treturn\nfi\ncase $words[2] in\n", f);
	for (unsigned i = 0; i < command_count; i++) {
		if (!shown(&command_table[i]))
			continue;
		fprintf(f, "%s)%s options=(", command_table[i].name, named(&command_table[i]) ? " vms=(y)" : "");
		print_options(f, &command_table[i]);
		fputs(") ;;\n", f);
	}
	fputs("esac\n"
	      "if [[ $PREFIX == --*=* ]]; then\n\tcompset -P '*='\n\t_files\n"
	      "elif [[ $PREFIX == -* ]]; then\n\tcompadd -S '' -- ${(M)options:#*=}\n\tcompadd -- ${options:#*=}\n"
	      "elif (( $#vms )); then\n"
	      "\tvms=(${${(f)\"$($words[1] list 2>/dev/null)\"}%% *})\n\tcompadd -- $vms\nfi\n",
	      f);
}

void completion_print(FILE *f, bool zsh)
{
	if (zsh)
		print_zsh(f);
	else
		print_bash(f);
}

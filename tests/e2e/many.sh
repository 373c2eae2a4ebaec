#!/bin/sh
# Many VMs: list --all and its history, top, metrics, completion.
. "$(dirname "$0")/lib.sh"
vm=${prefix}m
start() { # NAME OPTIONS...
	name=$1
	shift
	timeout 60 "$monitor" start --name="$name" --kernel="$guest" --memory=16M "$@" >/dev/null 2>"$tmp/err"
}
history() {
	"$monitor" list --all >"$tmp/list"
}

# ---- what has been ----
start ${vm}a
history
lacks "a VM that runs is not in the past" "^${vm}a +(ended|lost)" "$tmp/list"
"$monitor" kill ${vm}a 2>/dev/null
within 10 nothing_left ${vm}a
history
has "a killed one is: status and cause" "^${vm}a +ended +status 8 at 20[0-9T:-]+Z: killed by request$" "$tmp/list"
printf p | timeout 60 "$monitor" run --name=${vm}b --kernel="$guest" --memory=16M >/dev/null 2>&1
history
has "one that powered off" "^${vm}b +ended +status 0 at .*: the guest powered off$" "$tmp/list"
printf t | timeout 60 "$monitor" run --name=${vm}b --kernel="$guest" --memory=16M --no-reboot >/dev/null 2>&1
history
has "one that crashed: the error's words" "^${vm}b +ended +status 5 at .*: the guest crashed: triple fault$" "$tmp/list"
start ${vm}c
kill -9 "$(pid_of ${vm}c vcpu)"
within 10 nothing_left ${vm}c
history
has "one whose vcpu died" "^${vm}c +ended +status 6 at .*: vcpu died: killed by SIGKILL" "$tmp/list"
start ${vm}d
kill -9 "$(pid_of ${vm}d monitor)"
within 10 sh -c "! '$monitor' list | grep -q '^${vm}d '"
history
has "one whose monitor was killed" "^${vm}d +lost +since 20" "$tmp/list"
start ${vm}e --disk=path=/nowhere/at/all
history
has "one that did not start" "^${vm}e +ended +status 3 at .*/nowhere/at/all" "$tmp/list"
"$monitor" list --all --json >"$tmp/json"
has "in JSON" "\"name\": \"${vm}b\", \"state\": \"ended\", \"status\": 5, \"cause\": \"the guest crashed: triple fault\", \"started\": [0-9]+, \"ended\": [0-9]+" "$tmp/json"
is "of bounded size" 32768 "$(wc -c <"$(runtime_dir)/history" | awk '{ print $1 <= 32768 ? 32768 : $1 }')"
"$monitor" list >"$tmp/list"
lacks "list alone shows none of it" "ended|lost" "$tmp/list"

# ---- what they use ----
start ${vm}a --cpu-limit=50
start ${vm}b
timeout 60 "$monitor" top --interval=1 >"$tmp/top"
is "top, not on a terminal: status" 0 $?
is "a header, once" 1 "$(grep -c '^NAME' "$tmp/top")"
has "a row for each" "^${vm}a +running +[0-9]+\.[0-9]{2} +16\.0M +[0-9.]+[KM]? +0 +0 +0" "$tmp/top"
timeout 60 "$monitor" top --interval=1 --count=2 >"$tmp/top"
is "as often as is said" 2 "$(grep -c "^${vm}b" "$tmp/top")"
"$monitor" top --interval=0 >/dev/null 2>&1
is "an interval of nothing: status" 2 $?

"$monitor" metrics >"$tmp/metrics"
is "metrics: status" 0 $?
has "is it up" "^hvx_vm_up\{vm=\"${vm}a\"\} 1$" "$tmp/metrics"
has "its memory" "^hvx_vm_memory_nominal_bytes\{vm=\"${vm}a\"\} 16777216$" "$tmp/metrics"
has "its processes' CPU time" "^hvx_process_cpu_seconds_total\{vm=\"${vm}a\",process=\"vcpu\",pid=\"[0-9]+\"\} [0-9.]+$" "$tmp/metrics"
has "its limits" "^hvx_vm_limit\{vm=\"${vm}a\",limit=\"cpu-limit\",unit=\"percent\",keeper=\"[a-z0-9 ]+\"\} 50$" "$tmp/metrics"
has "the engine's counters" "^hvx_engine_blocks\{vm=\"${vm}b\"\} [0-9]+$" "$tmp/metrics"
is "every line is a sample or a comment" "" \
	"$(grep -Ev '^(# (HELP|TYPE) hvx_[a-z0-9_]+ .*|hvx_[a-z0-9_]+\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\} [0-9]+(\.[0-9]+)?)$' "$tmp/metrics")"
is "samples of a metric stand together" "" "$(sed -n 's/^\(hvx_[a-z0-9_]*\){.*/\1/p' "$tmp/metrics" | uniq | sort | uniq -d)"
is "each has one type" "" "$(sed -n 's/^# TYPE \([^ ]*\) .*/\1/p' "$tmp/metrics" | sort | uniq -d)"
mkdir "$tmp/text"
echo old >"$tmp/text/hvx.prom"
"$monitor" metrics --output="$tmp/text/hvx.prom"
is "into a file: status" 0 $?
has "it is there" '^hvx_vm_up' "$tmp/text/hvx.prom"
is "everybody may read it" 644 "$(stat -c %a "$tmp/text/hvx.prom")"
is "and nothing else" hvx.prom "$(ls "$tmp/text")"
"$monitor" metrics --output="$tmp/none/hvx.prom" 2>"$tmp/err"
is "into a directory that is not there: status" 1 $?
printf 'GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n' | "$monitor" metrics --http >"$tmp/http"
is "by HTTP: status" 0 $?
is "the status line" "HTTP/1.0 200 OK" "$(head -1 "$tmp/http" | tr -d '\r')"
has "and the metrics" "^hvx_vm_up\{vm=\"${vm}a\"\} 1$" "$tmp/http"
printf 'GET /etc/passwd HTTP/1.0\r\n\r\n' | "$monitor" metrics --http >"$tmp/http"
is "another path" "HTTP/1.0 404 Not Found" "$(head -1 "$tmp/http" | tr -d '\r')"
printf 'DELETE / HTTP/1.0\r\n\r\n' | "$monitor" metrics --http >"$tmp/http"
is "another method" "HTTP/1.0 405 Method Not Allowed" "$(head -1 "$tmp/http" | tr -d '\r')"
printf 'GET' | "$monitor" metrics --http >"$tmp/http"
is "half a request: status" 1 $?

# ---- completion ----
cat >"$tmp/complete" <<'END'
PATH=$2:$PATH
source "$1"
shift 2
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
_hvx_monitor 2>/dev/null
printf '%s\n' "${COMPREPLY[@]}"
END
mkdir "$tmp/bin"
ln -s "$monitor" "$tmp/bin/hvx-monitor"
"$monitor" completion bash >"$tmp/hvx-monitor.bash"
complete() {
	bash "$tmp/complete" "$tmp/hvx-monitor.bash" "$tmp/bin" hvx-monitor "$@" | sort | tr '\n' ' '
}
if command -v bash >/dev/null; then
	is "commands" "start stats status stop " "$(complete st)"
	is "options of a command" "--json " "$(complete list --j)"
	is "options of a VM" "--cpu-affinity= --cpu-limit= --cpu-weight= --cpus= " "$(complete run --cpu)"
	is "none of another command" " " "$(complete list --cpu)"
	is "VMs" "${vm}a ${vm}b " "$(complete status $vm)"
	is "no VM where none is named" " " "$(complete list $vm)"
	mkdir "$tmp/with blank"
	is "files, with blanks too" "$tmp/with blank " "$(complete run "--kernel=$tmp/with")"
	for c in $("$monitor" --help | sed -n '/^commands:/,/^options/s/^  \([a-z]*\) .*/\1/p'); do
		[ -n "$(complete "$c" --help)" ] || echo "# no completion of $c"
	done >"$tmp/missing"
	is "every command of --help is there" "" "$(cat "$tmp/missing")"
fi
"$monitor" completion zsh >"$tmp/_hvx-monitor"
if command -v zsh >/dev/null; then
	zsh -n "$tmp/_hvx-monitor"
	is "zsh reads it: status" 0 $?
fi
has "zsh's has the commands" "^	'metrics:" "$tmp/_hvx-monitor"
"$monitor" completion csh >/dev/null 2>&1
is "another shell: status" 2 $?
"$monitor" --help >"$tmp/help"
lacks "the command is not shown" completion "$tmp/help"

"$monitor" kill ${vm}a 2>/dev/null
"$monitor" kill ${vm}b 2>/dev/null
within 10 nothing_left ${vm}a && within 10 nothing_left ${vm}b
ok "nothing left behind" $?
done_testing

#!/bin/sh
# The user's terminal: raw while the guest has it, as it was afterwards, whatever the way out.
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip_all "python3 is missing"
export monitor guest
vm=${prefix}t
python3 - "$monitor" "$guest" $vm "$tmp" <<'PY' >"$tmp/out" 2>"$tmp/err"
import fcntl, os, pty, select, signal, struct, subprocess, sys, termios, time

monitor, guest, vm, tmp = sys.argv[1:]

class Term:
    def __init__(self, args):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.p = subprocess.Popen([monitor] + args, stdin=self.slave, stdout=self.slave, stderr=self.slave, start_new_session=True)
        self.text = b""

    def until(self, what, seconds=10):
        end = time.time() + seconds
        while what not in self.text and time.time() < end:
            if select.select([self.master], [], [], 0.1)[0]:
                self.text += os.read(self.master, 4096)
        return what in self.text

    def send(self, data):
        os.write(self.master, data)

    def raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def end(self):
        try:
            status = self.p.wait(10)
        except subprocess.TimeoutExpired:
            self.p.kill()
            status = "hangs"
        self.until(b"\0", 0.2)
        return status

    def restored(self):
        return termios.tcgetattr(self.slave) == self.before

def check(name, good):
    print(("good " if good else "bad ") + name, flush=True)

run = ["run", "--name=" + vm, "--kernel=" + guest, "--memory=16M"]

t = Term(run)
check("guest output arrives", t.until(b"ready"))
time.sleep(0.2)
check("raw while the guest runs", t.raw())
t.send(b"\x03\x04")
check("control characters reach the guest", t.until(b"\x03\x04"))
t.send(b"\x01h")
check("Ctrl-A h helps", t.until(b"Ctrl-A x"))
t.send(b"\x01\x01")
check("Ctrl-A Ctrl-A is a Ctrl-A", t.until(b"\x01"))
t.send(b"\x01x")
check("Ctrl-A x quits", t.end() == 8)
check("restored after Ctrl-A x", t.restored())

t = Term(run)
t.until(b"ready")
t.send(b"p")
check("power-off", t.end() == 0)
check("restored after power-off", t.restored())

for name, sig, status in (("TERM", signal.SIGTERM, 8), ("HUP", signal.SIGHUP, 8), ("SEGV", signal.SIGSEGV, -11),
                          ("ABRT", signal.SIGABRT, -6)):
    t = Term(run)
    t.until(b"ready")
    time.sleep(0.2)
    t.p.send_signal(sig)
    got = t.end()
    check("SIG%s ends it (%s)" % (name, got), got == status)
    check("restored after SIG" + name, t.restored())

t = Term(run + ["--no-reboot"])
t.until(b"ready")
t.send(b"t")
check("a crash ends it", t.end() == 5)
check("restored after a crash", t.restored())
check("messages end with CR LF while raw", b"triple fault\r\n" in t.text)

# What is typed, or answered, and does not reach the guest any more must not reach the shell: a halted guest reads
# nothing, so the pipe to it fills, and then the terminal's own queue.
t = Term(run)
t.until(b"ready")
t.send(b"h")
t.until(b"\0", 0.3)
os.set_blocking(t.master, False)
def unread():
    return struct.unpack("i", fcntl.ioctl(t.slave, termios.FIONREAD, b"\0" * 4))[0]
sent = 0
while sent < 200000 and select.select([], [t.master], [], 1)[1]:
    try:
        sent += os.write(t.master, b"\x1b[24;80R" * 100)
    except BlockingIOError:
        break
os.set_blocking(t.master, True)
print("%d bytes wait" % unread(), file=sys.stderr)
t.p.send_signal(signal.SIGABRT)
check("it ends", t.end() == -6)
check("nothing is left for the shell", unread() == 0)

# What hvx-vcpu says of the guest is for the log; the VM's fate is for both.
for log in [], ["--log=" + tmp + "/log"]:
    t = Term(run + ["--no-reboot"] + log)
    t.until(b"ready")
    t.send(b"m")
    check("it crashes %s" % bool(log), t.end() == 5)
    check("the terminal hears of the crash %s" % bool(log), b"triple fault\r\n" in t.text)
    check("and not of the guest's MSRs %s" % bool(log), b"MSR" not in t.text)
with open(tmp + "/log") as f:
    text = f.read()
check("the log hears of both", "unknown MSR 0x12345" in text and "triple fault\n" in text)

# No process has the terminal but the monitor, whatever was asked for.
more = ["--debug-exit", "--debugcon=stderr", "--virtio-console=pty", "--rng", "--balloon"]
if os.access("/usr/bin/passt", os.X_OK):
    more.append("--net=user")
if os.access("/usr/bin/qemu-nbd", os.X_OK) and os.access("/usr/bin/qemu-img", os.X_OK):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp + "/d.qcow2", "1M"], check=True)
    more.append("--disk=path=" + tmp + "/d.qcow2")
t = Term(run + more)
tty = os.ttyname(t.slave)
t.until(b"ready")
t.send(b"e")
check("the debug console comes as a clean line", t.until(b"debugcon: debug \\x9b2J\\x1b[6n end\r\n"))
check("and raw nowhere", b"\x1b[6n" not in t.text)
status = subprocess.run([monitor, "status", vm], capture_output=True, text=True).stdout
pids = {}
for line in status.splitlines():
    if line.startswith("process:"):
        pids[line.split()[1]] = int(line.split()[3].rstrip(":"))
check("there are children: " + " ".join(pids), len(pids) >= 3)
for name, pid in pids.items():
    fds = [os.readlink("/proc/%d/fd/%s" % (pid, n)) for n in os.listdir("/proc/%d/fd" % pid)]
    held = [f for f in fds if f.startswith(("/dev/pts", "/dev/tty"))]
    check("%s %s the terminal" % (name, "has" if name == "monitor" else "has not"), (tty in held) == (name == "monitor"))
    check("%s has 0 to 2" % name, all(os.path.lexists("/proc/%d/fd/%d" % (pid, n)) for n in range(3)))
t.send(b"\x01x")
check("end", t.end() == 8)
for option in "--debugcon=", "--trace=exec --trace-file=":
    t = Term(run + ["--debug-exit"] + (option + tty).split())
    check("a terminal is refused: " + option, t.until(b"a terminal; it must be a file") and t.end() == 3)

subprocess.run([monitor, "start", "--name=" + vm, "--kernel=" + guest, "--memory=16M"], stdin=subprocess.DEVNULL,
               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
t = Term(["console", vm])
check("attach", t.until(b"ready"))
time.sleep(0.2)
check("raw while attached", t.raw())
t.send(b"abc")
check("typing", t.until(b"abc"))
t.send(b"\x01x")
check("Ctrl-A x detaches", t.end() == 0)
check("restored after detaching", t.restored())
t = Term(["console", vm])
check("attach again", t.until(b"ready"))
t.send(b"p")
check("ends with the VM", t.end() == 0)
check("restored at the VM's end", t.restored())
PY
is "the terminal driver ran" 0 $?
sed 's/^/# /' "$tmp/err"
while read -r verdict name; do
	[ "$verdict" = good ]
	ok "$name" $?
done <"$tmp/out"
nothing_left $vm || within 3 nothing_left $vm
ok "nothing left behind" $?
done_testing

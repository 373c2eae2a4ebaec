"""The system test's story of the network: what the card and its back end carry, lose, and survive.

Invariant: everything goes through the guest's card and passt; what the host
forbids passt (ping sockets) is skipped with that reason.
"""

import json
import os
import re
import socket
import subprocess
import time

import vm

ECHO_PORT, IPERF_PORT = 5202, 5201


def prepare(story, g):
    """An echo server and the carrier's watchman in the guest."""
    rtt = os.path.join(story.work, "rtt")
    source = os.path.join(vm.TOP, "bench", "rtt.c")
    subprocess.run([os.environ.get("CC", "gcc"), "-O2", "-static", "-o", rtt, source], check=True)
    g.scp(rtt, "guest:/root/rtt")
    g.ssh(f"chmod 755 /root/rtt; (/root/rtt serve {ECHO_PORT} >/dev/null 2>&1 </dev/null &); iperf3 -s -D -p {IPERF_PORT}")


def card(g):
    return g.ssh("ls -d /sys/class/net/*/device | cut -d/ -f5 | head -n 1").strip()


def gateway(g, family):
    line = g.ssh(f"ip -{family} route show default | head -n 1")
    found = re.search(r"via (\S+) dev (\S+)", line)
    if not found:
        raise vm.Failed(f"no IPv{family} default route")
    return found[1] + (f"%{found[2]}" if found[1].startswith("fe80:") else "")


def ping(story, g, family):
    name = f"IPv{family} ping"
    if not os.path.exists("/proc/net/if_inet6") and family == 6:
        story.tap.skip(name, "the host has no IPv6")
        return
    try:
        status, text = g.ssh(f"ping -{family} -q -c 5 -i 0.2 -W 2 {gateway(g, family)}", check=False)
    except vm.Failed as e:
        story.tap.result(False, name, e)
        return
    with open("/proc/sys/net/ipv4/ping_group_range") as f:
        low, high = map(int, f.read().split())
    if status and not low <= os.getgid() <= high:
        story.tap.skip(name, "this host forbids passt ping sockets (net.ipv4.ping_group_range)")
    else:
        story.tap.result(status == 0, name, text.strip().split("\n")[-1] if status == 0 else text)


def udp(g):
    """Datagrams by the guest to a server on the host's loopback; the loss is counted."""
    port = vm.free_port()
    with subprocess.Popen(["iperf3", "-s", "-1", "-p", str(port)], stdout=subprocess.DEVNULL) as server:
        time.sleep(0.5)
        try:
            text = g.ssh(f"iperf3 -c {gateway(g, 4)} -p {port} -u -b 20M -l 1200 -t 5 -J", 60)
        finally:
            server.kill()
    total = json.loads(text[text.find("{"):])["end"]["sum"]
    if total["lost_percent"] > 5 or not total["packets"]:
        raise vm.Failed(f"{total['lost_packets']} of {total['packets']} datagrams lost")
    return f"{total['lost_packets']} of {total['packets']} datagrams lost"


def connections(g, count):
    """One after the other, each with a byte there and back."""
    start = time.monotonic()
    for i in range(count):
        try:
            with socket.create_connection(("127.0.0.1", g.ports[ECHO_PORT]), 20) as s:
                s.sendall(b"x")
                if s.recv(1) != b"x":
                    raise vm.Failed(f"connection {i} was closed without an answer")
        except OSError as e:
            raise vm.Failed(f"connection {i}: {e}") from e
    return f"{count / (time.monotonic() - start):.0f} a second"


def jumbo(story, g, copy):
    """Frames of 9000 bytes both ways; back to 1500 afterwards."""
    name = card(g)
    g.ssh(f"ip link set dev {name} mtu 9000")
    try:
        return copy(story, g, 128)
    finally:
        g.ssh(f"ip link set dev {name} mtu 1500")


def cable(g):
    """Pulled for three seconds and put back: the guest sees both, and a connection survives."""
    name = card(g)
    g.ssh(f"rm -f /root/carrier; (for i in $(seq 60); do cat /sys/class/net/{name}/carrier; sleep 0.2; done "
          ">/root/carrier 2>/dev/null </dev/null &)")
    with socket.create_connection(("127.0.0.1", g.ports[ECHO_PORT]), 20) as s:
        s.settimeout(30)
        s.sendall(b"a")
        if s.recv(1) != b"a":
            raise vm.Failed("no echo before")
        g.ssh("until grep -q 1 /root/carrier; do sleep 0.1; done", 20)
        g.link(False)
        time.sleep(3)
        g.link(True)
        s.sendall(b"b")
        if s.recv(1) != b"b":
            raise vm.Failed("the connection did not survive")
    g.wait_ssh()
    seen = re.sub(r"(.)\1*", r"\1", g.ssh("cat /root/carrier").replace("\n", ""))
    if seen != "101":
        raise vm.Failed(f"the guest saw carrier {seen}, not 101")


def story_network(story, begin, finish, copy, kernel_log):
    tap = story.tap
    with story.guest(ports=(22, ECHO_PORT, IPERF_PORT)) as g:
        if not begin(story, g):
            return
        prepare(story, g)
        ping(story, g, 4)
        ping(story, g, 6)
        tap.check("UDP, loss counted", udp, g)
        tap.check("10,000 connections", connections, g, 10000)
        tap.check("jumbo frames, scp both ways", jumbo, story, g, copy)
        tap.check("the cable is pulled and put back", cable, g)
        tap.check("nothing bad in the kernel's log", kernel_log, g)
        finish(story, g, "poweroff")

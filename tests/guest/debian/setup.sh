# shellcheck shell=sh
# Configure the tree $1 of the Debian guest: run by mmdebstrap at the end, in its namespace.
#
# Invariant: nothing of the distribution's own is changed; what is here is what an
# installer or an administrator would write into /etc.
set -eu
root=$1

cat >"$root/etc/fstab" <<END
LABEL=hvx-root / ext4 errors=remount-ro 0 1
END
echo hvx-debian >"$root/etc/hostname"
cat >"$root/etc/hosts" <<END
127.0.0.1 localhost
127.0.1.1 hvx-debian
::1 localhost ip6-localhost ip6-loopback
END

# Every Ethernet card by DHCP, and by router advertisements for IPv6.
cat >"$root/etc/systemd/network/80-ether.network" <<END
[Match]
Type=ether

[Network]
DHCP=yes
END
chroot "$root" systemctl enable systemd-networkd systemd-resolved serial-getty@ttyS0.service
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"

# On the console: root, password hvx.  By ssh only with the key.
echo root:hvx | chroot "$root" chpasswd
chmod 700 "$root/root/.ssh"
chmod 600 "$root/root/.ssh/authorized_keys"
chmod 755 "$root/usr/local/bin/compat32" "$root/usr/local/bin/pi32"

# A test guest is no place for surprises: nothing starts by itself to fetch or to index.
chroot "$root" systemctl disable apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer
rm -f "$root/etc/machine-id"
: >"$root/etc/machine-id"

# shellcheck shell=sh
# Configure the tree $1 of the cloud image: run by mmdebstrap at the end, in its namespace.
#
# Invariant: nothing that belongs to one machine: cloud-init makes the host keys, the user, the network's settings.
set -eu
root=$1

cat >"$root/etc/fstab" <<END
LABEL=cloudimg-rootfs / ext4 rw,discard,errors=remount-ro 0 1
LABEL=EFI /boot/efi vfat umask=0077,nofail 0 1
END
mkdir -p "$root/boot/efi" "$root/boot/grub"
cat >"$root/etc/default/grub" <<END
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_CMDLINE_LINUX="console=tty0 console=ttyS0,115200"
GRUB_TERMINAL="console serial"
END
cat >"$root/boot/grub/grub.cfg" <<END
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=0
menuentry "Debian GNU/Linux" {
	linux /vmlinuz root=LABEL=cloudimg-rootfs ro console=tty0 console=ttyS0,115200
	initrd /initrd.img
}
END
# Networks are netplan's and networkd's, as in Debian's images; cloud-init would prefer ifupdown, which is only in the variant.
chroot "$root" dpkg --purge ifupdown
chroot "$root" systemctl enable systemd-networkd systemd-resolved serial-getty@ttyS0.service
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
chroot "$root" systemctl disable apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer
# the image has no locale but this one
cat >"$root/etc/cloud/cloud.cfg.d/01_image.cfg" <<END
locale: C.UTF-8
manage_etc_hosts: true
END
echo localhost >"$root/etc/hostname"
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id"
: >"$root/etc/machine-id"

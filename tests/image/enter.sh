#!/bin/sh
# Makes an image the root file system of its own namespaces, and executes the image's init.
# $1: the image's root; $2: a folder with volume/, for all writes; then the command.
set -eu
root=$1 folder=$2
shift 2
mount --make-rprivate /
written=$folder/written
rm -rf "$written"
mkdir -p "$written/upper" "$written/work" "$written/root"
new=$written/root
mount -t overlay overlay -o "lowerdir=$root,upperdir=$written/upper,workdir=$written/work" "$new"
mount -t proc -o nosuid,nodev,noexec proc "$new/proc"
mount --rbind /sys "$new/sys"
mount -t tmpfs -o mode=755,nosuid tmpfs "$new/dev"
for device in null zero full random urandom tty; do
    touch "$new/dev/$device"
    mount --bind "/dev/$device" "$new/dev/$device"
done
mkdir "$new/dev/pts" "$new/dev/shm"
mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts "$new/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$new/dev/shm"
ln -s pts/ptmx "$new/dev/ptmx"
ln -s /proc/self/fd "$new/dev/fd"
mount --bind "$folder/volume" "$new/workspace"
cat /etc/resolv.conf >"$new/etc/resolv.conf"
mkdir "$new/old"
cd "$new"
pivot_root . old
umount -l /old
rmdir /old
exec "$@"

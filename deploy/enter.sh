#!/bin/sh
# Makes the inside of a machine, in mount and PID namespaces of its own, and becomes its init.
# $1: a folder with etc/ (files that replace the host's), bin/, volume/, home/, program/ and from/;
# then the command.
set -eu
folder=$1
shift
# A resolver configuration often lies in /run, which becomes another one.
resolver=$(cat /etc/resolv.conf 2>/dev/null || true)
mount --make-rprivate /
mount -t proc -o nosuid,nodev,noexec proc /proc
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
# The agent's program in a place of its own, as an image has it: the login account may not enter the
# folders above the real one.
mkdir /run/swarm-agent
mount --bind "$folder/program" /run/swarm-agent
mount --bind "$folder/from/agent" /run/swarm-agent/source/agent
mount --bind "$folder/from/packages" /run/swarm-agent/packages
mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount --bind /dev/pts/ptmx /dev/ptmx
mount --bind "$folder/home" /home
mount --bind "$folder/volume" /mnt
# Where the image has it. Not every container may mount this; login shells find it in the home.
mount -t overlay overlay -o "lowerdir=$folder/bin:/usr/local/bin" /usr/local/bin 2>/dev/null || true
for file in passwd shadow group; do
    mount --bind "$folder/etc/$file" "/etc/$file"
done
if ! [ -e /etc/resolv.conf ]; then
    target=$(readlink -m /etc/resolv.conf)
    mkdir -p "$(dirname "$target")"
    echo "$resolver" >"$target"
fi
cd /
exec "$@"

#!/bin/sh
# Prepares the inside of a machine, in its own mount and PID namespaces, and executes its init.
# $1: a folder with etc/ (files that replace the host's), bin/, volume/, home/, program/ and from/;
# then the command.
set -eu
folder=$1
shift
# The resolver configuration is often in /run, which is replaced.
resolver=$(cat /etc/resolv.conf 2>/dev/null || true)
mount --make-rprivate /
mount -t proc -o nosuid,nodev,noexec proc /proc
# The machine's own /etc and /var/log: changes by the host's programs (useradd, apt) do not reach it,
# and it does not change the host's. A file mounted alone would disappear as soon as the host replaces
# it.
mount -t tmpfs -o mode=700,nosuid,nodev tmpfs /run
mkdir -m 755 /run/etc /run/work /run/log /run/mounted
# Docker mounts these files individually: an overlay would show the files below them.
for file in hosts hostname resolv.conf; do
    cat "/etc/$file" >"/run/mounted/$file" 2>/dev/null || rm -f "/run/mounted/$file"
done
if ! mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc,workdir=/run/work /etc 2>/dev/null; then
    # Not every container may mount this, or mount it again.
    cp -a /etc/. /run/etc/
    mount --bind /run/etc /etc
fi
for path in /run/mounted/*; do
    [ ! -f "$path" ] || [ -L "/etc/${path##*/}" ] || cat "$path" >"/etc/${path##*/}"
done
for file in passwd shadow group; do
    cp -p "$folder/etc/$file" "/etc/$file.new"
    mv "/etc/$file.new" "/etc/$file"
done
for file in wtmp lastlog; do
    (umask 002 && : >"/run/log/$file")
    chgrp utmp "/run/log/$file" 2>/dev/null || true
done
mount --bind /run/log /var/log
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
# The agent's program at its own path, as in an image: the login account may not be able to enter the
# folders above the real one.
mkdir /run/swarm-agent
mount --bind "$folder/program" /run/swarm-agent
mount --bind "$folder/from/agent" /run/swarm-agent/source/agent
mount --bind "$folder/from/packages" /run/swarm-agent/packages
mount -t devpts -o newinstance,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount --bind /dev/pts/ptmx /dev/ptmx
mount --bind "$folder/home" /home
mount --bind "$folder/volume" /mnt
# The path that the image uses. Not every container may mount this; login shells find it in the home.
mount -t overlay overlay -o "lowerdir=$folder/bin:/usr/local/bin" /usr/local/bin 2>/dev/null || true
if ! [ -e /etc/resolv.conf ]; then
    target=$(readlink -m /etc/resolv.conf)
    mkdir -p "$(dirname "$target")"
    echo "$resolver" >"$target"
fi
cd /
exec "$@"

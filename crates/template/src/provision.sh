#!/bin/sh
# Makes a freshly unpacked root file system what a sandbox expects. $1 is its directory.
set -eu
root=$1
in_root() { chroot "$root" "$@"; }

in_root useradd --create-home --uid 1000 --user-group --shell /bin/bash user
in_root usermod --append --groups sudo user
in_root passwd --delete root >/dev/null
printf 'user ALL=(ALL:ALL) NOPASSWD: ALL\n' >"$root/etc/sudoers.d/user"
chmod 0440 "$root/etc/sudoers.d/user"
chmod 0644 "$root/home/user/.bashrc" "$root/home/user/.profile"

mkdir -p "$root/code"
chmod 0777 "$root/code"
chmod -R a+rwX "$root/usr/local"

# Debian's own resets PATH, which a template or a request may have set. Every command goes
# through this file: it starts no process.
cat >"$root/etc/profile" <<'PROFILE'
# Settings of login shells, for the Bourne shell and compatible ones.
[ -n "${PATH-}" ] || PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH

if [ -n "${PS1-}" ]; then
    if [ -n "${BASH-}" ] && [ "$BASH" != /bin/sh ]; then
        [ ! -f /etc/bash.bashrc ] || . /etc/bash.bashrc
    else
        PS1='$ '
    fi
fi

for script in /etc/profile.d/*.sh; do
    [ ! -r "$script" ] || . "$script"
done
unset script

if [ -n "${BASH-}" ] && [ -r ~/.bashrc ]; then
    . ~/.bashrc
fi
PROFILE
printf "export PS1='\\\\w \\\\$ '\n" >>"$root/root/.bashrc"
# It concerns terminals only.
sed -i 's/^mesg n/[ ! -t 0 ] || mesg n/' "$root/root/.profile"

cat >"$root/etc/profile.d/sandbox.sh" <<'PROFILE'
export SHELL=/bin/bash
export PS1='\w \$ '
PROFILE

# Nobody runs services at boot here; packages must still install.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"

# The disk of a sandbox is small.
cat >"$root/etc/apt/apt.conf.d/90sandbox" <<'APT'
APT::Keep-Downloaded-Packages "false";
Acquire::Languages "none";
Dpkg::Use-Pty "false";
APT

# A sandbox is its own environment: pip installs into it as it is told.
rm -f "$root"/usr/lib/python3*/EXTERNALLY-MANAGED
[ -e "$root/usr/bin/yarn" ] || [ ! -e "$root/usr/bin/yarnpkg" ] || ln -s yarnpkg "$root/usr/bin/yarn"
# Packages that npm adds for everybody go where users may write.
printf 'prefix=/usr/local\nupdate-notifier=false\nfund=false\n' >"$root/etc/npmrc"

# The builder's host must not show: what it copied in is replaced.
rm -f "$root/etc/resolv.conf" "$root/etc/hostname" "$root/etc/hosts"
: >"$root/etc/resolv.conf"
printf 'e2b.local\n' >"$root/etc/hostname"
printf '127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n' >"$root/etc/hosts"
printf 'LANG=C.UTF-8\n' >"$root/etc/default/locale"

# What is made anew in each sandbox or only takes space.
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/cache/apt/*.bin \
    "$root"/var/cache/debconf/*-old "$root"/var/cache/ldconfig/* "$root"/var/lib/apt/lists/* \
    "$root"/var/lib/dpkg/*-old "$root"/var/log/apt "$root"/var/log/*.log \
    "$root"/tmp/*
rm -f "$root/etc/machine-id"
: >"$root/etc/machine-id"
chmod 1777 "$root/tmp" "$root/var/tmp"
find "$root" -xdev -type s -delete

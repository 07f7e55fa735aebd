# Makes the root of a container image what a sandbox expects. Runs as root under the
# image's own shell, before anything else; must not need bash.
set -u
fail() {
    printf '%s\n' "$1" >&2
    exit 1
}
[ -r /etc/os-release ] || fail "base image has no /etc/os-release. $SUPPORTED"
ID= ID_LIKE=
. /etc/os-release
family=
for id in $ID $ID_LIKE; do
    case $id in
    rhel | ol | amzn) [ "$id" = "$ID" ] && break ;;
    debian | ubuntu) family=debian ;;
    fedora | centos | rocky | almalinux) family=fedora ;;
    arch | archlinux) family=arch ;;
    alpine) family=alpine ;;
    esac
    if [ -n "$family" ]; then
        [ "$id" = "$ID" ] || printf "base image distribution ID='%s' is handled as '%s'\n" "$ID" "$id"
        break
    fi
done
[ -n "$family" ] || fail "base image distribution ID='$ID' is not supported. $SUPPORTED"

has() { command -v "$1" >/dev/null 2>&1; }
# Pairs of a command and the package that has it.
case $family in
debian) pairs='bash:bash sudo:sudo curl:curl update-ca-certificates:ca-certificates git:git jq:jq ip:iproute2 ss:iproute2 pgrep:procps less:less ping:iputils-ping socat:socat useradd:passwd tar:tar find:findutils awk:mawk' ;;
fedora) pairs='bash:bash sudo:sudo curl:curl git:git jq:jq ip:iproute ss:iproute pgrep:procps-ng less:less ping:iputils socat:socat useradd:shadow-utils passwd:passwd tar:tar find:findutils awk:gawk which:which' ;;
arch) pairs='bash:bash sudo:sudo curl:curl git:git jq:jq ip:iproute2 ss:iproute2 pgrep:procps-ng less:less ping:iputils socat:socat useradd:shadow tar:tar find:findutils awk:gawk' ;;
alpine) pairs='bash:bash sudo:sudo curl:curl update-ca-certificates:ca-certificates git:git jq:jq ss:iproute2-ss pgrep:procps less:less socat:socat useradd:shadow tar:tar find:findutils getent:musl-utils' ;;
esac
missing=
for pair in $pairs; do
    has "${pair%%:*}" || missing="$missing ${pair#*:}"
done
if [ -n "$missing" ]; then
    printf 'installing%s\n' "$missing"
    case $family in
    debian)
        export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes
        apt-get update -q && apt-get install -qy --no-install-recommends $missing
        ;;
    fedora)
        if has dnf; then dnf install -qy $missing; else microdnf install -y $missing; fi
        ;;
    arch) pacman -Sy --noconfirm --needed $missing ;;
    alpine) apk add --no-cache $missing ;;
    esac || fail "installing$missing failed"
fi

admin=sudo
grep -q '^sudo:' /etc/group || admin=wheel
grep -q "^$admin:" /etc/group || groupadd "$admin" || fail "no group $admin"
mkdir -p /tmp /var/tmp /run /etc/profile.d /etc/sudoers.d /usr/local/bin /usr/local/share/e2b /root
chmod 1777 /tmp /var/tmp

# A login shell keeps the PATH that it is given.
if [ -f /etc/profile ]; then
    sed -i 's/^if \[ "$(id -u)" -eq 0 \]; then$/if [ -n "${PATH-}" ]; then :; elif [ "$(id -u)" -eq 0 ]; then/' /etc/profile
    if [ "$family" = alpine ]; then
        sed -i 's/^export PATH=.*/: "${PATH:=\/usr\/local\/sbin:\/usr\/local\/bin:\/usr\/sbin:\/usr\/bin:\/sbin:\/bin}"; export PATH/' /etc/profile
    fi
else
    printf 'for i in /etc/profile.d/*.sh; do [ -r "$i" ] && . "$i"; done\nunset i\n' >/etc/profile
fi
cat >>/etc/profile <<'PROFILE'
if [ "${BASH-}" ] && [ -r ~/.bashrc ]; then
  . ~/.bashrc
fi
PROFILE
cat >/etc/profile.d/sandbox.sh <<'PROFILE'
export SHELL=/bin/bash
export PS1='\w \$ '
PROFILE
[ -x /bin/bash ] || ln -s "$(command -v bash)" /bin/bash || fail 'no bash'
printf "export PS1='\\\\w \\\\$ '\n" >>/root/.bashrc
passwd -d root >/dev/null 2>&1 || true
if [ "$family" = debian ]; then
    # Nobody runs services at boot here; packages must still install.
    [ -e /usr/sbin/policy-rc.d ] || {
        printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
        chmod 0755 /usr/sbin/policy-rc.d
    }
    # A sandbox is its own environment: pip installs into it as it is told.
    rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
fi
[ ! -e /etc/machine-id ] || : >/etc/machine-id
printf 'DISTRO_ID=%s\nINIT_SYSTEM=none\nADMIN_GROUP=%s\n' "$ID" "$admin" >/usr/local/share/e2b/distro.env
printf 'Provisioning was successful, cleaning up\n'
rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/cache/dnf /var/cache/apk/*
exit 0

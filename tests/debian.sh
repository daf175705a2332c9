#!/usr/bin/env bash
# Installs Debian packages for scripts that have `say` and `fail`, and sets `assume_yes` to install without asking.
#
# Sourced by bash; `assume_yes` comes from the script.
# shellcheck disable=SC2154

# install_packages_of_debian PACKAGE...: says what is installed system-wide before it is. On a terminal it asks first,
# unless `assume_yes` is set. No service of a package is started now or at the next boot.
install_packages_of_debian() {
    local sudo=() answer log
    if ((EUID != 0)); then
        sudo -n true 2>/dev/null || fail "missing packages, and only root can install them: apt-get install $*"
        sudo=(sudo -n)
    fi
    say "installing system-wide, with apt-get and what they depend on: $*"
    if [[ -z $assume_yes && -t 0 && -t 1 ]]; then
        read -rp 'Install them? [y/N] ' answer
        [[ $answer == [yY]* ]] || fail 'nothing was installed. Install them yourself, or run it again with --yes'
    fi
    log=$(mktemp)
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive bash -euo pipefail -s "$@" >"$log" 2>&1 <<'ROOT' || {
# Debian starts a service when its package is installed, unless this program forbids it.
policy=/usr/sbin/policy-rc.d
kept=
restore() {
    rm -f "$policy" /etc/postgresql-common/createcluster.d/nexo-receiver-tests.conf
    if [[ -n $kept ]]; then mv "$kept" "$policy"; fi
}
trap restore EXIT
if [[ -e $policy ]]; then
    kept=$(mktemp "$policy.XXXXXX")
    mv "$policy" "$kept"
fi
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"
# A new PostgreSQL server would also make a cluster.
mkdir -p /etc/postgresql-common/createcluster.d
echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/nexo-receiver-tests.conf
# Each package that is new, dependencies included.
before=$(dpkg-query --show --showformat '${Package}\n' | sort)
apt-get update
apt-get install -y --no-install-recommends "$@"
if command -v systemctl; then
    dpkg-query --show --showformat '${Package}\n' | sort | comm -13 <(echo "$before") - |
        xargs --no-run-if-empty dpkg-query --listfiles |
        sed -n 's|.*/systemd/system/\([^/]*\.\(service\|socket\|timer\)\)$|\1|p' |
        xargs --no-run-if-empty systemctl disable
fi
ROOT
        cat "$log" >&2
        rm -f "$log"
        fail "could not install $*"
    }
    rm -f "$log"
}

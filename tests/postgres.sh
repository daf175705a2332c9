#!/usr/bin/env bash
# A Postgres in a folder of its own: for scripts that start one and have `work`, `say` and `fail`.
#
# `as_pg_user initdb … -D "$work/pg/data"` is theirs. PG_BIN is the folder of its programs, PG_USER whom it must run as:
# empty when that is the present user.
#
# `work` comes from the script, and `database` goes back to it.
# shellcheck disable=SC2034,SC2154

# Newest first; prints nothing when there is none.
find_postgres() {
    local bin
    for bin in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort --version-sort --reverse) \
        "$(dirname "$(command -v postgres || echo /nowhere/)")"; do
        if [[ -x $bin/postgres && -x $bin/initdb ]] && (($("$bin/postgres" -V | grep -oE '[0-9]+' | head -n 1) >= 15)); then
            echo "$bin"
            return
        fi
    done
}

# Postgres refuses to run as root.
find_pg_user() {
    if ((EUID == 0)); then
        id -un postgres 2>/dev/null || id -un nobody
    fi
}

as_pg_user() {
    if [[ -n $PG_USER ]]; then
        set -- setpriv --reuid="$PG_USER" --regid="$(id -g "$PG_USER")" --clear-groups "$@"
    fi
    (cd / && "$@")
}

# On a port below those that the kernel gives out, so that nobody takes it in between; `database` is the URL then.
start_postgres() {
    local port
    for _ in {1..20}; do
        port=$((20000 + RANDOM % 12000))
        if as_pg_user "$PG_BIN/pg_ctl" start -D "$work/pg/data" -l "$work/pg/log" -w >/dev/null 2>&1 \
            -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories=$work/pg"; then
            database="postgres://postgres@127.0.0.1:$port/postgres"
            return
        fi
        grep -q 'Address already in use' "$work/pg/log" || break
    done
    fail "Postgres does not start: $(cat "$work/pg/log")"
}

stop_postgres() {
    if [[ -e $work/pg/data/postmaster.pid ]]; then
        as_pg_user "$PG_BIN/pg_ctl" stop -D "$work/pg/data" -m immediate -w >/dev/null || true
    fi
}

# install_packages FOLDER: what its package-lock.json says.
install_packages() {
    if ! cmp -s "$1/package-lock.json" "$1/node_modules/installed"; then
        say "installing what $1 needs"
        npm ci --prefix "$1" --no-audit --no-fund --loglevel=error >"$work/npm.log" 2>&1 ||
            fail "npm ci: $(cat "$work/npm.log")"
        cp "$1/package-lock.json" "$1/node_modules/installed"
    fi
}

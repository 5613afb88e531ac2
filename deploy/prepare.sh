#!/bin/sh
# Sets up what `make run` (first argument: run) or `make test` (test) needs: a virtual environment, and for the tests the Debian packages of
# the real switches. Installs packages when it is root, and otherwise prints the line that does.
set -eu
what=${1:-run}
venv=.venv

need_packages() {  # package names; installs them or says how
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing: $*"
        apt-get update -qq || true
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    else
        return 1
    fi
}

python=${PYTHON:-}
if [ -z "$python" ]; then
    for each in python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$each" >/dev/null && "$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then python=$each; break; fi
    done
fi
if [ -z "$python" ]; then
    echo "Bellhop needs Python 3.11 or newer and found none; install it, for instance: sudo apt-get install python3 python3-venv" >&2
    exit 1
fi

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    rm -rf "$venv"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        rm -rf "$venv"
        version=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        need_packages python3-venv || need_packages "$version" || {
            echo "this Python has no venv module; run this, then make again: sudo apt-get install -y python3-venv" >&2
            exit 1
        }
        "$python" -m venv "$venv"
    fi
fi

if [ "$what" = test ]; then
    missing=
    for pair in ifconfig:net-tools ovs-vswitchd:openvswitch-switch mnexec:mininet ethtool:ethtool ip:iproute2 ping:iputils-ping curl:curl; do
        command -v "${pair%%:*}" >/dev/null || [ -x "/usr/sbin/${pair%%:*}" ] || missing="$missing ${pair#*:}"
    done
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086
        need_packages $missing || echo "the tests on real switches will be skipped; to have them, as root: apt-get install -y$missing" >&2
    fi
    extras='.[test,mininet]'
else
    extras='.'
fi

echo "installing Bellhop's Python packages into $venv (once; a minute or two)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable "$extras"
[ "$what" = run ] || touch "$venv/.test"
touch "$venv/.run"

#!/bin/sh
# Provide sshd, which `make bench` compares with: it runs one of its own, on a port of 127.0.0.1. Where there is
# none, and this is root on Debian or Ubuntu, the package openssh-server is installed; its service is neither
# started nor enabled. Elsewhere the benchmark's rows of OpenSSH stay empty.
set -eu

PATH="$PATH:/usr/sbin"
if command -v sshd >/dev/null; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "There is no sshd here: what it is compared with is left out (Debian: apt-get install openssh-server)"
    exit 0
fi
echo "Installing openssh-server, to compare with; its service is not started"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    # Debian's way of saying that packages start no services.
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
if apt-get -qq update && apt-get -qq install --no-install-recommends openssh-server >/dev/null; then
    systemctl disable --quiet ssh 2>/dev/null || true
else
    echo "openssh-server could not be installed: what it is compared with is left out"
fi

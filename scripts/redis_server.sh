#!/bin/sh
# Provide redis-server, the broker of the CeleryExecutor that `make test-faults` starts: it runs one of its own, on
# a port of 127.0.0.1. Where there is none, and this is root on Debian or Ubuntu, the package redis-server is
# installed; its service is neither started nor enabled. Elsewhere the tests that need it are skipped.
set -eu

if command -v redis-server >/dev/null; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "There is no redis-server here: the tests with CeleryExecutor are skipped (Debian: apt-get install redis-server)"
    exit 0
fi
echo "Installing redis-server, the broker of CeleryExecutor; its service is not started"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    # Debian's way of saying that packages start no services.
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
if apt-get -qq update && apt-get -qq install --no-install-recommends redis-server >/dev/null; then
    systemctl disable --quiet redis-server 2>/dev/null || true
else
    echo "redis-server could not be installed: the tests with CeleryExecutor are skipped"
fi

#!/bin/sh
# Provide a program from a Debian package whose service is neither started nor enabled:
#     debian_package.sh PACKAGE PROGRAM SERVICE WITHOUT
# Where the program is missing, and this is root on Debian or Ubuntu, the package is installed. Elsewhere it only
# says what is not done WITHOUT it.
set -eu

package=$1 program=$2 service=$3 without=$4
PATH="$PATH:/usr/sbin"
if command -v "$program" >/dev/null; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "There is no $program here: $without (Debian: apt-get install $package)"
    exit 0
fi
echo "Installing $package; its service is not started"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    # Debian's way of saying that packages start no services.
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
if apt-get -qq update && apt-get -qq install --no-install-recommends "$package" >/dev/null; then
    systemctl disable --quiet "$service" 2>/dev/null || true
else
    echo "$package could not be installed: $without"
fi

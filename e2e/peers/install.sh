#!/bin/sh
# Installs the Debian packages named as arguments and starts none of their services: the comparison runs servers of its own. A policy that
# stands already is left as it is.
set -eu
[ "$(id -u)" = 0 ] || { echo "run this as root: $0 $*" >&2; exit 1; }
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$@"
if [ -d /run/systemd/system ]; then
	systemctl disable ejabberd prosody
fi

#!/bin/sh
# Installs what the Python verifier needs into the user's cache folder, once, and prints the folder: for PYTHONPATH.
set -eu
cd "$(dirname "$0")/../../verifier"
into="${XDG_CACHE_HOME:-$HOME/.cache}/letterlock/python-$({ cat requirements.txt; python3 --version; } | cksum | tr -d ' ')"
if ! test -d "$into"; then
	python3 -m pip --version >/dev/null 2>&1 || { apt-get update && apt-get install -y --no-install-recommends python3-pip; } >/dev/null 2>&1 ||
		{ echo "pip for Python 3 is missing: apt-get install python3-pip" >&2; exit 1; }
	new="$into.$$"
	trap 'rm -rf "$new"' EXIT
	python3 -m pip install --quiet --disable-pip-version-check --no-input --root-user-action ignore --timeout 60 --target "$new" \
		--requirement requirements.txt >&2
	mv -T "$new" "$into" 2>/dev/null || test -d "$into"
fi
echo "$into"

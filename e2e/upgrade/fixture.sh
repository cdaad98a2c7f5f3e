#!/usr/bin/env bash
# Makes the data folders that later versions must open: a server, Alice, Bob and Flimmer's agent after a small story.
#
#   fixture.sh BINARY OUT.tar.gz
#
# The server's address is part of every key chain and URI, so it is fixed: an address of this machine that nothing else uses.
set -euo pipefail
binary=$(realpath "$1")
out=$(realpath -m "$2")
address=127.84.76.1:8473
work=$(mktemp -d)
started=()
finish() {
  for p in ${started[@]+"${started[@]}"}; do kill "$p" 2>/dev/null && wait "$p" || true; done
  rm -rf "$work"
}
trap finish EXIT
cd "$work"

up() { for _ in $(seq 200); do curl -sf "$1" >/dev/null && return; sleep 0.05; done; echo "$1 does not answer" >&2; exit 1; }
alice() { "$binary" client --home alice "$@"; }
bob() { "$binary" client --home bob "$@"; }
flimmer() { "$binary" agent --home flimmer "$@"; }
allowed() { # ACTIONS: Flimmer asks, Alice allows; the grant's id
  local said
  said=$(flimmer authorize --pick --actions "$1" --valid-days 3600 2>&1)
  alice authorize "$(grep -o 'http://.*' <<<"$said")" --friend bob --actions "$1" --yes >/dev/null
    sed -n 's/^Grant \([0-9a-f]*\):.*/\1/p' <<<"$said"
}

"$binary" serve --data server --listen "$address" >/dev/null 2>server.log &
started+=($!)
up "http://$address/healthz"
alice signup alice --server "http://$address" --device-name laptop >/dev/null
bob signup bob --server "http://$address" --device-name laptop >/dev/null
alice friends add bob >/dev/null
bob friends accept alice >/dev/null
alice send bob "Have you seen it?" >/dev/null
bob read alice >/dev/null
bob send alice "Not yet." >/dev/null
alice read bob >/dev/null

flimmer init flimmer --name Flimmer --server "http://$address" --link-base https://flimmer.example/film --valid-days 3650 --redirect http://127.84.76.1:8474/callback >/dev/null
"$binary" admin --data server partner add flimmer/registration.json --yes >/dev/null
"$binary" agent --home flimmer run --listen 127.84.76.1:8474 >/dev/null 2>agent.log &
started+=($!)
for _ in $(seq 200); do flimmer status >/dev/null 2>&1 && break; sleep 0.05; done
ended=$(allowed send,delete)
flimmer send "$ended" --card film --title Metropolis --url 'https://flimmer.example/film#metropolis' >/dev/null
bob read alice/flimmer >/dev/null
alice revoke "$ended" >/dev/null
live=$(allowed send,delete)
test "$live" != "$ended"
flimmer send "$live" --card film --title Nosferatu --url 'https://flimmer.example/film#nosferatu' >/dev/null
bob read alice/flimmer >/dev/null
alice sync >/dev/null
echo "$live" >grant # the one that lives
sleep 2 # what is on its way into the ledger arrives

for p in "${started[@]}"; do kill "$p"; wait "$p" || true; done
started=()
"$binary" check --data server
rm -f server/admin.sock server/lock
tar -czf "$out" --sort=name --owner=0 --group=0 --numeric-owner server alice bob flimmer grant
ls -l "$out"

"""Judges parts of bundles, for the Go tests: a line of JSON in, "ok" or a sentence out."""
import base64
import json
import sys

import letterlock_verify as v


def signature(key, domain, body, sig):
    v.need(v.signed_under(key, domain.decode(), body, sig), "the signature does not hold")


PARTS = {
    "key-chain": lambda *entries: v.read_key_chain(entries),
    "agreement": lambda record, key: v.read_agreement(record, key, "the agreement"),
    "structure": lambda kind, data: v.read(data, kind.decode(), "the structure"),
    "map-proof": lambda root, label, proof: v.map_look(root, label, proof),
    "vrf": v.vrf,
    "signature": signature,
    "policy": lambda text: v.read_policy(text.decode()),
}

for line in sys.stdin:
    part, *args = json.loads(line)
    try:
        PARTS[part](*map(base64.b64decode, args))
        print("ok")
    except (v.Broken, UnicodeDecodeError) as e:
        print(e or "broken")

#!/usr/bin/env python3
"""Checks a letterlock bundle offline: what a partner's app could read of one person's conversations, or that it never could.

    python3 letterlock_verify.py FILE [--policy FILE] [--ledger-key VKEY] [--json]
    python3 letterlock_verify.py --batch FOLDER         a line of JSON for each file in it

Exit code 0: the file holds. 4: it does not, and proves nothing. 1: it cannot be read.

Written from the pages in spec/, not from the Go code, so that the two can judge each other. It holds no secrets, writes nothing and opens
no connection. Everything is the standard library but Ed25519, which is the package cryptography.
"""
import argparse
import base64
import datetime
import functools
import hashlib
import json
import os
import re
import sys
import unicodedata
from types import SimpleNamespace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Broken(Exception):
    """The file proves nothing. The text says why."""


def need(condition, why):
    if not condition:
        raise Broken(why)


def sha256(data):
    return hashlib.sha256(data).digest()


def tagged(domain, data):
    """What is hashed or signed for one purpose: the domain, a zero byte, the data."""
    return domain.encode() + b"\0" + data


def H(domain, data):
    return sha256(tagged(domain, data))


# ---- Deterministic CBOR (RFC 8949 section 4.2.1). One encoding for each value; only integers, bytes, text and arrays are used.

def cbor_item(data, at, depth=1):
    """Reads one value; answers it and the place behind it."""
    need(at < len(data) and depth <= 8, "a structure is cut off or nested too deep")
    major, low, at = data[at] >> 5, data[at] & 31, at + 1
    n = low
    if low >= 24:
        size = 1 << (low - 24)
        need(size <= 8 and at + size <= len(data), "a structure is cut off or of unknown length")
        n = int.from_bytes(data[at:at + size], "big")
        at += size
        need(n >= (24 if size == 1 else 1 << 4 * size), "a number is written longer than needed")
    if major == 0:
        return n, at
    if major == 1:
        return -1 - n, at
    if major in (2, 3):
        need(n <= len(data) - at, "a structure is cut off")
        text = data[at:at + n]
        try:
            return (text if major == 2 else text.decode()), at + n
        except UnicodeDecodeError:
            raise Broken("a text is not UTF-8")
    need(major == 4 and n <= 4096, "a structure holds what has no place in it")
    items = []
    for _ in range(n):
        item, at = cbor_item(data, at, depth + 1)
        items.append(item)
    return items, at


def cbor(value):
    """Writes a value: an int, bytes, text, or a list of these."""
    major, n, rest = {int: 0, bytes: 2, str: 3, list: 4}[type(value)], value, b""
    if major == 0 and value < 0:
        major, n = 1, -1 - value
    elif major == 2:
        n, rest = len(value), value
    elif major == 3:
        rest = value.encode()
        n = len(rest)
    elif major == 4:
        n, rest = len(value), b"".join(map(cbor, value))
    if n < 24:
        return bytes([major << 5 | n]) + rest
    size = next(s for s in (1, 2, 4, 8) if n < 1 << 8 * s)
    return bytes([major << 5 | 23 + size.bit_length()]) + n.to_bytes(size, "big") + rest


def shape(text):
    """The fields of a structure, in order: u number, u8 small number, i number with sign, b bytes, b32 32 bytes, t text, [x] a list,
    or the name of another shape."""
    return [field.split(":") for field in text.split()]


def fits(value, kind):
    if kind.startswith("["):
        return isinstance(value, list) and all(fits(v, kind[1:-1]) for v in value)
    if kind[0] == "b":
        return isinstance(value, bytes) and kind[1:] in ("", str(len(value)))
    if kind == "t":
        return isinstance(value, str)
    low, high = {"u": (0, 1 << 64), "u8": (0, 256), "i": (-(1 << 63), 1 << 63)}[kind]
    return isinstance(value, int) and low <= value < high


def fill(values, fields, what):
    need(isinstance(values, list) and len(values) == len(fields), f"{what}: it has not the fields that it must have")
    read = SimpleNamespace()
    for value, (name, kind) in zip(values, fields):
        if kind in SHAPES:
            value = fill(value, SHAPES[kind], what)
        else:
            need(fits(value, kind), f"{what}: its field {name} is of another kind")
        setattr(read, name, value)
    return read


def read(data, kind, what, most=1 << 20):
    """Reads the bytes of a structure, all of them."""
    need(len(data) <= most, f"{what}: larger than {most} bytes")
    values, end = cbor_item(data, 0)
    need(end == len(data), f"{what}: something stands after its end")
    return fill(values, SHAPES[kind], what)


SHAPES = {name: shape(text) for name, text in {
    "signed": "body:b signature:b",
    # spec/ledger.md, sections 2 to 6
    "leaf-agreement": "version:u8 type:u8 record:b",
    "leaf-personal": "version:u8 type:u8 label:b32 prev:b32 commit:b32",
    "leaf-server-keys": "version:u8 type:u8 host:t server_key:b32 vrf_key:b32 ledger_vkey:t at:i",
    "leaf-map-root": "version:u8 type:u8 covers:i at:i public:u root:b32",
    "leaf-policy": "version:u8 type:u8 text:t",
    "record": "version:u8 account:b16 partner:t chain:u8 n:u payload:b salt:b leaf:b vrf_proof:b80 index:i",
    "grant-payload": "kind:u8 signed:b",
    "narrow-payload": "kind:u8 signed:b",
    "revoke-payload": "kind:u8 signed:b",
    "open": "kind:u8 conversation:b16 grant:b16 epoch:u period:i from_seq:u",
    "close": "kind:u8 conversation:b16 grant:b16 epoch:u period:i from_seq:u to_seq:u count:u countersignature:b",
    "post": "kind:u8 conversation:b16 grant:b16 epoch:u seq:u message:b32 labels:[t] post:b32 at:i",
    "delete": "kind:u8 conversation:b16 grant:b16 message:b32 seq:u at:i",
    "exposed": "kind:u8 conversation:b16 grant:b16 partner:t epoch:u granting:b16 agent_key:b32 at:i",
    "ended": "kind:u8 conversation:b16 grant:b16 partner:t epoch:u granting:b16 at:i",
    # spec/map.md, section 3
    "map-proof": "kind:u8 leaf:b bits:b siblings:b",
    # spec/keychain.md
    "entry": "version:u account:b16 n:u prev:b32 kind:u payload:b at:i signer:b32",
    "device": "id:b8 key:b32 name:t",
    "creation": "account:b16 host:t handle:t recovery:b32 device:device",
    "request": "account:b16 creation:b32 device:device",
    "removal": "device:b8 reason:u",
    "succession": "account:b16 key:b32",
    "preference": "name:u partner:t value:u",
    # spec/grant.md
    "agreement": "version:u number:u host:t partner:t name:t root_key:b32 actions:u8 report_days:u posts_per_minute:u "
                 "link_bases:[t] interfaces:[t] surfaces:[t] variants:[t] not_before:i not_after:i terms:b32",
    "countersigned": "body:b partner:b operator:b",
    "grant": "version:u id:b16 account:b16 handle:t partner:t agreement:b32 actions:u8 conversation:b16 agent_key:b32 "
             "chain_version:u slot_signers:[b32] issued:i expiry:i counter:u previous:b32 device:b8",
    "revocation": "version:u grant:b16 account:b16 handle:t partner:t conversation:b16 counter:u at:i device:b8",
    "narrowing": "version:u grant:b16 account:b16 handle:t partner:t conversation:b16 actions:u8 counter:u at:i device:b8",
}.items()}

HANDLE = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,30}[a-z0-9])?")
PARTNER = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
HOST = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}(?::[0-9]{1,5})?")
BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def plain(text, most):
    """Text without control and formatting characters (Unicode 15, categories Cc and Cf)."""
    return len(text.encode()) <= most and not any(
        unicodedata.category(c) in ("Cc", "Cf") or "\U00013439" <= c <= "\U0001343f" for c in text)


# ---- The curve edwards25519 in plain integers: for sound keys, and for ristretto255 (RFC 9496). Public values only: nothing is timed.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)
ZERO = (0, 1, 1, 0)  # points are (X, Y, Z, T), x = X/Z, y = Y/Z, T = XY/Z


def add(a, b):
    A, B = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    C, E = 2 * D * a[3] * b[3] % P, 2 * a[2] * b[2] % P
    e, f, g, h = B - A, E - C, E + C, B + A
    return e * f % P, g * h % P, f * g % P, e * h % P


def double(a):
    A, B, C = a[0] * a[0] % P, a[1] * a[1] % P, 2 * a[2] * a[2] % P
    h = A + B
    e, g = h - (a[0] + a[1]) ** 2 % P, A - B
    f = C + g
    return e * f % P, g * h % P, f * g % P, e * h % P


def negative(a):
    return -a[0] % P, a[1], a[2], -a[3] % P


def combine(m, a, n, b):
    """m a + n b"""
    both, result = add(a, b), ZERO
    for i in reversed(range(max(m.bit_length(), n.bit_length()))):
        result = double(result)
        bits = m >> i & 1, n >> i & 1
        if any(bits):
            result = add(result, both if all(bits) else a if bits[0] else b)
    return result


def sqrt_ratio(u, v):
    """Whether u/v is a square, and the root of u/v or of SQRT_M1 u/v that is even."""
    r = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    check, square = v * r * r % P, True
    if check != u % P:
        square = check == -u % P
        if square or check == -u * SQRT_M1 % P:
            r = r * SQRT_M1 % P
    return square, P - r if r & 1 else r


def curve_point(key):
    """The point of an Ed25519 key; None if there is none."""
    y = (int.from_bytes(key, "little") & 2**255 - 1) % P
    square, x = sqrt_ratio(y * y - 1, D * y * y + 1)
    if not square:
        return None
    if key[31] >> 7:
        x = -x % P
    return x, y, 1, x * y % P


BASE = curve_point(bytes.fromhex("58" + "66" * 31))


@functools.lru_cache(4096)
def small_order(key):
    """Whether anybody can sign under the key: eight times its point is zero, or it is no point at all."""
    point = curve_point(key)
    return point is None or double(double(double(point)))[0] == 0


def sound(key):
    """Written in the one way there is, and not of small order."""
    return int.from_bytes(key, "little") & 2**255 - 1 < P and not small_order(key)


@functools.lru_cache(4096)
def ed25519(key, message, signature):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


def signed_under(key, domain, body, signature):
    return not small_order(key) and ed25519(key, tagged(domain, body), signature)


def open_signed(data, kind, domain, key_of, what, most=1 << 20):
    """Reads a body and checks its signature under the key that key_of finds for it."""
    sealed = read(data, "signed", what, most)
    body = read(sealed.body, kind, what)
    need(signed_under(key_of(body), domain, sealed.body, sealed.signature), f"{what}: not signed by the key that must have signed it")
    return body


# ---- ristretto255 and the VRF: ECVRF-RISTRETTO255-SHA512, c2sp.org/vrf-r255

SQRT_AD_MINUS_ONE = 25063068953384623474111414158702152701244531502492656460079210482610430750235
INVSQRT_A_MINUS_D = 54469307008909316920995813868745141605393597292927456921205312896311721017578
ONE_MINUS_D_SQ = (1 - D * D) % P
D_MINUS_ONE_SQ = (D - 1) ** 2 % P


def even(x):
    x %= P
    return P - x if x & 1 else x


def ristretto_point(data):
    s = int.from_bytes(data, "little")
    need(len(data) == 32 and s < P and not s & 1, "a point of the VRF is malformed")
    u1, u2 = (1 - s * s) % P, (1 + s * s) % P
    v = (-D * u1 * u1 - u2 * u2) % P
    square, root = sqrt_ratio(1, v * u2 * u2 % P)
    dx = root * u2 % P
    x, y = even(2 * s * dx), u1 * root * dx * v % P
    t = x * y % P
    need(square and not t & 1 and y, "a point of the VRF is malformed")
    return x, y, 1, t


def ristretto_bytes(point):
    X, Y, Z, T = point
    u1, u2 = (Z + Y) * (Z - Y) % P, X * Y % P
    root = sqrt_ratio(1, u1 * u2 * u2 % P)[1]
    d1, d2 = root * u1 % P, root * u2 % P
    z = d1 * d2 * T % P
    d = d2
    if T * z % P & 1:
        X, Y, d = Y * SQRT_M1 % P, X * SQRT_M1 % P, d1 * INVSQRT_A_MINUS_D % P
    if X * z % P & 1:
        Y = -Y
    return even(d * (Z - Y)).to_bytes(32, "little")


def ristretto_map(data):
    t = int.from_bytes(data, "little") & 2**255 - 1
    r = SQRT_M1 * t * t % P
    u, v = (r + 1) * ONE_MINUS_D_SQ % P, (-1 - r * D) * (r + D) % P
    square, s = sqrt_ratio(u, v)
    c = P - 1
    if not square:
        s, c = -even(s * t) % P, r
    n = (c * (r - 1) * D_MINUS_ONE_SQ - v) % P
    w0, w1, w2, w3 = 2 * s * v, n * SQRT_AD_MINUS_ONE, 1 - s * s, 1 + s * s
    return w0 * w3 % P, w2 * w1 % P, w1 * w3 % P, w0 * w2 % P


@functools.lru_cache(4096)
def vrf(key, alpha, proof):
    """Checks a proof and answers the 64 bytes that it proves for the input alpha."""
    suite = b"\xffc2sp.org/vrf-r255"
    need(len(proof) == 80, "a VRF proof has not 80 bytes")
    y, gamma = ristretto_point(key), ristretto_point(proof[:32])
    c, s = int.from_bytes(proof[32:48], "little"), int.from_bytes(proof[48:], "little")
    need(s < L, "a VRF proof is malformed")
    uniform = hashlib.sha512(suite + b"\x82" + key + alpha).digest()
    h = add(ristretto_map(uniform[:32]), ristretto_map(uniform[32:]))
    u, v = combine(s, BASE, c, negative(y)), combine(s, h, c, negative(gamma))
    points = key + ristretto_bytes(h) + proof[:32] + ristretto_bytes(u) + ristretto_bytes(v)
    need(hashlib.sha512(suite + b"\x02" + points + b"\x00").digest()[:16] == proof[32:48], "a VRF proof does not hold")
    return hashlib.sha512(suite + b"\x03" + proof[:32] + b"\x00").digest()


def label_and_link(key, domain, place, proof):
    beta = vrf(key, tagged(domain, cbor(place)), proof)
    return beta[:32], beta[32:]


# ---- spec/ledger.md, section 1: the log. Inclusion as RFC 6962, section 2.1.

def leaf_hash(leaf):
    return sha256(b"\0" + leaf)


def included(checkpoint, leaf, index, proof, what):
    """The leaf stands at this index of the checkpoint's tree."""
    need(len(proof) % 32 == 0 and len(proof) <= 63 * 32 and 0 <= index < checkpoint.size, f"{what}: the inclusion proof is malformed")
    path = [proof[i:i + 32] for i in range(0, len(proof), 32)]
    node, at, last = leaf_hash(leaf), index, checkpoint.size - 1
    for sibling in path:
        need(last > 0, f"{what}: the inclusion proof is too long")
        if at & 1 or at == last:
            node = sha256(b"\1" + sibling + node)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            node = sha256(b"\1" + node + sibling)
        at, last = at >> 1, last >> 1
    need(last == 0 and node == checkpoint.root, f"{what}: it is not in the ledger")


def read_leaf(data, kind, number, what):
    leaf = read(data, kind, what, 32768)
    need((leaf.version, leaf.type) == (1, number), f"{what}: of another kind or version")
    return leaf


# ---- spec/witness.md, sections 1 and 3: keys, policies, cosigned checkpoints

def base64_bytes(text):
    """Reads standard base64 in its one spelling; None if it is another."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if base64.b64encode(data).decode() == text else None


def read_vkey(vkey, kind, what):
    """A note verifier, NAME+HASH+KEY, with a key of a kind: 1 a log's, 4 a witness'."""
    match = re.fullmatch(r"([!-*,-~]{1,128})\+([0-9a-f]{8})\+([!-~]+)", vkey)
    key = match and base64_bytes(match[3])
    need(key and len(key) == 33 and key[0] == kind and sha256(match[1].encode() + b"\n" + key)[:4].hex() == match[2],
         f"the key of {what} is malformed")
    return SimpleNamespace(vkey=vkey, name=match[1], id=bytes.fromhex(match[2]), key=key[1:])


def read_policy(text):
    """A policy: its lines in their one form, its log, its witnesses, and its quorum: a witness, (number, members), or None."""
    need(0 < len(text.encode()) <= 16384, "a policy is empty or too large")
    policy = SimpleNamespace(lines="", log=None, witnesses=[], quorum=None)
    names, members, groups, ended = {}, set(), 0, False
    for line in text.split("\n"):
        line = line.strip(" \t")
        if not line or line[0] == "#":
            continue
        need(all(" " <= c <= "~" or c == "\t" for c in line) and "#" not in line, "a line of the policy holds what it must not")
        word, *rest = line.split()
        if word == "log" and len(rest) in (1, 2):
            need(policy.log is None, "a policy names more than one log")
            policy.log = read_vkey(rest[0], 1, "the policy's log")
        elif word == "witness" and len(rest) in (2, 3):
            witness = read_vkey(rest[1], 4, "a witness")
            need(all(w.key != witness.key and (w.name, w.id) != (witness.name, witness.id) for w in policy.witnesses)
                 and len(policy.witnesses) < 32, "a policy has a witness twice, or too many")
            policy.witnesses.append(witness)
        elif word == "group" and len(rest) >= 3:
            inside = rest[2:]
            need(all(m in names and m not in members for m in inside) and len(set(inside)) == len(inside), "a group of a policy counts somebody twice, or nobody")
            least = {"any": "1", "all": str(len(inside))}.get(rest[1], rest[1])
            need(re.fullmatch("[1-9][0-9]{0,3}", least) and int(least) <= len(inside) and groups < 32, "a group of a policy has no sensible number")
            members.update(inside)
            groups += 1
        elif word == "quorum" and len(rest) == 1:
            need(not ended and (rest[0] == "none" or rest[0] in names), "the quorum of a policy is not defined")
            policy.quorum, ended = names.get(rest[0]), True
        else:
            raise Broken("a policy has a line of an unknown kind")
        if word in ("witness", "group"):
            need(rest[0] != "none" and rest[0] not in names and len(rest[0]) <= 128, "a name of a policy is taken or too long")
            names[rest[0]] = witness if word == "witness" else (int(least), [names[m] for m in inside])
        policy.lines += " ".join([word, *rest]) + "\n"
    need(policy.log and ended, "a policy names no log or no quorum")
    return policy


def enough(quorum, signed):
    """Whether the names and key ids that signed make the quorum."""
    if quorum is None:
        return True
    if isinstance(quorum, tuple):
        return sum(enough(member, signed) for member in quorum[1]) >= quorum[0]
    return (quorum.name, quorum.id) in signed


CHECKPOINT = re.compile(r"(([^\n]+)\n([1-9][0-9]{0,18})\n([A-Za-z0-9+/]{43}=)\n)\n((?:— [^ \n]+ [A-Za-z0-9+/=]+\n)+)")
SIGNATURE = re.compile(r"— ([^ \n]+) ([A-Za-z0-9+/=]+)\n")


def read_checkpoint(note, policy):
    """A checkpoint in its one form: the log's line, then one of each witness that signed, sorted, with the policy's quorum."""
    match = CHECKPOINT.fullmatch(note)
    need(match and len(note.encode()) <= 16384, "a checkpoint is malformed")
    text, origin, size, root = match[1].encode(), match[2], int(match[3]), base64_bytes(match[4])
    need(root and size < 1 << 63 and origin == policy.log.name, "a checkpoint is malformed, or of another ledger")
    signatures = [(line[1], base64_bytes(line[2]) or b"") for line in SIGNATURE.finditer(match[5])]
    lines = match[5].splitlines()
    need(signatures[0][0] == policy.log.name and signatures[0][1][:4] == policy.log.id and
         ed25519(policy.log.key, text, signatures[0][1][4:]), "a checkpoint is not signed by the ledger")
    need(lines[1:] == sorted(lines[1:]), "the cosignatures of a checkpoint are not sorted")
    witnesses = {(w.name, w.id): w for w in policy.witnesses}
    times = {}
    for name, signature in signatures[1:]:
        witness = witnesses.get((name, signature[:4]))
        need(witness and (name, witness.id) not in times, "somebody signed a checkpoint who is no witness of the policy in force, or twice")
        seconds = int.from_bytes(signature[4:12], "big")
        need(len(signature) == 76 and seconds <= (2**63 - 1) // 1000 and
             ed25519(witness.key, f"cosignature/v1\ntime {seconds}\n".encode() + text, signature[12:]), f"the cosignature of {name} does not hold")
        times[name, witness.id] = seconds
    need(enough(policy.quorum, times), "a checkpoint has not the cosignatures that its policy asks for")
    host = origin.removesuffix("/letterlock")  # a witness that bears the host's name is run by the operator
    cosigned = [{"name": w.name, "at": times[w.name, w.id] * 1000, "not_independent": w.name == host or w.name.startswith(host + "/")}
                for w in policy.witnesses if (w.name, w.id) in times]
    return SimpleNamespace(size=size, root=root, cosigned=cosigned)


def follow_policies(rows, own, pinned):
    """The policy in force after a row of handoffs, each of which holds under the one before; and the size of the last one's tree."""
    policy, last, size, found = own, 0, 0, pinned is None
    for i, row in enumerate(rows):
        what = f"policy {i}"
        try:
            checkpoint = read_checkpoint(row["checkpoint"], policy)
        except Broken as e:
            raise Broken(f"{what}: not signed off by the one before it: {e}")
        included(checkpoint, row["leaf"], row["index"], row["proof"], what)
        policy = read_policy(read_leaf(row["leaf"], "leaf-policy", 19, what).text)
        need(policy.log.vkey == own.log.vkey and row["index"] > last and checkpoint.size >= size, f"{what}: of another ledger, or out of order")
        last, size = row["index"], checkpoint.size
        found = found or policy.lines == pinned.lines
    if pinned and not rows:
        policy, found = pinned, True
    need(found, "the pinned policy was never in force in this file")
    return policy, size


# ---- spec/map.md: what the log does not hold

def M(data):
    return H("letterlock/map/v1", data)


def map_look(root, label, data, what="the map"):
    """What the map with this root holds under a label; None if the proof shows that it holds nothing."""
    proof = read(data, "map-proof", what, 9216)
    bits, siblings = proof.bits, [proof.siblings[i:i + 32] for i in range(0, len(proof.siblings), 32)]
    need(len(proof.siblings) == 32 * len(bits) and all(a < b for a, b in zip(bits, bits[1:])), f"{what}: its map proof is malformed")
    present = proof.kind == 1
    need(proof.kind < 2 and (len(proof.leaf) == 32 if present else len(proof.leaf) == 64 or proof.leaf == bits == b""), f"{what}: its map proof is malformed")
    if not proof.leaf:
        need(root == bytes(32), f"{what}: its map proof does not lead to the root")
        return None
    end, value = (label, proof.leaf) if present else (proof.leaf[:32], proof.leaf[32:])
    need(present or end != label, f"{what}: the map proof of absence ends at the label itself")
    node = M(b"\0" + end + value)
    for bit, sibling in zip(reversed(bits), reversed(siblings)):
        side = end[bit // 8] >> 7 - bit % 8 & 1
        need(side == label[bit // 8] >> 7 - bit % 8 & 1, f"{what}: the map proof of absence ends at a leaf to which the label does not lead")
        node = M(b"\1" + bytes([bit]) + (sibling + node if side else node + sibling))
    need(node == root, f"{what}: its map proof does not lead to the root")
    return value if present else None


def map_has(root, label, leaf, index, proof, what):
    need(map_look(root, label, proof, what) == M(b"\2" + leaf_hash(leaf) + index.to_bytes(8, "big", signed=True)), f"{what}: the map holds another entry, or none")


def map_lacks(root, label, proof, what):
    need(map_look(root, label, proof, what) is None, f"{what}: the map holds an entry that is not shown")


# ---- spec/keychain.md: the account's devices

def read_key_chain(entries):
    need(0 < len(entries) <= 4096, "the key chain is empty or too long")
    chain = SimpleNamespace(head=bytes(32), devices={}, keys=set(), version=len(entries) - 1)
    for n, data in enumerate(entries):
        what = f"key chain, entry {n}"
        entry = open_signed(data, "entry", "letterlock/keychain/v1", lambda e: e.signer, what, 2048)
        need((entry.version, entry.n, entry.prev) == (1, n, chain.head) and entry.at >= 0, f"{what}: it does not follow the one before")
        if n == 0:
            create_account(chain, entry, what)
            chain.creation = sha256(data)
        else:
            need(entry.account == chain.account, f"{what}: of another account")
            apply_entry(chain, entry, what)
        chain.head = sha256(data)
    return chain


def create_account(chain, entry, what):
    need(entry.kind == 1, f"{what}: it does not create the account")
    made = open_signed(entry.payload, "creation", "letterlock/keychain-create/v1", lambda c: c.recovery, what)
    need(made.account == entry.account and any(made.account) and HOST.fullmatch(made.host) and HANDLE.fullmatch(made.handle) and
         made.device.key == entry.signer, f"{what}: it does not create this account")
    chain.account, chain.host, chain.handle, chain.recovery = made.account, made.host, made.handle, made.recovery
    take_key(chain, made.recovery, what)
    add_device(chain, made.device, 0, what)


def apply_entry(chain, entry, what):
    by_recovery = entry.signer == chain.recovery
    need(by_recovery or any(d.key == entry.signer and not d.removed for d in chain.devices.values()), f"{what}: signed by nobody of the chain")
    need(by_recovery or entry.n < 4096 - 64 and entry.kind != 4, f"{what}: only the recovery key may sign this")
    if entry.kind == 2:
        request = open_signed(entry.payload, "request", "letterlock/keychain-device/v1", lambda r: r.device.key, what)
        need(request.account == chain.account and request.creation == chain.creation, f"{what}: the device asked to join another chain")
        add_device(chain, request.device, entry.n, what)
    elif entry.kind == 3:
        removal = read(entry.payload, "removal", what)
        device = chain.devices.get(removal.device)
        need(device and not device.removed and removal.reason in (1, 2, 3), f"{what}: it removes no device of the chain")
        need(device.key != entry.signer or removal.reason == 1, f"{what}: a device calls itself lost or stolen")
        device.removed, device.stolen = entry.n, removal.reason == 3
    elif entry.kind == 4:
        new = open_signed(entry.payload, "succession", "letterlock/keychain-recovery/v1", lambda s: s.key, what)
        need(new.account == chain.account, f"{what}: the recovery key is for another account")
        take_key(chain, new.key, what)
        chain.recovery = new.key
    else:
        wish = read(entry.payload, "preference", what)
        need(entry.kind == 5 and wish.value <= {1: 1, 2: 2}.get(wish.name, -1) and
             (PARTNER.fullmatch(wish.partner) or wish.partner == "" and wish.name == 1), f"{what}: of an unknown kind")


def take_key(chain, key, what):
    need(sound(key) and key not in chain.keys, f"{what}: a key is not sound, or stood in the chain before")
    chain.keys.add(key)


def add_device(chain, device, n, what):
    name = device.name
    need(0 < len(name.encode()) <= 64 and not any(unicodedata.category(c) == "Cc" or c in BIDI + "\u2028\u2029" for c in name),
         f"{what}: the device's name cannot be shown")
    need(device.id not in chain.devices and sum(not d.removed for d in chain.devices.values()) < 32, f"{what}: the device stood in the chain before, or there are too many")
    take_key(chain, device.key, what)
    chain.devices[device.id] = SimpleNamespace(key=device.key, name=name, added=n, removed=0, stolen=False)


# ---- spec/grant.md: agreements, grants, narrowings, revocations

LINK_BASE = re.compile(r"(?i:https?)://(?:(?:[a-z0-9._~!$&'()*+,;=<>\"-]|[^\x00-\x7f]|%(?:25|[89a-f][0-9a-f]))+(?::[0-9]*)?|\[[0-9a-f:.]+\](?::[0-9]*)?|:[0-9]*)"
                       r"(?:/(?:[^%\x00-\x1f\x7f?#]|%[0-9a-f][0-9a-f])*)?\??#?", re.IGNORECASE | re.ASCII)


def read_agreement(record, server_key, what):
    both = read(record, "countersigned", what, 16384)
    a = read(both.body, "agreement", what)
    need(signed_under(a.root_key, "letterlock/agreement/v1", both.body, both.partner), f"{what}: not signed by the partner")
    need(signed_under(server_key, "letterlock/agreement-operator/v1", both.body, both.operator), f"{what}: not signed by the operator")
    labels = (a.interfaces, a.surfaces, a.variants)
    need(a.version == 1 and HOST.fullmatch(a.host) and PARTNER.fullmatch(a.partner) and shown(a.name) and 0 < a.not_before < a.not_after and
         a.report_days <= 366 and 1 <= a.posts_per_minute <= 1_000_000 and 0 < a.actions < 8 and
         all(len(l) <= 64 and len(set(l)) == len(l) and all(map(shown, l)) for l in labels) and
         len(a.link_bases) <= 64 and all(len(b.encode()) <= 512 and LINK_BASE.fullmatch(b) for b in a.link_bases), f"{what}: malformed")
    a.hash = H("letterlock/agreement/v1", record)
    return a


def shown(text):
    return text != "" and plain(text, 64) and text.strip() == text


def covers(agreement, grant):
    return (agreement.partner == grant.partner and grant.actions & ~agreement.actions == 0 and
            agreement.not_before <= grant.issued < agreement.not_after and grant.expiry <= agreement.not_after)


def read_control(payload, chain, agreements, what):
    """What a device of the account signed: a grant, a narrowing or a revocation."""
    if payload.kind == 1:
        def key_at_version(g):
            d = chain.devices.get(g.device)
            need(d and d.added <= g.chain_version <= chain.version and not 0 < d.removed <= g.chain_version, f"{what}: its device was not in the key chain then")
            return d.key
        g = open_signed(payload.signed, "grant", "letterlock/grant/v1", key_at_version, what, 16384)
        need(any(g.id) and 0 < g.issued < g.expiry and 1 <= len(g.slot_signers) <= 256 and
             all(a < b for a, b in zip(g.slot_signers, g.slot_signers[1:])), f"{what}: malformed")
        need(any(a.hash == g.agreement and covers(a, g) for a in agreements), f"{what}: no agreement of the file carries the grant")
        g.hash, g.stolen = H("letterlock/grant/v1", payload.signed), chain.devices[g.device].stolen
    else:
        def key_ever(x):
            need(x.device in chain.devices, f"{what}: its device was never in the key chain")
            return chain.devices[x.device].key
        kind, domain = ("narrowing", "letterlock/narrow/v1") if payload.kind == 2 else ("revocation", "letterlock/revoke/v1")
        g = open_signed(payload.signed, kind, domain, key_ever, what, 16384)
        need(any(g.grant) and g.at > 0, f"{what}: malformed")
    need(g.version == 1 and any(g.account) and any(g.conversation) and HANDLE.fullmatch(g.handle) and PARTNER.fullmatch(g.partner) and
         (payload.kind == 3 or 0 < g.actions < 8), f"{what}: malformed")
    return g


# ---- spec/ledger.md, sections 3 and 4: records

PAYLOADS = {1: "grant-payload", 2: "narrow-payload", 3: "revoke-payload", 16: "open", 17: "close", 18: "post", 19: "delete", 20: "exposed", 21: "ended"}
CHAINS = {1: "control", 2: "access"}
HOUR = 3_600_000


def read_payload(data, chain, partner, what):
    need(2 <= len(data) <= 17408 and PAYLOADS.get(data[1]) and (data[1] > 3) == (chain == 2), f"{what}: its payload does not belong there")
    p = read(data, PAYLOADS[data[1]], what)
    if p.kind <= 3:
        need(p.signed, f"{what}: nothing is signed in it")
        return p
    need(any(p.conversation) and any(p.grant), f"{what}: conversation or grant is missing")
    need(getattr(p, "at", 0) >= 0 and getattr(p, "period", 0) >= 0 and getattr(p, "period", 0) % HOUR == 0, f"{what}: a time in it makes no sense")
    if p.kind == 17:
        need(len(p.countersignature) in (0, 64) and p.from_seq > 0 and p.from_seq <= p.to_seq + 1 < 1 << 64 and
             p.count <= p.to_seq + 1 - p.from_seq, f"{what}: its range and count do not fit")
    if p.kind == 18:
        need(len(p.labels) <= 16 and all(l and plain(l, 64) for l in p.labels), f"{what}: a label is malformed")
    if p.kind in (20, 21):
        need(any(p.granting) and p.partner == partner, f"{what}: of another partner, or of nobody's grant")
    return p


def read_records(rows, chain, b, checkpoint):
    """The records of a chain: each at its place, following the one before, in the log behind it."""
    records, before = [], None
    for n, row in enumerate(rows):
        what = f"record {n} of {CHAINS[chain]}"
        r = read(row["record"], "record", what, 18432)
        need((r.version, r.account, r.partner, r.chain) == (1, b["account"], b["partner"], chain), f"{what}: it belongs to another chain")
        need(r.n == n, f"{what} is missing: the next one is number {r.n}")
        leaf = read_leaf(r.leaf, "leaf-personal", 2, what)
        label, link = label_and_link(b["vrf_key"], "letterlock/label/v1", [r.account, r.partner, chain, n], r.vrf_proof)
        need(leaf.label == label, f"{what}: its leaf belongs to another record")
        need(leaf.prev == H("letterlock/prev/v1", link + (leaf_hash(before.leaf) if before else bytes(32))), f"{what}: it names another record before it")
        r.says = None
        if r.payload or r.salt:
            need(len(r.salt) == 32 and leaf.commit == H("letterlock/commit/v1", r.salt + r.payload), f"{what}: its leaf does not commit to what it says")
            r.says = read_payload(r.payload, chain, b["partner"], what)
        included(checkpoint, r.leaf, r.index, row["proof"], what)
        need(before is None or r.index > before.index, f"{what}: it stands in the ledger before the record that it follows")
        records.append(r)
        before = r
    return records


# ---- spec/ledger.md, section 7: the bundle

LEAF = {"leaf": bytes, "index": int, "proof": bytes}
ABSENCE = {"vrf_proof": bytes, "proof": bytes}
RECORD = {"record": bytes, "proof": bytes}
BUNDLE = {
    "format": str, "host": str, "account": str, "handle": str, "partner": str, "ledger_vkey": str, "server_key": bytes, "vrf_key": bytes,
    "checkpoint": str, "keys": LEAF, "map": LEAF,
    "policies": [{"leaf": bytes, "checkpoint": str, "index": int, "proof": bytes}], "agreements": [LEAF], "key_chain": [bytes],
    "newest_key": {"index": int, **ABSENCE}, "next_key": ABSENCE, "control": [RECORD], "access": [RECORD],
    "next_control": ABSENCE, "next_access": ABSENCE,
}


def typed(value, form):
    """A JSON value as its form says, with base64 read."""
    if isinstance(form, dict):
        need(isinstance(value, dict) and list(value) == list(form), "the file has not the members of a bundle")
        return {name: typed(value[name], form[name]) for name in form}
    if isinstance(form, list):
        need(isinstance(value, list), "a member of the file is of another kind")
        return [typed(v, form[0]) for v in value]
    need(type(value) is (str if form is bytes else form), "a member of the file is of another kind")
    if form is bytes:
        value = base64_bytes(value)
        need(value is not None, "a member of the file is not base64")
    need(form is not int or -1 << 63 <= value < 1 << 63, "a number of the file is too large")
    return value


def read_bundle(data):
    need(len(data) <= 64 << 20, "the file is larger than 64 MiB")
    try:
        value = json.loads(data.decode())
        again = (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
    except (ValueError, RecursionError):
        raise Broken("the file is not a bundle")
    need(isinstance(value, dict) and value.get("format") == "letterlock-bundle/2", "the file is not a bundle, or of a version that is not known here")
    need(again == data, "the bundle is not in its one form: it was changed after it was made")
    b = typed(value, BUNDLE)
    need(re.fullmatch("[0-9a-f]{32}", b["account"]), "the account is malformed")
    b["account"] = bytes.fromhex(b["account"])
    need(len(b["policies"]) <= 64 and len(b["agreements"]) <= 64 and max(len(b["control"]), len(b["access"])) <= 65536, "the bundle holds too much")
    return b


def verify(data, policy=None, ledger_key=None):
    """What a bundle proves. Broken if it proves nothing."""
    b = read_bundle(data)
    need(HOST.fullmatch(b["host"]) and (b["partner"] == "" or PARTNER.fullmatch(b["partner"])), "host or partner is malformed")
    need(b["vrf_key"] != bytes(32) and len(b["server_key"]) == 32, "a key of the server is malformed")
    ristretto_point(b["vrf_key"])

    # Who signed the tree, and under which policy.
    need(ledger_key in (None, b["ledger_vkey"]), "the bundle is about another ledger than the pinned one")
    own = read_policy(f"log {b['ledger_vkey']}\nquorum none\n")
    need(own.log.name == b["host"] + "/letterlock", "the ledger's key is another host's")
    pinned = policy and read_policy(policy)
    need(not pinned or pinned.log.vkey == b["ledger_vkey"], "the pinned policy is for another ledger")
    in_force, size = follow_policies(b["policies"], own, pinned)
    checkpoint = read_checkpoint(b["checkpoint"], in_force)
    need(checkpoint.size >= size, "the checkpoint is older than the policy that it is to be held against")

    # The first entry names the keys, the last one is the root of the map.
    keys = b["keys"]
    included(checkpoint, keys["leaf"], keys["index"], keys["proof"], "the keys leaf")
    k = read_leaf(keys["leaf"], "leaf-server-keys", 5, "the keys leaf")
    need(keys["index"] == 0 and k.at >= 0 and (k.host, k.ledger_vkey, k.server_key, k.vrf_key) ==
         (b["host"], b["ledger_vkey"], b["server_key"], b["vrf_key"]), "entry 0 of the ledger does not announce the bundle's host and keys")
    included(checkpoint, b["map"]["leaf"], b["map"]["index"], b["map"]["proof"], "the map root")
    m = read_leaf(b["map"]["leaf"], "leaf-map-root", 16, "the map root")
    need(b["map"]["index"] == m.covers == checkpoint.size - 1 and m.covers > 0 and m.at >= 0 and m.public <= m.covers,
         "the last entry of the ledger is not a map root of all entries before it")

    times = [w["at"] for w in checkpoint.cosigned] or [m.at]
    checkpoint.as_of = {"from": min(times), "to": max(times), "by": "witnesses" if checkpoint.cosigned else "server"}

    # The account's keys, all of them.
    chain = read_key_chain(b["key_chain"])
    need((chain.account, chain.handle, chain.host) == (b["account"], b["handle"], b["host"]), "the key chain is another account's")

    def key_label(n, proof):
        return label_and_link(b["vrf_key"], "letterlock/keychain-label/v1", [b["handle"], n], proof)[0]
    label = key_label(chain.version, b["newest_key"]["vrf_proof"])
    map_has(m.root, label, cbor([1, 17, label, chain.head]), b["newest_key"]["index"], b["newest_key"]["proof"], "the key chain")
    map_lacks(m.root, key_label(chain.version + 1, b["next_key"]["vrf_proof"]), b["next_key"]["proof"], "the key chain is not the newest")
    if not b["partner"]:
        nothing = {"vrf_proof": b"", "proof": b""}
        need(not (b["agreements"] or b["control"] or b["access"]) and b["next_control"] == b["next_access"] == nothing,
             "a bundle of keys alone holds a history")
        return judge(b, checkpoint, chain, [], [], [], [])

    # What the partner may ask for, and the records of both chains, with the proof that there are no more.
    agreements, last = [], 0
    for i, row in enumerate(b["agreements"]):
        what = f"agreement {i}"
        included(checkpoint, row["leaf"], row["index"], row["proof"], what)
        a = read_agreement(read_leaf(row["leaf"], "leaf-agreement", 1, what).record, b["server_key"], what)
        need((a.host, a.partner) == (b["host"], b["partner"]) and row["index"] > last, f"{what}: another partner's or host's, or out of order")
        last = row["index"]
        agreements.append(a)
    control, access = read_records(b["control"], 1, b, checkpoint), read_records(b["access"], 2, b, checkpoint)
    for number, records, member in (1, control, "next_control"), (2, access, "next_access"):
        place = [b["account"], b["partner"], number, len(records)]
        label = label_and_link(b["vrf_key"], "letterlock/label/v1", place, b[member]["vrf_proof"])[0]
        map_lacks(m.root, label, b[member]["proof"], f"the {len(records)} records of {CHAINS[number]} are not all")
    for r in control:
        what = f"record {r.n} of control"
        if r.says:
            r.signed = read_control(r.says, chain, agreements, what)
            need((r.signed.account, r.signed.handle, r.signed.partner, r.signed.counter) == (b["account"], b["handle"], b["partner"], r.n),
                 f"{what}: signed for another account, partner or number")
    return judge(b, checkpoint, chain, agreements, control, access, sorted(control + access, key=lambda r: r.index))


# ---- The verdict: what the records say, in the order of the ledger, and what contradicts itself

READ, SEND, DELETE = 2, 1, 4
PENDING = 10 * 60 * 1000  # a grant that replaces another counts from its commit, at most so many milliseconds after it was issued


def judge(b, checkpoint, chain, agreements, control, access, records):
    v = SimpleNamespace(account=b["account"], host=b["host"], grants={}, spans=[], findings=[], posts=0, other_posts=0, deletes=0,
                        other_deletes=0, erased=0, erased_control=False, erased_access=False, loose=False)
    for r in records:
        at = f"entry {r.index}"
        if r.says is None:
            v.erased += 1
            v.erased_control |= r.chain == 1
            v.erased_access |= r.chain == 2
        else:
            TAKE[r.says.kind](v, r.signed if r.chain == 1 else r.says, r.index, at)
    for g in v.grants.values():
        if g.stolen and not g.how:
            v.findings.append(f"grant {g.id.hex()} was signed by a device that was later reported stolen, and was not revoked")
    if not b["partner"]:
        kind = "keys"
    elif v.loose or any(s.granting == v.account for s in v.spans):
        kind = "access"
    elif v.spans:
        kind = "exposed"
    elif v.erased_access:
        kind = "erased"
    else:
        kind = "never-read" if records else "never"
    name = max(agreements, key=lambda a: a.number).name if agreements else b["partner"]
    return {"kind": kind, "headline": headline(kind, name, f"{b['handle']}@{b['host']}", len(chain.devices)), "host": b["host"], "account": b["account"].hex(),
            "handle": b["handle"], "partner": b["partner"], "partner_name": name, "ledger_size": checkpoint.size,
            "ledger_root": base64.b64encode(checkpoint.root).decode(), "as_of": checkpoint.as_of, "witnesses": checkpoint.cosigned,
            "devices": [device_json(id, d) for id, d in chain.devices.items()] if kind == "keys" else [],
            "grants": [grant_json(g) for g in v.grants.values()], "reads": [span_json(s) for s in v.spans], "posts": v.posts, "deletes": v.deletes,
            "other_posts": v.other_posts, "other_deletes": v.other_deletes, "erased": v.erased, "complete": True, "findings": v.findings}


def headline(kind, app, person, devices):
    return {
        "never": f"{app} was never allowed anything by {person} and could never read anything: there is no grant, no exposure and no access.",
        "never-read": f"{app} could never read anything of {person}: something was granted, but no reader was ever let in.",
        "exposed": f"{app} could read what {person} wrote and received, by a grant of somebody else in the thread.",
        "access": f"{app} could read what {person} wrote and received, by that person's own grant.",
        "keys": f"These are all keys that {person} ever had: {devices} of devices.",
        "erased": f"Something between {app} and {person} was logged whose contents were erased: whether anything could be read, this file does not say.",
    }[kind]


def names(actions):
    return [name for bit, name in ((SEND, "send"), (READ, "read"), (DELETE, "delete")) if actions & bit]


def device_json(id, d):
    return {"device": id.hex(), "name": d.name, "key": base64.b64encode(d.key).decode(), "added": d.added, "removed": d.removed, "stolen": d.stolen}


def grant_json(g):
    return {"grant": g.id.hex(), "conversation": g.conversation.hex(), "actions": names(g.actions), "left": names(g.left), "issued": g.issued,
            "expiry": g.expiry, "index": g.index, "how": g.how, "ended": g.ended, "stolen": g.stolen}


def span_json(s):
    return {"conversation": s.conversation.hex(), "grant": s.grant.hex(), "granting": s.granting.hex(), "from_epoch": s.epoch,
            "to_epoch": s.to_epoch, "from": s.at, "to": s.ended_at, "periods": s.periods, "closed": s.closed, "countersigned": s.countersigned, "entries": s.entries,
            "entries_unsigned": s.unsigned}


def span_of(v, p):
    """The newest span of a reader."""
    return next((s for s in reversed(v.spans) if (s.grant, s.conversation) == (p.grant, p.conversation)), None)


def take_grant(v, g, index, at):
    if g.id in v.grants:
        v.findings.append(f"{at} grants under an id that was used before")
        return
    if any(g.previous):
        before = next((o for o in v.grants.values() if o.hash == g.previous), None)
        if before and not before.how:
            before.how, before.ended, before.left = "replaced", g.issued, 0
        elif not before and not v.erased_control:
            v.findings.append(f"{at} replaces a grant that is not in the bundle")
    g.left, g.how, g.ended, g.index = g.actions, "", 0, index
    v.grants[g.id] = g


def take_narrowing(v, n, index, at):
    g = v.grants.get(n.grant)
    if g is None or g.how:
        if not v.erased_control:
            v.findings.append(f"{at} narrows a grant that does not stand")
    elif n.actions & ~g.left or n.actions == g.left:
        v.findings.append(f"{at} narrows a grant to actions that it did not have")
    else:
        g.left = n.actions


def take_revocation(v, r, index, at):
    g = v.grants.get(r.grant)
    if g and not g.how:
        g.how, g.ended, g.left = "revoked", r.at, 0
    elif not v.erased_control:
        v.findings.append(f"{at} revokes a grant that does not stand")


def allowed(v, p, action, when, at):
    """An access by a grant of this account must be what the grant said when the access was logged."""
    g = v.grants.get(p.grant)
    if g is None:
        if not v.erased_control:
            v.findings.append(f"{at} is an access, and no grant allowed it")
    elif g.how == "replaced" and g.conversation == p.conversation and g.actions & action and when < g.ended + PENDING:
        pass
    elif g.how:
        v.findings.append(f"{at} was logged after its grant was {g.how}")
    elif g.conversation != p.conversation:
        v.findings.append(f"{at} is an access in another conversation than the grant's")
    elif not g.left & action:
        v.findings.append(f"{at} is an access that its grant did not allow")


def take_exposed(v, p, index, at):
    s = span_of(v, p)
    if s and s.to_epoch is None:
        v.findings.append(f"{at} is an exposure to a reader that was there already")
        return
    g = v.grants.get(p.grant)
    if p.granting == v.account:
        allowed(v, p, READ, p.at, at)
        if g and g.agent_key != p.agent_key:
            v.findings.append(f"{at} is an exposure to another key than the grant's")
    elif g:
        v.findings.append(f"{at} ascribes a grant of this person to somebody else")
    p.to_epoch, p.ended_at, p.open = None, 0, set()
    p.periods = p.closed = p.countersigned = p.entries = p.unsigned = 0
    v.spans.append(p)


def without_exposure(v, p, s, what):
    """Something of a reader to whom no exposure is recorded like that: only an erased record may explain it."""
    if s is None:
        v.loose |= v.erased == 0 or p.grant in v.grants
    if v.erased == 0:
        v.findings.append(what)


def take_ended(v, p, index, at):
    s = span_of(v, p)
    if s is None or s.to_epoch is not None or p.epoch <= s.epoch or p.granting != s.granting:
        without_exposure(v, p, s, f"{at} ends an exposure that is not recorded like that")
    else:
        s.to_epoch, s.ended_at = p.epoch - 1, p.at


def within(v, p, s, at):
    if p.epoch < s.epoch or s.to_epoch is not None and p.epoch > s.to_epoch:
        v.findings.append(f"{at} is an access at epoch {p.epoch}, outside the exposure")


def take_open(v, p, index, at):
    s = span_of(v, p)
    if s is None:
        without_exposure(v, p, s, f"{at} opens access for a reader to whom no exposure is recorded")
        return
    within(v, p, s, at)
    if s.granting == v.account:
        allowed(v, p, READ, p.period, at)
    s.periods += 1
    s.open.add(p.period)


def take_close(v, p, index, at):
    s = span_of(v, p)
    if s is None or p.period not in s.open:
        without_exposure(v, p, s, f"{at} closes an access period that was not opened")
        return
    within(v, p, s, at)
    s.open.remove(p.period)
    s.closed += 1
    s.entries += p.count
    statement = cbor([1, v.host, p.conversation, p.grant, p.epoch, p.period, p.from_seq, p.to_seq, p.count])
    if p.countersignature and signed_under(s.agent_key, "letterlock/receipt/v1", statement, p.countersignature):
        s.countersigned += 1
        return
    s.unsigned += p.count
    if p.countersignature:
        v.findings.append(f"{at} holds a countersignature that is not the agent's")


def of_others(v, p):
    """Whether a post's grant is somebody else's, as far as the bundle shows."""
    if p.grant in v.grants:
        return False
    return next((s.granting != v.account for s in v.spans if s.grant == p.grant), True)


def take_post(v, p, index, at):
    if of_others(v, p):
        v.other_posts += 1
        return
    v.posts += 1
    allowed(v, p, SEND, p.at, at)
    if p.grant in v.grants and p.at >= v.grants[p.grant].expiry:
        v.findings.append(f"{at} is a post after its grant expired")


def take_delete(v, p, index, at):
    if of_others(v, p):
        v.other_deletes += 1
        return
    v.deletes += 1
    allowed(v, p, DELETE, p.at, at)


TAKE = {1: take_grant, 2: take_narrowing, 3: take_revocation, 16: take_open, 17: take_close, 18: take_post, 19: take_delete,
        20: take_exposed, 21: take_ended}

UNSAID = """What this cannot say:
 - It shows what was logged up to its checkpoint, and no other accounts and partners.
 - Times are the word of the witnesses, the server and the person's devices. Who the witnesses are, you must know.
 - What could be read may have been copied."""


def file_verdict(path, policy, ledger_key):
    """The verdict on a file; {"error": sentence} if it proves nothing."""
    with open(path, "rb") as f:
        data = f.read((64 << 20) + 1)
    try:
        return verify(data, policy, ledger_key)
    except Broken as e:
        return {"error": str(e)}


def day(ms):
    try:
        return datetime.datetime.fromtimestamp(ms // 1000, datetime.timezone.utc).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{ms} milliseconds after 1970"


def text(path):
    with open(path, "rb") as f:
        return f.read(16385).decode()


def show(v):
    print(v["headline"])
    for finding in v["findings"]:
        print("CONTRADICTION:", finding)
    for g in v["grants"]:
        print(f"Granted {', '.join(g['actions'])} in conversation {g['conversation']} until {day(g['expiry'])} (entry {g['index']})" +
              (f"; {g['how']} {day(g['ended'])}." if g["how"] else f"; what is left of it: {', '.join(g['left'])}."))
    for s in v["reads"]:
        end = "on, no end is recorded" if s["to_epoch"] is None else f"to epoch {s['to_epoch']}"
        print(f"Could read conversation {s['conversation']} from epoch {s['from_epoch']} {end}, by a grant of "
              f"{'this person' if s['granting'] == v['account'] else 'account ' + s['granting']}; was served {s['entries']} entries, "
              f"{s['entries_unsigned']} of them on the server's word alone, in {s['periods']} periods of which {s['closed']} are closed.")
    for d in v["devices"]:
        print(f"Device {d['device']}, {d['name']}: key {d['key']}" + ("; removed." if d["removed"] else "."))
    print(f"The ledger {v['host']}/letterlock signed {v['ledger_size']} entries, and nothing was left out up to there: as of {day(v['as_of']['to'])},")
    print("by the server's clock; no witness signed." if not v["witnesses"] else "signed by " + ", ".join(
        w["name"] + (" (run by the operator: not independent)" if w["not_independent"] else "") for w in v["witnesses"]) + ".")


def main():
    p = argparse.ArgumentParser(description="Check a letterlock bundle offline.", epilog="Exit code 0: it holds. 4: it does not. 1: it cannot be read.")
    p.add_argument("file", nargs="?")
    p.add_argument("--policy", help="a file with the witness policy, from a source you trust")
    p.add_argument("--ledger-key", help="the ledger's key, from a source you trust")
    p.add_argument("--json", action="store_true", help="answer in JSON")
    p.add_argument("--batch", metavar="FOLDER", help="check every file of a folder, a line of JSON each")
    a = p.parse_args()
    try:
        policy = text(a.policy) if a.policy else None
        if a.batch:
            for name in sorted(os.listdir(a.batch)):
                print(json.dumps({"file": name, **file_verdict(os.path.join(a.batch, name), policy, a.ledger_key)}))
            return 0
        if not a.file:
            p.error("name a file")
        v = file_verdict(a.file, policy, a.ledger_key)
    except (OSError, ValueError) as e:
        print(f"the file cannot be read: {e}", file=sys.stderr)
        return 1
    if "error" in v:
        print(json.dumps(v) if a.json else f"This file proves nothing: {v['error']}.")
        return 4
    if a.json:
        print(json.dumps(v, indent=2))
        return 0
    show(v)
    if not (a.ledger_key or policy):
        print("The ledger's key and its witnesses are the file's own claim: compare them with --ledger-key or --policy.")
    print(UNSAID)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Tests of the parts: python3 -m unittest letterlock_verify_test. The Go tests in e2e/pyverify judge the whole."""
import hashlib
import unittest

import letterlock_verify as v

hx = bytes.fromhex


class Curve(unittest.TestCase):
    def test_vector_of_the_vrf(self):
        # c2sp.org/vrf-r255
        key = hx("54136cd90d99fbd1d4e855d9556efea87ba0337f2a6ce22028d0f5726fcb854e")
        alpha = hx("633273702e6f72672f7672662d72323535")
        proof = hx("0a97d961262fb549b4175c5117860f42ae44a123f93c476c439eddd1c0cff9265c805525233e2284dbed45e593b8eea3"
                   "1d5ca9734d72bcbba9738d5237f955f3b2422351149d1312503b6441a47c940c")
        beta = hx("dd653f0879b48c3ef69e13551239bec4cbcc1c18fe8894de2e9e1c790e18273603bf1c6c25d7a797aeff3c43fd32b974"
                  "d3fcbd4bcce916007097922a3ea3a794")
        self.assertEqual(v.vrf(key, alpha, proof), beta)
        for i in range(80):
            with self.assertRaises(v.Broken):
                v.vrf(key, alpha, proof[:i] + bytes([proof[i] ^ 1]) + proof[i + 1:])
        with self.assertRaises(v.Broken):
            v.vrf(key, alpha + b"x", proof)

    def test_multiples_of_the_generator(self):
        # RFC 9496, appendix A.1
        want = ["00" * 32, "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76",
                "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919",
                "94741f5d5d52755ece4f23f044ee27d5d1ea1e2bd196b462166b16152a9d0259"]
        point = v.ZERO
        for multiple in want:
            self.assertEqual(v.ristretto_bytes(point).hex(), multiple)
            self.assertEqual(v.ristretto_bytes(v.ristretto_point(hx(multiple))).hex(), multiple)
            point = v.add(point, v.BASE)

    def test_bad_points(self):
        # RFC 9496, appendix A.2: not canonical, negative, no square, negative xy, s = -1
        for bad in ["00" + "ff" * 31, "f3" + "ff" * 30 + "7f", "0100000000000000000000000000000000000000000000000000000000000000",
                    "26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371",
                    "3eb858e78f5a7254d8c9731174a94f76755fd3941c0ac93735c07ba14579630e", "ec" + "ff" * 30 + "7f"]:
            with self.assertRaises(v.Broken):
                v.ristretto_point(hx(bad))

    def test_map(self):
        # RFC 9496, appendix A.3
        for data, want in [
                ("5d1be09e3d0c82fc538112490e35701979d99e06ca3e2b5b54bffe8b4dc772c14d98b696a1bbfb5ca32c436cc61c16563790306c79eaca7705668b47dffe5bb6",
                 "3066f82a1a747d45120d1740f14358531a8f04bbffe6a819f86dfe50f44a0a46"),
                ("f116b34b8f17ceb56e8732a60d913dd10cce47a6d53bee9204be8b44f6678b270102a56902e2488c46120e9276cfe54638286b9e4b3cdb470b542d46c2068d38",
                 "f26e5b6f7d362d2d2a94c5d0e7602cb4773c95a2e5c31a64f133189fa76ed61b")]:
            both = v.add(v.ristretto_map(hx(data)[:32]), v.ristretto_map(hx(data)[32:]))
            self.assertEqual(v.ristretto_bytes(both).hex(), want)

    def test_small_order(self):
        for bad in ["00" * 32, "01" + "00" * 31, "01" + "00" * 30 + "80", "ec" + "ff" * 30 + "7f", "ed" + "ff" * 30 + "7f", "ee" + "ff" * 30 + "7f",
                    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"]:
            self.assertTrue(v.small_order(hx(bad)), bad)
            self.assertFalse(v.sound(hx(bad)))
        good = hx("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
        self.assertTrue(v.sound(good))
        # RFC 8032, test 1
        signature = hx("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b")
        self.assertTrue(v.ed25519(good, b"", signature))
        self.assertFalse(v.ed25519(good, b"x", signature))
        self.assertFalse(v.ed25519(good, b"", signature[:63]))


class Cbor(unittest.TestCase):
    def test_there_and_back(self):
        for value in [0, 23, 24, 255, 256, 65535, 65536, 1 << 32, (1 << 64) - 1, -1, -25, -(1 << 63), b"", b"x" * 300, "ä€", [], [1, [b"2", "3"]] * 20]:
            self.assertEqual(v.cbor_item(v.cbor(value), 0), (value, len(v.cbor(value))))

    def test_only_one_encoding(self):
        for bad in ["", "18", "1817", "190017", "1a00000017", "1b0000000000000017", "5801", "4100" * 0 + "41", "5f4100ff", "9f00ff", "a10000", "c000",
                    "f4", "f6", "f93c00", "61ff", "63eda080", "9a00010000", "81" * 9 + "00", "1c", "ff"]:
            with self.assertRaises(v.Broken, msg=bad):
                v.cbor_item(hx(bad), 0)

    def test_fields(self):
        v.read(v.cbor([b"", b""]), "signed", "thing")
        for bad in [[b""], [b"", b"", b""], [b"", ""], [b"", 1], b""]:
            with self.assertRaises(v.Broken):
                v.read(v.cbor(bad), "signed", "thing")
        with self.assertRaises(v.Broken):
            v.read(v.cbor([b"", b""]) + b"\0", "signed", "thing")


def tree(leaves):
    if len(leaves) == 1:
        return v.leaf_hash(leaves[0])
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return v.sha256(b"\1" + tree(leaves[:k]) + tree(leaves[k:]))


def path(leaves, i):
    if len(leaves) == 1:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return path(leaves[:k], i) + [tree(leaves[k:])] if i < k else path(leaves[k:], i - k) + [tree(leaves[:k])]


class Log(unittest.TestCase):
    def test_inclusion(self):
        for size in range(1, 20):
            leaves = [bytes([i]) for i in range(size)]
            c = v.SimpleNamespace(size=size, root=tree(leaves))
            for i in range(size):
                proof = b"".join(path(leaves, i))
                v.included(c, leaves[i], i, proof, "leaf")
                for j, bad in [(i + 1, proof), (-1, proof), (i, proof + bytes(32)), (i, proof[:-32] or b"x"), (i, proof + b"x")]:
                    with self.assertRaises(v.Broken):
                        v.included(c, leaves[i], j, bad, "leaf")
                with self.assertRaises(v.Broken):
                    v.included(c, b"other", i, proof, "leaf")


def bit(label, i):
    return label[i // 8] >> 7 - i % 8 & 1


def trie(entries):
    """The root of the map, made plainly, and for each label the way to it: [(bit, sibling)]."""
    if not entries:
        return bytes(32), {}
    if len(entries) == 1:
        (label, value), = entries.items()
        return v.M(b"\0" + label + value), {label: []}
    b = next(i for i in range(256) if len({bit(l, i) for l in entries}) == 2)
    left, ways0 = trie({l: x for l, x in entries.items() if not bit(l, b)})
    right, ways1 = trie({l: x for l, x in entries.items() if bit(l, b)})
    ways = {l: [(b, right)] + w for l, w in ways0.items()} | {l: [(b, left)] + w for l, w in ways1.items()}
    return v.M(b"\1" + bytes([b]) + left + right), ways


def map_proof(kind, leaf, way):
    return v.cbor([kind, leaf, bytes(b for b, _ in way), b"".join(s for _, s in way)])


class Map(unittest.TestCase):
    def test_present_and_absent(self):
        entries = {v.sha256(bytes([i])): v.sha256(b"value" + bytes([i])) for i in range(40)}
        root, ways = trie(entries)
        for label, value in entries.items():
            self.assertEqual(v.map_look(root, label, map_proof(1, value, ways[label])), value)
            with self.assertRaises(v.Broken):
                v.map_look(root, label, map_proof(0, label + value, ways[label]))
        for i in range(40):
            label = v.sha256(b"absent" + bytes([i]))
            shown = 0
            for end, way in ways.items():
                proof = map_proof(0, end + entries[end], way)
                if all(bit(end, b) == bit(label, b) for b, _ in way):
                    self.assertIsNone(v.map_look(root, label, proof))
                    shown += 1
                else:
                    with self.assertRaises(v.Broken):
                        v.map_look(root, label, proof)
            self.assertEqual(shown, 1)
        self.assertIsNone(v.map_look(bytes(32), label, map_proof(0, b"", [])))
        with self.assertRaises(v.Broken):
            v.map_look(root, label, map_proof(0, b"", []))


class Policy(unittest.TestCase):
    def vkey(self, name, kind):
        key = bytes([kind]) + hashlib.sha256(name.encode()).digest()
        return f"{name}+{v.sha256(name.encode() + bytes([10]) + key)[:4].hex()}+{v.base64.b64encode(key).decode()}"

    def test_quorum(self):
        a, b, c = (self.vkey(n, 4) for n in "abc")
        p = v.read_policy(f"# us\nlog {self.vkey('l', 1)}\n\n witness  a {a}\twitness.example\nwitness b {b}\nwitness c {c}\ngroup g 1 a b\ngroup all all g c\nquorum all\n")
        ids = {w.name: (w.name, w.id) for w in p.witnesses}
        for who, ok in [("", False), ("a", False), ("ab", False), ("c", False), ("ac", True), ("bc", True), ("abc", True)]:
            self.assertEqual(v.enough(p.quorum, {ids[w] for w in who}), ok, who)
        self.assertTrue(p.lines.startswith(f"log {self.vkey('l', 1)}\nwitness a {a} witness.example\n"))

    def test_refused(self):
        log, w = f"log {self.vkey('l', 1)}\n", f"witness w {self.vkey('w', 4)}\n"
        for bad in ["", log, log + log + "quorum none\n", "quorum none\n", log + "quorum w\n", log + w + w + "quorum w\n", log + w + "group g 2 w\nquorum g\n",
                    log + w + "group g 1 w w\nquorum g\n", log + w + "group g 01 w\nquorum g\n", log + w + "quorum w # us\n", log + "witness none " + w[10:] + "quorum none\n",
                    log + w + "quorum w\nquorum w\n", log + "nonsense\nquorum none\n", log.replace("log ", "log ä") + "quorum none\n",
                    f"log {self.vkey('l', 4)}\nquorum none\n"]:
            with self.assertRaises(v.Broken, msg=bad):
                v.read_policy(bad)


if __name__ == "__main__":
    unittest.main()

"""A second decoder of everything in docs/wire.md, written from that document and without any code of the project.

Only the primitives of `cryptography` and the standard library (and `zstandard` for sections that say so). It reads the
cases in security/vectors and answers with what they hold, or refuses with the class of failure. No speed, no state.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from collections.abc import Callable
from typing import Any

import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ("DECODERS", "Refused")

P = 2**255 - 19
SMALL_Y = {0, 1, P - 1}
D = -121665 * pow(121666, P - 2, P) % P
KINDS = {1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}
SUITES: dict[int, Any] = {1: AESGCM, 2: ChaCha20Poly1305}
HPKE = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)
TOKEN = re.compile(r"([a-z0-9-]|_[0-9a-f]{2})+")


class Refused(Exception):
    """With its class of failure."""


def need(holds: bool, reason: str) -> None:
    if not holds:
        raise Refused(reason)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def small_order(y: int) -> bool:
    """Whether eight times the point with this y is the neutral one: in the Edwards form, by doubling y alone."""
    for _ in range(3):
        y2 = y * y % P
        x2 = (y2 - 1) * pow(D * y2 + 1, P - 2, P) % P
        y = (y2 + x2) * pow(1 - D * x2 * y2, P - 2, P) % P
    return y == 1


def check_ed(pub: bytes) -> None:
    y = int.from_bytes(pub, "little") & (2**255 - 1)
    need(len(pub) == 32 and y < P and not small_order(y), "key")


def signed(pub: bytes, domain: bytes, data: bytes, signature: bytes) -> None:
    check_ed(pub)
    try:
        Ed25519PublicKey.from_public_bytes(pub).verify(signature, domain + b"\0" + data)
    except InvalidSignature:
        raise Refused("sig") from None


def hkdf(key: bytes, info: bytes, salt: bytes | None = None) -> bytes:
    return HKDF(SHA256(), 32, salt, info).derive(key)


def path_bytes(tokens: list[str]) -> bytes:
    return b"".join(bytes([len(token)]) + token.encode() for token in tokens)


def commit(key_class: str, tokens: list[str], vector: tuple[int, ...], key: bytes) -> bytes:
    packed = struct.pack(f">{len(vector)}H", *vector)
    return sha(b"MF1 commit" + key_class.encode() + path_bytes(tokens) + packed + key)


class Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        need(self.at + size <= len(self.data), "short")
        self.at += size
        return self.data[self.at - size : self.at]

    def numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def text(self) -> str:
        try:
            return self.take(self.take(1)[0]).decode()
        except UnicodeDecodeError:
            raise Refused("format") from None

    def end(self) -> None:
        need(self.at == len(self.data), "format")


def header(raw: bytes) -> dict[str, Any]:
    need(len(raw) >= 96, "short")
    need(len(raw) <= 2**20, "size")
    need(raw[:2] == b"MF", "magic")
    need(raw[2] == 1, "version")
    need(raw[3] < 32, "flags")
    need(raw[4] in SUITES, "suite")
    need(raw[5] in KINDS, "kind")
    need(raw[94:96] == b"\0\0", "ext")
    names = ("n_events", "address", "sender", "incarnation", "seq", "generation", "policy", "counter", "hlc")
    found = dict(zip(names, struct.unpack_from(">H8s8s8sQIIQQ", raw, 6), strict=True))
    found["meta_len"], found["payload_len"] = struct.unpack_from(">II", raw, 64)
    return found | {
        "flags": raw[3],
        "suite": raw[4],
        "kind": raw[5],
        "vector": struct.unpack_from(">7H", raw, 80),
    }


def route_key(case: dict[str, Any], key_class: str, tokens: list[str], vector: tuple[int, ...]) -> bytes:
    """Down the tree from a held node to the route."""
    for held in case["keys"]:
        depth = len(held["path"])
        if (held["class"], held["path"]) != (key_class, tokens[:depth]):
            continue
        if tuple(held["epochs"]) != vector[: depth + 1]:
            continue
        key = bytes.fromhex(held["key"])
        for below in range(depth, 6):
            info = b"MF1 key" + key_class.encode() + path_bytes(tokens[: below + 1])
            key = hkdf(key, info + struct.pack(">H", vector[below + 1]))
        return key
    raise Refused("epoch")


def inflate(data: bytes) -> bytes:
    try:
        known = zstandard.get_frame_parameters(data)
        need(known.content_size <= 4 * 2**20 and not known.dict_id and known.window_size <= 2**23, "inflate")
        out = zstandard.ZstdDecompressor(max_window_size=2**23).decompressobj()
        plain = out.decompress(data)
    except zstandard.ZstdError:
        raise Refused("inflate") from None
    need(out.eof and not out.unused_data and len(plain) == known.content_size, "inflate")
    return plain


def frame(case: dict[str, Any]) -> dict[str, Any]:
    """An event frame in one of its two forms, or a chunk of one."""
    raw, form, address = bytes.fromhex(case["input"]), case["form"], case["address"]
    sender, digest, now = bytes.fromhex(case["sender_pub"]), sha(address.encode()), case["now_ms"]
    head = header(raw)
    need(head["kind"] in (1, 7), "kind")
    need(bool(head["flags"] & 8), "unsigned")
    need(not (head["flags"] & 16 and head["kind"] == 1) and bool(head["flags"] & 1), "flags")
    need(head["address"] == digest[:8], "route")
    need(head["sender"] == sha(sender)[:8], "member")
    sent = head["hlc"] >> 16
    need(0 < sent <= now + 60_000, "clock")
    need(now - sent <= 30_000, "age")
    need(head["seq"] > 0 and head["n_events"] > 0, "replay")
    need(head["seq"] + head["n_events"] < 2**64, "limit")
    need(head["suite"] == case["suite"], "suite")
    need(list(head["vector"]) in case["epochs"], "epoch")
    need(head["kind"] == 1 or form == "d", "kind")
    tail = head["payload_len"] if form == "d" else 32 * bool(head["payload_len"])
    size = 96 + head["meta_len"] + tail + 64
    need(len(raw) >= size, "short")
    need(len(raw) == size, "ext")
    middle = 96 + head["meta_len"]
    meta, rest = raw[96:middle], raw[middle : middle + tail]
    told = rest if form == "m" else (sha(rest) if rest else b"")
    signed(sender, b"MF1 sig", digest + raw[:96] + meta + told, raw[-64:])
    tokens, out = address.split("."), {}
    for place, (key_class, data) in enumerate((("m", meta), ("d", rest))):
        if key_class == "d" and (form == "m" or not rest):
            continue
        key = route_key(case, key_class, tokens, head["vector"])
        info = (
            b"MF1 data"
            + key_class.encode()
            + sender
            + head["incarnation"]
            + struct.pack(">IB", head["generation"], 1)
        )
        cipher = SUITES[head["suite"]](hkdf(key, info, digest))
        bound = b"MF1" + key_class.encode() + raw[:96] + digest + sender
        bound += commit(key_class, tokens, head["vector"], key)
        try:
            plain = cipher.decrypt(struct.pack(">IQ", 0, head["counter"] + place), data, bound)
        except InvalidTag:
            raise Refused("tag") from None
        out[key_class] = (inflate(plain) if head["flags"] & 2 << place else plain).hex()
    if head["kind"] == 7:
        return chunk(head, bytes.fromhex(out["m"]), bytes.fromhex(out.get("d", "")))
    return {"meta": out["m"], "payload": out.get("d"), "first_seq": head["seq"], "n_events": head["n_events"]}


def chunk(head: dict[str, Any], place: bytes, part: bytes) -> dict[str, Any]:
    """A chunk: the whole where it is the only one."""
    need(len(place) == 40, "chunk")
    index, count = struct.unpack(">II", place[:8])
    last = index == count - 1
    need(index < count <= 128 and last == bool(head["flags"] & 16), "chunk")
    need(0 < len(part) <= 524_288 and (last or len(part) == 524_288), "chunk")
    if count > 1:
        return {"partial": True}
    need(sha(part) == place[8:] and len(part) >= 4, "chunk")
    size = 4 + int.from_bytes(part[:4], "big")
    need(size <= len(part), "chunk")
    return {
        "meta": part[4:size].hex(),
        "payload": part[size:].hex(),
        "first_seq": head["seq"],
        "n_events": head["n_events"],
    }


def control(case: dict[str, Any]) -> dict[str, Any]:
    """A box to one node, or a frame under the members' key."""
    raw, subject = bytes.fromhex(case["input"]), sha(case["subject"].encode())
    sender, head = bytes.fromhex(case["sender_pub"]), header(raw)
    need(head["flags"] == 9, "flags")
    need(len(raw) == 96 + head["meta_len"] + 64, "short")
    boxed = "wrap_private" in case
    if boxed:
        need(head["address"] == bytes.fromhex(case["recipient_tag"]), "address")
    need(head["sender"] == sha(sender)[:8], "member")
    need(not any(head["vector"][0 if boxed else 1 :]), "epoch")
    info = b"MF1 box" + raw[:96] + subject
    signed(sender, b"MF1 sig", info + raw[96:-64], raw[-64:])
    if boxed:
        body = unwrap(case, raw[96:-64], info + bytes.fromhex(case["cluster"]), "unwrap")
    else:
        sub = b"MF1 datah" + sender + head["incarnation"] + struct.pack(">IB", 0, head["kind"])
        key = hkdf(bytes.fromhex(case["members"][str(head["vector"][0])]), sub, bytes(32))
        try:
            body = SUITES[head["suite"]](key).decrypt(
                struct.pack(">IQ", 0, head["counter"]), raw[96:-64], info
            )
        except InvalidTag:
            raise Refused("tag") from None
    return {"kind": head["kind"], "body": body.hex()}


def unwrap(case: dict[str, Any], box: bytes, info: bytes, reason: str) -> bytes:
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(case["wrap_private"]))
    try:
        return HPKE.decrypt(box, private, info=info)
    except (InvalidTag, ValueError):
        raise Refused(reason) from None


def pattern_fits(above: str, below: str) -> bool:
    a, b = above.split("."), below.split(".")
    return a == b if a[-1] != ">" else len(b) >= len(a) and b[: len(a) - 1] == a[:-1]


def tighter(above: tuple[int, tuple[int, ...]], below: tuple[int, tuple[int, ...]]) -> bool:
    (kind, was), (other, now) = above, below
    inside = was[0] <= now[0] and now[-1] <= was[-1] if kind == 3 else now[0] <= was[0]
    return kind == other and inside


def capability(cursor: Cursor) -> dict[str, Any]:
    actions = cursor.numbers(">H")[0]
    need(0 < actions < 1024, "format")
    pattern = cursor.text()
    need(0 < len(pattern) <= 200, "size")
    tokens = pattern.split(".")
    names = tokens[:-1] if tokens[-1] == ">" else tokens
    need(all(TOKEN.fullmatch(one) for one in names), "pattern")
    need(len(names) == 6 if names == tokens else len(names) < 6, "pattern")
    data, at = cursor.take(cursor.take(1)[0]), 0
    caveats: list[Any] = []
    forms = {1: ">I", 2: ">Q", 3: ">II", 4: ">Q"}
    while at < len(data):
        need(data[at] in forms and at + 1 < len(data), "ext")
        form, value = forms[data[at]], data[at + 2 : at + 2 + data[at + 1]]
        need(len(value) == data[at + 1] == struct.calcsize(form), "ext")
        need(not caveats or data[at] > caveats[-1][0], "ext")
        caveats.append((data[at], struct.unpack(form, value)))
        need(data[at] != 3 or caveats[-1][1][0] <= caveats[-1][1][1], "ext")
        at += 2 + len(value)
    return {"actions": actions, "pattern": pattern, "caveats": caveats}


def grant(case: dict[str, Any]) -> dict[str, Any]:
    """A chain of links, root first."""
    raw, now = bytes.fromhex(case["input"]), case["now_ms"]
    need(len(raw) <= 4096, "size")
    cursor = Cursor(raw)
    links: list[Any] = []
    while cursor.at < len(raw):
        need(len(links) < 4, "depth")
        begin = cursor.at
        need(cursor.take(4) == b"MG\1\0", "format")
        size, cluster, issuer, subject, parent, _, before, after, _, depth, count = cursor.numbers(
            ">H16s32s32s32s16sQQIBB"
        )
        need(0 < count <= 32, "size")
        first = cursor.at
        caps = [capability(cursor) for _ in range(count)]
        need(cursor.at - first == size, "ext")
        cursor.take(64)
        check_ed(subject)
        links.append((cluster, issuer, subject, parent, before, after, depth, caps, raw[begin : cursor.at]))
    need(bool(links), "short")
    need(links[0][1].hex() in case["roots"], "root")
    above: Any = None
    for link in links:
        cluster, issuer, _, parent, before, after, depth, caps, whole = link
        need(cluster == bytes.fromhex(case["cluster"]), "cluster")
        need(before <= after < 2**63 and before - 5000 <= now <= after + 5000, "time")
        if above is None:
            need(parent == bytes(32), "depth")
        else:
            need(parent == sha(above[8]) and issuer == above[2] and depth < above[6], "depth")
            need(any(one["actions"] & 256 for one in above[7]), "delegate")
            need(above[4] <= before and after <= above[5], "time")
            for cap in caps:
                need(any(covers(one, cap) for one in above[7]), "attenuation")
        signed(issuer, b"MG1 grant", whole[:-64], whole[-64:])
        above = link
    caps = [{"actions": one["actions"], "pattern": one["pattern"]} for one in above[7]]
    return {"subject": above[2].hex(), "links": len(links), "capabilities": caps}


def covers(parent: dict[str, Any], child: dict[str, Any]) -> bool:
    return (
        not child["actions"] & ~parent["actions"]
        and pattern_fits(parent["pattern"], child["pattern"])
        and all(any(tighter(above, below) for below in child["caveats"]) for above in parent["caveats"])
    )


def identity(case: dict[str, Any]) -> dict[str, Any]:
    """ID1."""
    raw = bytes.fromhex(case["input"])
    cursor = Cursor(raw)
    magic, version, cluster, _, node, wrap, login, before, after = cursor.numbers(">2sB16s16s32s32s32sQQ")
    need(magic == b"ID", "magic")
    need(version == 1, "version")
    name, count = cursor.text(), cursor.take(1)[0]
    need(count <= 8 and bool(name), "format")
    roles = [cursor.text() for _ in range(count)]
    issuer, signature = cursor.take(32), cursor.take(64)
    cursor.end()
    check_ed(node)
    u = int.from_bytes(wrap, "little")
    need(u < P and X25519_ok(wrap), "key")
    check_ed(login)
    need(cluster == bytes.fromhex(case["cluster"]), "cluster")
    need(issuer.hex() in case["issuers"], "root")
    need(before - 5000 <= case["now_ms"] <= after + 5000, "time")
    signed(issuer, b"ID1 identity", raw[:-64], signature)
    return {"node_pub": node.hex(), "name": name, "roles": roles}


def X25519_ok(pub: bytes) -> bool:
    """Whether a shared secret with it is not forced: `cryptography` refuses an all-zero one."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    try:
        X25519PrivateKey.from_private_bytes(b"\x11" * 32).exchange(X25519PublicKey.from_public_bytes(pub))
    except ValueError:
        return False
    return True


def key_packet(case: dict[str, Any]) -> dict[str, Any]:
    """A packet of keys, for the holder of `wrap_private`."""
    raw = bytes.fromhex(case["input"])
    cursor = Cursor(raw)
    voter, grantee, _, size = cursor.numbers(">8s8sQI")
    box, signature = cursor.take(size), cursor.take(64)
    cursor.end()
    need(voter.hex() in case["voters"], "member")
    signed(bytes.fromhex(case["voters"][voter.hex()]), b"MF1 keys", raw[:-64], signature)
    need(grantee == bytes.fromhex(case["recipient_tag"]), "unwrap")
    body = Cursor(unwrap(case, box, b"MF1 keys" + bytes.fromhex(case["cluster"]) + raw[:24], "unwrap"))
    count = body.take(1)[0]
    need(0 < count <= 4, "format")
    members = [(body.numbers(">HQ"), body.take(32))[0][0] for _ in range(count)]
    found = []
    for _ in range(body.numbers(">H")[0]):
        key_class, size = body.take(1).decode("ascii", "replace"), body.take(1)[0]
        need(key_class in ("m", "d", "x") and size <= 6, "format")
        tokens = [body.text() for _ in range(size)]
        vector = body.numbers(f">{size + 1}H")
        kc, key = body.take(32), body.take(32)
        need(commit(key_class, tokens, vector, key) == kc, "commit")
        found.append([key_class, ".".join(tokens), list(vector), key.hex()])
    body.end()
    return {"members": members, "keys": found}


def policy(case: dict[str, Any]) -> dict[str, Any]:
    """PR1."""
    raw = bytes.fromhex(case["input"])
    cursor = Cursor(raw)
    magic, version, suite, cluster, voters, index, epoch, digest = cursor.numbers(">2sBB16s32sQI32s")
    need(magic == b"PR", "magic")
    need(version == 1, "version")
    need(suite in SUITES, "suite")
    body = cursor.take(cursor.numbers(">I")[0])
    count = cursor.take(1)[0]
    need(count <= 16, "limit")
    signatures = [(cursor.take(8), cursor.take(64)) for _ in range(count)]
    cursor.end()
    need(sha(body) == digest, "format")
    inside = Cursor(body)
    revoked = [inside.take(32).hex() for _ in range(inside.numbers(">I")[0])]
    raises = [raised(inside) for _ in range(inside.numbers(">H")[0])]
    decided = [inside.take(16).hex() for _ in range(inside.numbers(">H")[0])]
    inside.end()
    need(revoked == sorted(set(revoked)) and decided == sorted(set(decided)), "format")
    need(cluster == bytes.fromhex(case["cluster"]), "cluster")
    pubs = {tag: bytes.fromhex(pub) for tag, pub in case["voters"].items()}
    need(voters == sha(b"MF1 voters\0" + b"".join(sorted(pubs.values()))), "member")
    for tag, signature in signatures:
        need(tag.hex() in pubs, "member")
        signed(pubs[tag.hex()], b"MF1 policy", raw[:96], signature)
    need(2 * len({tag for tag, _ in signatures}) > len(pubs), "sig")
    return {"policy_epoch": epoch, "log_index": index, "revoked": revoked, "raises": raises}


def raised(cursor: Cursor) -> list[Any]:
    flags, size = cursor.take(2)
    need(flags <= 1 and size <= 6 and (not flags or size == 6), "format")
    path = ".".join(cursor.text() for _ in range(size))
    vector = cursor.numbers(f">{size + 1}H")
    at, begun = cursor.numbers(">QI")
    cursor.take(96)
    need(all(one == 65535 for one in vector[:-1]) if flags else max(vector) < 65535, "epoch")
    return [path, list(vector), at, begun]


def start(case: dict[str, Any]) -> dict[str, Any]:
    """SR1."""
    raw = bytes.fromhex(case["input"])
    cursor = Cursor(raw)
    magic, version, cluster, node, incarnation, before, hlc = cursor.numbers(">2sB16s32s8s8sQ")
    signature = cursor.take(64)
    cursor.end()
    need(magic == b"SR", "magic")
    need(version == 1, "version")
    need(cluster == bytes.fromhex(case["cluster"]), "cluster")
    need(incarnation not in (before, bytes(8)), "incarnation")
    signed(node, b"MF1 start", raw[:-64], signature)
    return {"node_pub": node.hex(), "incarnation": incarnation.hex(), "predecessor": before.hex(), "hlc": hlc}


def wrap(case: dict[str, Any]) -> dict[str, Any]:
    """WR1."""
    raw = bytes.fromhex(case["input"])
    cursor = Cursor(raw)
    magic, version, cluster, node, pub, counter = cursor.numbers(">2sB16s32s32sI")
    signature = cursor.take(64)
    cursor.end()
    need(magic == b"WR", "magic")
    need(version == 1, "version")
    need(cluster == bytes.fromhex(case["cluster"]), "cluster")
    need(node == bytes.fromhex(case["node_pub"]), "member")
    need(int.from_bytes(pub, "little") < P and X25519_ok(pub), "key")
    signed(node, b"ID1 wrap", raw[:-64], signature)
    return {"wrap_pub": pub.hex(), "counter": counter}


def enrolment(case: dict[str, Any]) -> dict[str, Any]:
    """A join request, at the issuer that knows the token."""
    raw, secret = bytes.fromhex(case["input"]), bytes.fromhex(case["secret"])
    cluster = bytes.fromhex(case["cluster"])
    need(len(raw) > 16, "short")
    need(raw[:16] == sha(b"MF1 token id\0" + secret)[:16], "member")
    inner = unwrap(case, raw[16:], b"MF1 enrol request" + cluster + raw[:16], "unwrap")
    need(len(inner) == 176 + 32, "short")
    body, mac = inner[:176], inner[176:]
    said = b"".join(bytes([len(one.encode())]) + one.encode() for one in case["names"])
    head = (
        b"MF1 enrol request" + cluster + bytes.fromhex(case["authority"]) + bytes.fromhex(case["enrol_pub"])
    )
    told = head + raw[:16] + struct.pack(">Q", case["expires_ms"]) + said + body
    key = hkdf(secret, b"MF1 enrol request", cluster)
    need(hmac.compare_digest(mac, hmac.digest(key, len(told).to_bytes(4, "big") + told, "sha256")), "tag")
    need(int.from_bytes(body[32:64], "little") < P and X25519_ok(body[32:64]), "key")
    check_ed(body[64:96])
    signed(body[:32], b"MF1 enrol request", cluster + raw[:16] + body[:112], body[112:])
    return {"node_pub": body[:32].hex(), "wrap_pub": body[32:64].hex(), "login_pub": body[64:96].hex()}


DECODERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "frames": frame,
    "control": control,
    "grants": grant,
    "identities": identity,
    "key-packets": key_packet,
    "policy": policy,
    "starts": start,
    "wraps": wrap,
    "enrolment": enrolment,
}

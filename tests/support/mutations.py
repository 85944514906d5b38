"""Damage to files, as disks, transfers, editors, other programs and attackers do it; the same for the same seed.

Each kind of file has its own damage besides that to any bytes: what is only a wrong byte in a checksummed file would be
refused by the checksum, so the damage goes below it (chunks of PNG, members of archives, packed MRC files).
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

Damage = Callable[[bytes, Random], bytes]

NUMBERS = (
    *("nan", "inf", "-inf", "1e308", "-1e308", "1e-308", "0", "-0", "-1", "0.5", "1e20", "2147483648", "-9999"),
    *("9223372036854775808", "18446744073709551616", "9" * 400, "0x10", "1_000", "1e999", "", "٣"),
)
TEXTS = (
    *('""', "''", '"', "'", '"a ', "[]", "{}", "true", "null", "none", "1979-05-27", "#", "$", ";", "_rln", "data_"),
    *("loop_", "data_x", "../../x", "/etc/passwd", "a\\..\\b", "*/*", "**", "~", "@x", "\x00", "\r", "\x1a", "\u2028"),
    *("\ufeff", "é", "\U0001f600", "a" * 300, "a/" * 200, "[" * 2000, "{" * 2000, '"a ' * 2000, "%s%n", "=1+1", "a,b"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 0.5, 2**31, 2**63, 2**64, 10**400, 1e308, -1e308, 1e-308, "", "x", "nan", "1.5"),
    *("\x00", "\ud800", "../x", "/x", "a\\..\\b", "a" * 300, [], {}, [[]], [None], [1, 2, 3], {"a": 1}, [0, 0], [-1]),
    *([1e308, 1e308], [2**31, 2**31], float("nan"), float("inf"), -float("inf")),
)
WORDS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 4096, 2**15, 2**16 - 1, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1)
FLOATS = (float("nan"), float("inf"), -float("inf"), 1e38, -1e38, 1e-38, 0.0, -1.0)


def damaged(content: bytes, kind: str, random: Random) -> bytes:
    """`content` with one to three kinds of damage that fit a file of `kind`, a key of `KINDS`."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        content = random.choice(KINDS[kind])(content, random)
    return content


# ---------------------------------------------------------------------------------------------------------- any bytes


def _place(content: bytes, random: Random) -> int:
    """Somewhere, half of the time in the first 256 bytes: headers hold the dangerous numbers."""
    last = max(0, len(content) - 1)
    return random.randint(0, min(255, last)) if random.random() < 0.5 else random.randint(0, last)


def flip_bits(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 6) if content else 0):
        changed[_place(content, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def set_bytes(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for _ in range(random.randint(1, 4) if content else 0):
        changed[_place(content, random)] = random.choice((0, 1, 9, 10, 13, 32, 127, 128, 255, random.randrange(256)))
    return bytes(changed)


def truncate(content: bytes, random: Random) -> bytes:
    return content[: random.choice((0, 1, _place(content, random), random.randint(0, len(content))))]


def zero_block(content: bytes, random: Random) -> bytes:
    start, length = _place(content, random), random.choice((1, 4, 64, 512, 4096, len(content)))
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def remove_block(content: bytes, random: Random) -> bytes:
    start = _place(content, random)
    return content[:start] + content[start + random.choice((1, 2, 4, 64, 512)) :]


def repeat_block(content: bytes, random: Random) -> bytes:
    start = _place(content, random)
    block = content[start : start + random.choice((1, 4, 64, 512))]
    return content[:start] + block * random.choice((2, 3, 50)) + content[start:]


def insert_noise(content: bytes, random: Random) -> bytes:
    start = _place(content, random)
    return content[:start] + random.randbytes(random.choice((1, 4, 64))) + content[start:]


def swap_blocks(content: bytes, random: Random) -> bytes:
    first, second = sorted((_place(content, random), random.randint(0, len(content))))
    middle = (first + second) // 2
    return content[:first] + content[middle:second] + content[first:middle] + content[second:]


def append_noise(content: bytes, random: Random) -> bytes:
    return content + random.choice((bytes(512), random.randbytes(64), content[:512], b"\n", b"\0"))


ANY: tuple[Damage, ...] = (
    *(flip_bits, set_bytes, truncate, zero_block, remove_block, repeat_block, insert_noise, swap_blocks, append_noise),
)

# --------------------------------------------------------------------------------------------------------------- text

_NUMBER = re.compile(rb"(?<![A-Za-z_])[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?")
_TOKEN = re.compile(rb"[^\s,=:\[\]{}]+")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogatepass")


def _replaced(content: bytes, pattern: re.Pattern[bytes], new: bytes, random: Random) -> bytes:
    found = list(pattern.finditer(content))
    if not found:
        return content + new
    one = random.choice(found)
    return content[: one.start()] + new + content[one.end() :]


def extreme_number(content: bytes, random: Random) -> bytes:
    return _replaced(content, _NUMBER, _encoded(random.choice(NUMBERS)), random)


def other_token(content: bytes, random: Random) -> bytes:
    return _replaced(content, _TOKEN, _encoded(random.choice(TEXTS + NUMBERS)), random)


def insert_text(content: bytes, random: Random) -> bytes:
    place = random.randint(0, len(content))
    return content[:place] + _encoded(random.choice(TEXTS)) + content[place:]


def _with_lines(change: Callable[[list[bytes], int, Random], None]) -> Damage:
    def damage(content: bytes, random: Random) -> bytes:
        lines = content.split(b"\n")
        change(lines, random.randrange(len(lines)), random)
        return b"\n".join(lines)

    return damage


def _remove_line(lines: list[bytes], at: int, random: Random) -> None:
    del lines[at]


def _repeat_line(lines: list[bytes], at: int, random: Random) -> None:
    lines[at:at] = [lines[at]] * random.choice((1, 2, 300))


def _move_line(lines: list[bytes], at: int, random: Random) -> None:
    lines.insert(random.randrange(len(lines)), lines.pop(at))


def _empty_line(lines: list[bytes], at: int, random: Random) -> None:
    lines.insert(at, random.choice((b"", b" ", b"\t", b"#", b"_rlnX", b"data_", b"loop_", b"[x]", b"x = 1", b",,,")))


def _join_lines(lines: list[bytes], at: int, random: Random) -> None:
    lines[at : at + 2] = [b" ".join(lines[at : at + 2])]


def _break_line(lines: list[bytes], at: int, random: Random) -> None:
    words = lines[at].split(b" ")
    middle = random.randint(0, len(words))
    lines[at : at + 1] = [b" ".join(words[:middle]), b" ".join(words[middle:])]


def _drop_word(lines: list[bytes], at: int, random: Random) -> None:
    words = re.split(rb"([\s,]+)", lines[at])
    del words[random.randrange(len(words))]
    lines[at] = b"".join(words)


def _repeat_word(lines: list[bytes], at: int, random: Random) -> None:
    words = re.split(rb"([\s,]+)", lines[at])
    lines[at] += random.choice((b" ", b",", b"\t")) + random.choice(words) * random.choice((1, 1, 500))


def other_line_ends(content: bytes, random: Random) -> bytes:
    return content.replace(b"\n", random.choice((b"\r", b"\r\n", b"\n\r", b"\n\n", b"\x0b", b"\xe2\x80\xa8", b" ")))


def other_encoding(content: bytes, random: Random) -> bytes:
    text = content.decode("utf-8", errors="replace")
    return random.choice(
        (
            b"\xef\xbb\xbf" + content,
            text.encode("utf-16"),
            text.encode("utf-16-be"),
            text.encode("utf-32"),
            content + b"\xe9\xff",
            content.replace(b"m", b"\xe9", 3),
            content.replace(b"m", b"\xed\xa0\x80", 3),  # a lone surrogate
            content.replace(b" ", b"\xc2\xa0", 3),
            content.replace(b"1", "١".encode(), 3),
        )
    )


TEXT: tuple[Damage, ...] = (
    *(extreme_number, extreme_number, other_token, other_token, insert_text, other_line_ends, other_encoding),
    *map(_with_lines, (_remove_line, _repeat_line, _move_line, _empty_line, _join_lines, _break_line, _drop_word)),
    *(_with_lines(_repeat_word), set_bytes, truncate, zero_block, remove_block, repeat_block),
)

# --------------------------------------------------------------------------------------------------------------- JSON


def _places(root: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) in `root`, which earlier damage may have made deeper than Python can recurse."""
    found, todo = [], [root]
    while todo:
        node = todo.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        found += [(node, key) for key in keys]
        todo += [node[key] for key in keys]
    return found


DEEP = 2000


def json_damage(content: bytes, random: Random) -> bytes:
    """One value of another type or size, a missing, renamed or extra entry; other bytes where it is no JSON."""
    try:
        root = json.loads(content)
    except (ValueError, RecursionError):
        return random.choice(TEXT)(content, random)
    places = _places(root)
    value = random.choice(VALUES)
    if not places or random.random() < 0.03:
        return _dumped(value)
    holder, key = random.choice(places)
    action = random.randrange(8)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[random.choice((key + "x", "", "format", "x" * 300, "\ud800"))] = holder.pop(key)
    elif action == 2 and isinstance(holder, list):
        holder.extend([holder[key]] * random.choice((1, 3, 300)))
    elif action == 3:
        holder[key] = [holder[key]]
    else:
        holder[key] = value
    return _dumped(root)


def _dumped(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except RecursionError:  # a deep value put below deep ones: deeper than can be written in this process
        return b"[" * DEEP + b"]" * DEEP


def deep_json(content: bytes, random: Random) -> bytes:
    """A value that nests deeper than parsers go."""
    depth = random.choice((100, 990, 5000, 100_000))
    opened, closed = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
    nested = opened * depth + b"1" + closed * random.choice((0, depth))
    return random.choice((nested, _replaced(content, _NUMBER, nested, random)))


JSON: tuple[Damage, ...] = (*(json_damage,) * 12, deep_json, extreme_number, *TEXT)
TOML: tuple[Damage, ...] = (*(other_token,) * 4, deep_json, *TEXT)

# ------------------------------------------------------------------------------------------------------------- images


def _set_word(content: bytes, place: int, form: str, random: Random) -> bytes:
    """Write an extreme number of the `struct` form at a place."""
    order, code = form[0], form[-1]
    if code == "f":
        raw = struct.pack(form, random.choice(FLOATS))
    else:
        raw = struct.pack(f"{order}Q", random.choice(WORDS))
        size = struct.calcsize(form)
        raw = raw[:size] if order == "<" else raw[-size:]
    return content[:place] + raw[: max(0, len(content) - place)] + content[place + len(raw) :]


def mrc_field(content: bytes, random: Random) -> bytes:
    """An extreme number in one word of an MRC header: sizes, mode, cell, axes, statistics, length of the extension."""
    word = random.choice((0, 1, 2, 3, 3, 7, 8, 9, 10, 11, 12, 16, 17, 18, 19, 20, 21, 22, 23, 23, 26, 53, 54, 55))
    return _set_word(content, 4 * word, "<f" if word in (10, 11, 12, 19, 20, 21) else "<I", random)


def _packed(open_up: Callable[[bytes], bytes], pack: Callable[[bytes], bytes], inner: tuple[Damage, ...]) -> Damage:
    """Damage below a compression that has a checksum."""

    def damage(content: bytes, random: Random) -> bytes:
        try:
            return pack(random.choice(inner)(open_up(content), random))
        except Exception:  # damaged before
            return random.choice(ANY)(content, random)

    return damage


def tiff_field(content: bytes, random: Random) -> bytes:
    """An extreme type, count or value in an entry of the first directory of a classic TIFF file."""
    if content[:4] != b"II*\0" or len(content) < 8:
        return set_bytes(content, random)
    start = struct.unpack_from("<I", content, 4)[0]
    if start + 2 > len(content):
        return set_bytes(content, random)
    count = struct.unpack_from("<H", content, start)[0]
    entry = start + 2 + 12 * random.randrange(max(1, count))
    place, form = random.choice(((entry, "<H"), (entry + 2, "<H"), (entry + 4, "<I"), (entry + 8, "<I"), (start, "<H")))
    return _set_word(content, random.choice((place, place, place, 4)), form, random)


def png_chunk(content: bytes, random: Random) -> bytes:
    """Other bytes, sizes or order of the chunks of a PNG file, with checksums that fit."""
    chunks, place = [], 8
    while place + 12 <= len(content):
        length = struct.unpack_from(">I", content, place)[0]
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    if not chunks:
        return set_bytes(content, random)
    at = random.randrange(len(chunks)) if random.random() < 0.6 else 0
    name, data = chunks[at]
    action = random.randrange(6)
    if name == b"IHDR" and action < 4:
        where = random.choice((0, 4, 8, 9, 10, 11, 12))
        data = _set_word(data, where, ">I" if where < 8 else ">B", random)
    elif action == 4:
        chunks.insert(at, (random.choice((b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"zTXt", b"iCCP")), data))
    elif action == 5:
        del chunks[at]
    else:
        data = random.choice(ANY)(data, random)
    if at < len(chunks) and action != 5:
        chunks[at] = (name, data) if action != 4 else chunks[at]
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return content[:8] + b"".join(packed)


# ---------------------------------------------------------------------------------------------------- arrays, weights


def npy_header(content: bytes, random: Random) -> bytes:
    """Other text in the header of a NumPy file, its length kept right."""
    if content[:6] != b"\x93NUMPY" or len(content) < 10:
        return set_bytes(content, random)
    length = struct.unpack_from("<H", content, 8)[0]
    header, body = content[10 : 10 + length], content[10 + length :]
    swaps = (b"|O", b"<f8", b"<U9999999", b"|S0", b"<u8", b"|V0", b"True", b"((", b"exit()", b"(-1,)", b"(10**9,)")
    if random.random() < 0.6:
        header = _replaced(header, re.compile(rb"[<|>][a-zA-Z]\d*|\(\d+,\)|False|\d+"), random.choice(swaps), random)
    else:
        header = random.choice(TEXT)(header, random)
    return content[:8] + struct.pack("<H", min(len(header), 65535)) + header + body


def safetensors_header(content: bytes, random: Random) -> bytes:
    """Other values in the JSON header of a safetensors file, its length kept right."""
    if len(content) < 8:
        return set_bytes(content, random)
    length = struct.unpack_from("<Q", content)[0]
    if length > len(content) - 8:
        return set_bytes(content, random)
    if random.random() < 0.1:
        return _set_word(content, 0, "<Q", random)
    header = json_damage(content[8 : 8 + length], random)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def archive_member(content: bytes, random: Random) -> bytes:
    """Damage inside one member of a ZIP archive (PyTorch's checkpoints), packed again with checksums that fit."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
    except Exception:  # damaged before
        return random.choice(ANY)(content, random)
    if not members:
        return random.choice(ANY)(content, random)
    # the program that builds the objects, mostly; tensors are only numbers
    programs = [name for name in members if name.endswith(("data.pkl", "version", "byteorder", "labels.json"))]
    name = random.choice(programs) if programs and random.random() < 0.7 else random.choice(list(members))
    if random.random() < 0.1:
        del members[name]
    else:
        members[name] = random.choice(ANY)(members[name], random)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for one, data in members.items():
            archive.writestr(one, data)
    return packed.getvalue()


KINDS: dict[str, tuple[Damage, ...]] = {
    "bytes": ANY,
    "text": TEXT,
    "json": JSON,
    "toml": TOML,
    "mrc": (*(mrc_field,) * 8, *ANY),
    "mrc.gz": (*(_packed(gzip.decompress, gzip.compress, (mrc_field, *ANY)),) * 8, *ANY),
    "mrc.bz2": (*(_packed(bz2.decompress, bz2.compress, (mrc_field, *ANY)),) * 8, *ANY),
    "tiff": (*(tiff_field,) * 8, *ANY),
    "png": (*(png_chunk,) * 8, *ANY),
    "npy": (*(npy_header,) * 6, *ANY),
    "safetensors": (*(safetensors_header,) * 6, *ANY),
    "zip": (*(archive_member,) * 6, *ANY),
    "text.gz": (*(_packed(gzip.decompress, gzip.compress, TEXT),) * 6, *ANY),
}

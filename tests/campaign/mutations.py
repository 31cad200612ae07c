"""Random damage to bytes and to JSON, and odd texts."""

import copy
import json
import random
from typing import Any

ODD_PARTS = (
    *('', ' ', '\u00a0', '\u2028', '\x85', '\x0b', '\x1c', '\ufeff', 'é', 'e\u0301', '雪', '😀', 'İ', 'ß'),
    *('"', "'", '""', ',', ';', '\\', '#', '# a', '|', '{', '}', '{answer}', '[MASK]', '[CLS]', '<s>', '##a'),
    *('O', 'B-PER', '-', '_', '1', '1-2', '1.1', '-1', '007', '1e5', 'null', 'NaN', 'true', '-DOCSTART-'),
)
ODD_VALUES = (
    *(None, True, False, 0, -1, 7, 2**63, 10**400, 1.5, 1e308, -0.0, float('nan'), float('inf')),
    *('', ' ', 'text', '\ud800', '\x00', [], {}, [[]], [None], [1, 'a'], {'a': 1}, {'text': 'a'}, [[[[1]]]]),
)
_INSERTS = (
    *(
        b'\x00',
        b'\xff',
        b'\xc3',
        b'\xed\xa0\x80',
        b'\xef\xbb\xbf',
        b'\n',
        b'\r',
        b'\r\n',
        b'\n\n',
        b'\t',
        b'\t\t',
        b' ',
    ),
    *(
        b'"',
        b"'",
        b',',
        b';',
        b'{',
        b'}',
        b'[',
        b']',
        b':',
        b'#',
        b'# ',
        b'\\',
        b'null',
        b'NaN',
        b'1e999',
        b'-',
        b'0',
    ),
    *(b'[' * 3000, b'{"a":' * 3000, b'9' * 5000, b'\xe2\x80\xa8', b'\x1a', b'\x85'),
)


def odd_text(rng: random.Random, mark: str = '', forbidden: str = '') -> str:
    """Return a text of odd parts around a mark; characters of `forbidden` are left out."""
    parts = [rng.choice(ODD_PARTS) for _ in range(rng.choice((0, 1, 1, 2, 4)))]
    text = rng.choice(('', ' ')).join(
        [*parts, mark, *(rng.choice(ODD_PARTS) for _ in range(rng.choice((0, 0, 2))))]
    )
    if rng.random() < 0.01:
        text += ' long' * rng.choice((40, 15_000))
    return ''.join(c for c in text if c not in forbidden)


def damage(rng: random.Random, data: bytes) -> bytes:
    """Return the bytes with one to three changes: a flipped bit, a cut, a copied, missing or inserted part."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice((_flip, _flip, _cut, _remove, _repeat, _insert, _insert, _replace, _recode))(
            rng, data
        )
    return data


def _flip(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    i = rng.randrange(len(data))
    return data[:i] + bytes([data[i] ^ (1 << rng.randrange(8))]) + data[i + 1 :]


def _cut(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.choice((0, 1, len(data) - 1, rng.randrange(len(data) + 1)))]


def _part(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 1, 2, 10, 200)))


def _remove(rng: random.Random, data: bytes) -> bytes:
    start, stop = _part(rng, data)
    return data[:start] + data[stop:]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    start, stop = _part(rng, data)
    return data[:stop] + data[start:stop] + data[stop:]


def _insert(rng: random.Random, data: bytes) -> bytes:
    i = rng.choice((0, len(data), rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
    return data[:i] + rng.choice(_INSERTS) + data[i:]


def _replace(rng: random.Random, data: bytes) -> bytes:
    start, stop = _part(rng, data)
    return data[:start] + rng.choice(_INSERTS) + data[stop:]


def _recode(rng: random.Random, data: bytes) -> bytes:
    text = data.decode('utf-8', 'replace')
    encoding = rng.choice(('utf-16', 'utf-16-le', 'utf-32', 'latin-1', 'utf-8-sig', 'utf-7', 'cp500'))
    return text.encode(encoding, 'replace')


def damage_json(rng: random.Random, value: Any) -> str:
    """Return the text of a JSON value in which one to three parts have another type, are missing or are repeated."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = [*_places(value)]
        if not places or rng.random() < 0.03:
            return json.dumps(rng.choice(ODD_VALUES))
        parent, key = rng.choice(places)
        change = rng.random()
        if change < 0.2:
            del parent[key]
        elif change < 0.3 and isinstance(parent, dict):
            parent[rng.choice(('', 'a', ' ', f'{key} ', f'{key}'.upper(), '\ud800'))] = parent.pop(key)
        elif change < 0.4 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif change < 0.5:
            parent[key] = [parent[key]]
        elif change < 0.6:
            parent[key] = str(parent[key])
        else:
            parent[key] = copy.deepcopy(rng.choice(ODD_VALUES))
    return json.dumps(value)


def _places(value: Any) -> Any:
    """Yield each (container, key) of a value of JSON. Long lists, such as vocabularies, count as a few places."""
    items = list(
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in items[:: max(1, len(items) // 12)]:
        yield value, key
        yield from _places(child)

"""Damage to bytes, of the kinds that disks, networks, editors and people do."""


def damage(random, content):
    """Return damaged bytes, and the damage in words."""
    kind = random.choice(list(KINDS))
    return KINDS[kind](random, bytearray(content)), kind


def flip(random, content):
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        if content:
            content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    return bytes(content)


def truncate(random, content):
    return bytes(content[: random.randrange(len(content))])


def drop(random, content):
    start = random.randrange(len(content))
    return bytes(content[:start] + content[start + random.randrange(1, 40) :])


def repeat(random, content):
    start = random.randrange(len(content))
    end = start + random.randrange(1, 200)
    return bytes(content[:end] + content[start:])


def splice(random, content):
    start, other = random.randrange(len(content)), random.randrange(len(content))
    return bytes(content[:start] + content[other:])


def overwrite(random, content):
    start = random.randrange(len(content))
    new = random.choice(
        (b"\0" * 16, b"\xff" * 8, b"\x1b[31m", b"\xef\xbb\xbf", random.randbytes(12), b'"', b"\n")
    )
    content[start : start + len(new)] = new
    return bytes(content)


def insert(random, content):
    start = random.randrange(len(content))
    new = random.choice(
        (b"\0", b'"', b",", b"\r", b"\n\n", b"\xff", b"9" * 400, b"nan", b"1e999", b"x" * 200_000)
    )
    return bytes(content[:start] + new + content[start:])


def extend(random, content):
    return bytes(content) + random.randbytes(random.randrange(1, 60))


KINDS = {
    "flip": flip,
    "truncate": truncate,
    "drop": drop,
    "repeat": repeat,
    "splice": splice,
    "overwrite": overwrite,
    "insert": insert,
    "extend": extend,
}

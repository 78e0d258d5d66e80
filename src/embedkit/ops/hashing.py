"""Hash functions that give the same number in every process, on every device, in every year."""

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Int, Integer
from torch import Tensor

from embedkit._checks import check_integer

# The constants of splitmix64, written as the signed 64-bit numbers that int64 tensors hold.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_SIGN_OFF = 2**63 - 1


def _mix(word: Int[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """The finaliser of splitmix64; ``>>`` copies the sign, so a mask makes each shift logical."""
    word = (word ^ ((word >> 30) & (2**34 - 1))) * _FIRST
    word = (word ^ ((word >> 27) & (2**37 - 1))) * _SECOND
    return word ^ ((word >> 31) & (2**33 - 1))


def splitmix64(word: Integer[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """The first output of the splitmix64 generator with state ``word``: a bijection of 64 bits.

    z = word + 0x9E3779B97F4A7C15; z ^= z >>> 30; z *= 0xBF58476D1CE4E5B9; z ^= z >>> 27;
    z *= 0x94D049BB133111EB; z ^= z >>> 31, all modulo 2^64, with logical shifts.

    Args:
        word: any integers; narrower types are widened to int64.

    Returns:
        int64 of the same shape. The top bit may be set, so half of the results are negative:
        they are the same 64 bits as the unsigned numbers in the literature.

    Raises:
        TypeError: if ``word`` holds anything but integers.

    Source: Steele, Lea and Flood 2014, Fast Splittable Pseudorandom Number Generators, with the
        constants of Vigna's published splitmix64.

    >>> splitmix64(torch.tensor(0)).item() % 2**64 == 0xE220A8397B1DCDAF
    True
    """
    check_integer("word", word, "Hash whole numbers: round, or number your categories, first.")
    return _mix(word.long() + _INCREMENT)


def stable_hash(
    ids: Integer[Tensor, "*#n"], seed: Integer[Tensor, "*#n"] | int
) -> Int[Tensor, "*n"]:
    """Hash ids to whole numbers in [0, 2^63) that look independent from seed to seed.

    z = id * 0x9E3779B97F4A7C15 + seed, then the finaliser of splitmix64, then the sign bit is
    dropped. Take the remainder modulo a table's size for a bucket.

    Args:
        ids: any integers, negative and beyond 2^62 included; narrower types are widened.
        seed: one number, or a tensor that broadcasts with ``ids``. Take seeds from
            :func:`splitmix64`: seeds that differ by a multiple of the increment give the same
            function, shifted.

    Returns:
        int64, in the shape that ``ids`` and ``seed`` broadcast to. The result depends on the
        numbers alone: not on the process, the device, the dtype or the batch.

    Raises:
        TypeError: if ``ids`` or ``seed`` holds anything but integers.

    Source: Coleman et al. 2023, Unified Embedding: Battle-Tested Feature Representations for
        Web-Scale ML Systems, the hash that it asks for.
    Differs: the paper leaves the hash open; splitmix64 is our choice. An affine hash,
        (a id + b) mod p, maps consecutive ids to an arithmetic progression, whose collisions are
        structured.

    >>> stable_hash(torch.tensor([0, 1, -1]), splitmix64(torch.tensor(0))) % 1000
    tensor([871, 247, 584])
    """
    check_integer("ids", ids, "Hash whole numbers: round, or number your categories, first.")
    if isinstance(seed, Tensor):
        check_integer("seed", seed)
        seed = seed.long()
    return _mix(ids.long() * _INCREMENT + seed) & _SIGN_OFF


def stable_string_hash(texts: Sequence[str]) -> Int[Tensor, " n"]:
    """Turn strings into ids in [0, 2^63) that hashed tables accept: 8 bytes of BLAKE2b each.

    Python's own ``hash`` changes from process to process, so it must never number categories.

    Args:
        texts: any strings, the empty one included. Two different ones share an id with
            probability 2^-63.

    Returns:
        One int64 per string, never negative, so that -1 stays free for a missing value.

    Raises:
        TypeError: if ``texts`` is one string instead of a list of them.

    >>> stable_string_hash(["red", "blue", "red"]) % 1000
    tensor([453, 538, 453])
    """
    if isinstance(texts, str):
        raise TypeError(
            f"texts: expected a list of strings, got the string {texts!r}. Put it in []."
        )
    texts_as_bytes = (text.encode(errors="surrogatepass") for text in texts)
    digests = (hashlib.blake2b(data, digest_size=8).digest() for data in texts_as_bytes)
    ids = [int.from_bytes(digest, "little") & _SIGN_OFF for digest in digests]
    return torch.tensor(ids, dtype=torch.int64)

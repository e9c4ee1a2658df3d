"""Seals: no bit of a sealed text changes unseen, and what is older than seals is taken as it is."""

import json

import pytest

from harness import records, seals
from harness.errors import HarnessError

FACTS = {"address": "a1", "losses": [1e-05, 0.25], "name": "größe", "sha256": "f" * 64}


@pytest.fixture(params=["indented", "one line"])
def text(request):
    plain = json.dumps(FACTS, indent=1 if request.param == "indented" else None, ensure_ascii=False)
    return plain, seals.sealed(plain)


def test_a_sealed_text_is_still_the_same_json_and_opens_to_what_it_was(text):
    plain, sealed = text
    assert seals.opened(sealed.encode()) == plain.encode()
    told = json.loads(sealed)
    assert told.pop("seal").startswith("sha256:")
    assert told == FACTS


def test_every_flipped_bit_is_seen(text):
    _, sealed = text
    whole = sealed.encode()
    for place in range(len(whole)):
        for bit in range(8):
            flipped = whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :]
            with pytest.raises(ValueError):  # noqa: PT011 - a seal that does not hold, or no JSON
                json.loads(seals.opened(flipped))


def test_every_cut_is_seen(text):
    whole = text[1].encode()
    for end in range(len(whole)):
        with pytest.raises(ValueError):  # noqa: PT011
            json.loads(seals.opened(whole[:end]))


def test_a_text_without_a_seal_is_older(text):
    plain, _ = text
    assert seals.opened(plain.encode()) == plain.encode()


def test_a_file_is_read_or_refused_in_one_sentence(tmp_path):
    path = tmp_path / "fit.json"
    with pytest.raises(HarnessError, match=r"fit.json cannot be read \(No such file or directory\); learn it again"):
        seals.read(path, "learn it again")
    records.write_sealed(path, FACTS)
    assert seals.read(path) == FACTS
    path.write_text(path.read_text().replace("0.25", "0.26"))
    with pytest.raises(
        HarnessError, match=r"not as it was written \(its seal does not hold\); delete it and run again"
    ):
        seals.read(path)
    path.write_text("[1]")
    with pytest.raises(HarnessError, match="holds no object"):
        seals.read(path)


def test_digests_are_of_every_file_below(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b", "deep/a"):
        (tmp_path / name).write_text("x")
    assert list(seals.digests(tmp_path)) == ["b", "deep/a"]
    assert len({*seals.digests(tmp_path).values(), seals.sha256(tmp_path / "b")}) == 1

"""Hashes and provenance."""

import numpy as np
import pytest
import torch

from synthgen.contracts import Provenance, Tokens, content_hash
from synthgen.errors import MismatchError


def test_content_hash_does_not_depend_on_storage():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    same = [array, np.asfortranarray(array), torch.from_numpy(array), array.astype(">f4")]
    assert len({content_hash(a) for a in same}) == 1
    assert content_hash(array) != content_hash(array.T)
    assert content_hash(array) != content_hash(array.reshape(4, 3))
    assert content_hash("a", "bc") != content_hash("ab", "c")


def test_provenance_names_seen_patients_also_of_what_it_was_made_with():
    generator = Provenance.of("a" * 32, ["p1", "p2"])
    backbone = Provenance.of("b" * 32, ["p3"], also=[generator])
    assert backbone.seen(["p0", "p2", "p3"]) == ["p2", "p3"]
    assert backbone.seen(["p4"]) == []
    assert "p1" not in backbone.model_dump_json()


def test_tokens_of_two_generators_do_not_join():
    def tokens(name):
        return Tokens(torch.zeros(2, 1, 4, 4, dtype=torch.int32), torch.zeros(2, 3, 0, 0), torch.arange(2), name)

    assert len(Tokens.cat([tokens("a"), tokens("a")])) == 4
    with pytest.raises(MismatchError):
        Tokens.cat([tokens("a"), tokens("b")])

"""Histories laid end to end can be taken apart again."""

import torch

from seqrec.sequences import Sequences


def test_offsets_places_and_owners_describe_the_histories():
    packed = Sequences.pack([[3, 1, 4], [1], [5, 9, 2, 6]])
    assert packed.offsets.tolist() == [0, 3, 4, 8]
    assert packed.owners.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert packed.places.tolist() == [0, 1, 2, 0, 0, 1, 2, 3]
    assert packed.items[packed.newest].tolist() == [4, 1, 6]


def test_concatenation_equals_packing_together():
    joined = Sequences.concat([Sequences.pack([[1, 2]]), Sequences.pack([[3], [4, 5]])])
    together = Sequences.pack([[1, 2], [3], [4, 5]])
    assert torch.equal(joined.items, together.items)
    assert torch.equal(joined.offsets, together.offsets)


def test_no_history_is_a_valid_pack():
    empty = Sequences.pack([], times=[])
    assert len(empty) == 0
    assert empty.items.numel() == 0

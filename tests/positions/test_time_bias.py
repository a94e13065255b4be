"""Spans of time, and that they, and the moment of asking, change what attention takes."""

import torch

from seqrec.backbones.sasrec import SASRec
from seqrec.positions.time_bias import TimeBias, span
from seqrec.sequences import Sequences


def test_spans_are_numbered_as_in_the_released_code():
    assert span(torch.tensor([0, 1, 2, 10, 1_000_000, -10])).tolist() == [0, 0, 2, 7, 45, 7]


def test_the_moment_of_asking_changes_states_only_where_it_is_read():
    torch.manual_seed(0)
    history = Sequences.pack([[1, 2, 3]], [[10, 20, 300]])
    vectors = torch.randn(4, 8)
    newest = torch.tensor([2])
    for position, reads in ((TimeBias, True), (None, False)):
        backbone = SASRec(8, position=position).eval()
        for name, weight in backbone.named_parameters():
            if "position" in name:
                torch.nn.init.normal_(weight)
        soon, late = (
            backbone(vectors[history.items], history.asking(newest, torch.tensor([moment]))) for moment in (301, 90_000)
        )
        assert backbone.reads_asked_at is reads
        assert torch.equal(soon[:2], late[:2])
        assert torch.equal(soon[2], late[2]) is not reads

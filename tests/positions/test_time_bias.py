"""Spans of time, and that they, and the moment of asking, change what attention takes."""

import torch

from seqrec.backbones.sasrec import SASRec
from seqrec.ops.adjusted_attention import Pairs, Stand
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


def test_longer_spans_than_the_table_knows_have_its_last_number():
    places, happened, seen = torch.arange(3)[None], torch.tensor([[0, 99_990, 99_999]]), torch.tensor([[3]])
    asking = Stand(places[:, -1:], torch.tensor([[100_000]]))
    pairs = Pairs(torch.zeros(1, 1, 1, 4), asking, Stand(places, happened), seen, 3 - seen)
    position = TimeBias(4, n_spans=9)
    with torch.no_grad():
        position.table.copy_(torch.arange(9.0))
    assert position.adjust(torch.zeros(1, 1, 1, 3), pairs).flatten().tolist() == [8, 7, 0]

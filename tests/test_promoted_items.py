"""How far items are pushed is measured among what users lack, wherever the batches lie."""

import polars as pl
import pytest
import torch

from seqrec.batch import Batch
from seqrec.catalog import Catalog
from seqrec.cli import main
from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.prepare import prepare_log
from seqrec.data.protocol import LeaveOneOut
from seqrec.data.simulated import SimulatedShop
from seqrec.evaluation.promotion import promotion
from seqrec.ops.ranking import ranks_of_scores
from seqrec.recommenders.base import Encoded, Recommender, TopK
from seqrec.robustness import target_ranks
from seqrec.sequences import Sequences


class Fixed(Recommender):
    """The same scores for everyone: item 0 is best."""

    def encode(self, batch: Batch) -> Encoded:
        raise NotImplementedError

    def ranks(self, batch: Batch) -> torch.Tensor:
        scores = -torch.arange(len(self.catalog)).float().expand(batch.targets.numel(), -1)
        return ranks_of_scores(scores, batch.targets, batch.seen.items, batch.seen.offsets)

    def recommend(self, history: Sequences, k: int, seen: Sequences | None = None) -> TopK:
        raise NotImplementedError


SIX_ITEMS = Catalog(pl.DataFrame({"item_id": [str(row) for row in range(6)], "count": [1] * 6}))


def three_users() -> Batch:
    seen = Sequences.pack([[0, 2], [3, 5], [4]])
    return Batch(torch.arange(3), seen, seen.newest, torch.tensor([4, 0, 1]), seen=seen)


def test_the_metrics_of_targets_by_hand():
    """Three users and two targets, 1 and 3, of six items that stand in order of their rows."""
    ranks, lacks = target_ranks(Fixed(SIX_ITEMS), [three_users()], [1, 3])
    # User 0 has 0 and 2, so 1 is first and 3 second; user 1 has 3; the next item of user 2 is 1.
    assert lacks.tolist() == [[True, True, False], [True, False, True]]
    assert ranks[0, :2].tolist() == [0, 1]
    assert [ranks[1, 0].item(), ranks[1, 2].item()] == [1, 3]
    found = promotion(ranks, lacks, cutoffs=(2,))
    assert found["t_hr@2"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["t_rank"] == pytest.approx((1.5 + 3) / 2)


def test_a_batch_follows_the_recommender_for_a_test_on_a_gpu_leaves_both_apart(monkeypatch):
    moved, move = [], Batch.to
    monkeypatch.setattr(Batch, "to", lambda batch, device: moved.append(device) or move(batch, device))
    target_ranks(Fixed(SIX_ITEMS), [three_users()], [1, 3])
    assert moved == [torch.device("cpu")]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_gathered_on_a_gpu_are_ranked_by_a_recommender_that_came_back_from_it():
    there, here = (target_ranks(Fixed(SIX_ITEMS), [each], [1, 3]) for each in (three_users().to("cuda"), three_users()))
    assert all(torch.equal(one, other) for one, other in zip(there, here, strict=True))


def test_pushed_items_are_ranked_among_what_users_lack_even_where_the_protocol_ranks_what_they_have(tmp_path):
    prepare_log(SimulatedShop(users=100, items=80, mean_events=12.0), tmp_path / "clean")
    data = SequenceDataModule(str(tmp_path / "clean"), LeaveOneOut(seen_is_excluded=False), max_length=3)
    log, part, target = data.log, data.split.test, 40
    ranks, lacks = target_ranks(Fixed(data.catalog), data.everyone(), [target])
    had = [set(log.items[start : end - 1]) for start, end in zip(part.starts, part.ends, strict=True)]
    order = [row for batch in data.everyone() for row in batch.users.tolist()]
    wanted = {
        user: (len(set(range(target)) - items), target not in items and log.items[end - 1] != target)
        for user, items, end in zip(part.users.tolist(), had, part.ends, strict=True)
    }
    assert list(zip(ranks[0].tolist(), lacks[0].tolist(), strict=True)) == [wanted[user] for user in order]
    assert not lacks.all()


def test_who_took_an_item_again_counts_though_the_protocol_does_not_ask_about_it(tmp_path):
    """Ten users, of whom three end with what they had: nine of them lack the target, and all nine are looked at."""
    lines = [f"{user},{item},{second}" for user in range(10) for second, item in enumerate([user, 20, 21, 22])]
    lines += [f"{user},20,9" for user in range(3)] + ["9,30,9"]
    (tmp_path / "log.csv").write_text("user,item,time\n" + "\n".join(lines) + "\n")
    columns = [f"--{name}_column={name}" for name in ("user", "item", "time")]
    assert main(["prepare", str(tmp_path / "log.csv"), *columns, f"--out={tmp_path / 'data'}"]) == 0
    data = SequenceDataModule(str(tmp_path / "data"), LeaveOneOut(), max_length=10)
    assert len(data.split.test) == 7
    target = data.catalog.ids.to_list().index("30")
    _, lacks = target_ranks(Fixed(data.catalog), data.everyone(), [target])
    assert lacks.shape == (1, 10)
    assert int(lacks.sum()) == 9

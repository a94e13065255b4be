"""A poisoned data set: marked, counted, never evaluated, never popular, and the same again from the same seed."""

import json

import numpy as np
import pytest

from seqrec.cli import main
from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.errors import InputError
from seqrec.data.log import Log
from seqrec.data.poisoning import poison
from seqrec.data.poisoning.heuristic import Bandwagon, Random
from seqrec.data.poisoning.known import KnownFraudsters
from seqrec.data.poisoning.poison import poisoned
from seqrec.data.poisoning.targets import Bucket
from seqrec.data.prepare import prepare_log
from seqrec.data.protocol import GlobalTimeSplit, LeaveOneOut, RatioByUser
from seqrec.data.simulated import SimulatedShop
from seqrec.data.withhold import withhold


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("poison") / "shop"
    prepare_log(SimulatedShop(users=400, items=120, mean_events=15.0), folder)
    return folder


@pytest.fixture(scope="module")
def attacked(shop) -> Log:
    return poisoned(shop, shop.parent / "attacked", Random(), budget=0.05)


def test_genuine_users_stand_as_they_were_and_the_fakes_behind_them(shop, attacked):
    clean = Log.open(shop)
    assert len(attacked.users) == 420
    assert attacked.is_fake.tolist() == [False] * 400 + [True] * 20
    assert not clean.is_fake.any()
    end = clean.offsets[-1]
    np.testing.assert_array_equal(attacked.items[:end], clean.items)
    np.testing.assert_array_equal(attacked.times[:end], clean.times)
    np.testing.assert_array_equal(attacked.offsets[:401], clean.offsets)
    assert attacked.users[:400].to_list() == clean.users.to_list()
    assert attacked.users.n_unique() == 420
    assert attacked.catalog.table.equals(clean.catalog.table)
    for user in range(400, 420):
        times = attacked.times[attacked.offsets[user] : attacked.offsets[user + 1]]
        assert (np.diff(times) >= 0).all()
        assert clean.times.min() <= times[0] <= times[-1] <= clean.times.max()


@pytest.mark.parametrize(
    "protocol",
    [
        LeaveOneOut(),
        LeaveOneOut(drops_cold_items=True),
        RatioByUser(),
        GlobalTimeSplit(test_days=40.0, validation_days=40.0),
    ],
    ids=lambda protocol: type(protocol).__name__,
)
def test_fakes_train_but_are_never_evaluated_nor_counted(shop, attacked, protocol):
    clean, dirty = protocol.split(Log.open(shop)), protocol.split(attacked)
    for name in ("validation", "test"):
        one, other = getattr(clean, name), getattr(dirty, name)
        np.testing.assert_array_equal(one.users, other.users)
        np.testing.assert_array_equal(one.ends, other.ends)
    assert clean.passport["target_hash"] == dirty.passport["target_hash"]
    assert clean.passport["targets"] == dirty.passport["targets"]
    np.testing.assert_array_equal(clean.train.item_counts(Log.open(shop)), dirty.train.item_counts(attacked))
    fakes = dirty.train.users[dirty.train.users >= 400]
    assert clean.passport["fake_users"] == 0
    assert dirty.passport["fake_users"] == fakes.size > 0
    assert dirty.passport["users"]["train"] == clean.passport["users"]["train"] + fakes.size
    assert dirty.passport["dataset"] != clean.passport["dataset"]


def test_the_catalog_of_training_counts_genuine_events_alone(shop, attacked):
    clean, dirty = SequenceDataModule(str(shop)), SequenceDataModule(str(shop.parent / "attacked"))
    np.testing.assert_array_equal(clean.catalog.counts, dirty.catalog.counts)
    assert dirty.passport["fake_users"] == 20


def test_whoever_looks_at_everyone_is_not_told_who_is_fake(shop, attacked, monkeypatch):
    def told():
        audience = SequenceDataModule(str(shop.parent / "attacked"), fraudsters=KnownFraudsters()).audience
        parts = (audience.histories, audience.fraudsters)
        return [audience.catalog.counts, audience.users, *(each.items for each in parts), *(x.offsets for x in parts)]

    marked = told()
    monkeypatch.setattr(Log, "is_fake", property(lambda log: np.zeros(len(log.users), dtype=bool)))
    for one, other in zip(marked, told(), strict=True):
        np.testing.assert_array_equal(one, other)
    pushed = attacked.manifest["poison"]["target_rows"]
    assert (marked[0][pushed] >= SequenceDataModule(str(shop)).catalog.counts[pushed] + 10).all()


def test_training_reads_the_targets_of_every_fake(attacked):
    train = LeaveOneOut().split(attacked).train
    targets = attacked.manifest["poison"]["target_rows"]
    for start, end in zip(train.starts[-20:], train.ends[-20:], strict=True):
        assert np.isin(attacked.items[start:end], targets).any()


def test_the_same_command_again_does_nothing_and_another_seed_makes_other_fakes(shop):
    out = shop.parent / "again"
    first = poisoned(shop, out, Bandwagon(), seed=1).manifest["fingerprint"]
    made = (out / "manifest.json").stat().st_mtime_ns
    assert poisoned(shop, out, Bandwagon(), seed=1).manifest["fingerprint"] == first
    assert (out / "manifest.json").stat().st_mtime_ns == made
    assert poisoned(shop, out, Bandwagon(), seed=2).manifest["fingerprint"] != first
    assert poisoned(shop, out, Bandwagon(), seed=1, force=True).manifest["fingerprint"] == first


def test_fakes_are_made_anew_by_other_code(shop, tmp_path, monkeypatch):
    out = shop.parent / "other-code"
    first = poisoned(shop, out, Random()).manifest
    assert poisoned(shop, out, Random()).manifest["origin"] == first["origin"]
    (tmp_path / "poison.py").write_text("# other code")
    monkeypatch.setattr(poison, "__file__", str(tmp_path / "poison.py"))
    assert poisoned(shop, out, Random()).manifest["origin"] != first["origin"]


def test_other_data_are_never_replaced(shop, attacked):
    attacked_folder, other, cold = (shop.parent / name for name in ("attacked", "other", "cold"))
    before = (shop / "manifest.json").read_text()
    for out in (shop, shop.parent / "attacked" / ".." / "shop"):
        with pytest.raises(InputError, match=r"is the data set that `seqrec poison` reads\. .* --out"):
            poisoned(shop, out, Random(), force=True)
        with pytest.raises(InputError, match=r"is the data set that `seqrec withhold` reads\. .* --out"):
            withhold(shop, out)
    assert (shop / "manifest.json").read_text() == before
    prepare_log(SimulatedShop(users=60, items=50, mean_events=15.0), other)
    withhold(shop, cold)
    for out in (other, cold):
        with pytest.raises(InputError, match=r"holds a prepared data set that `seqrec poison` did not write"):
            poisoned(shop, out, Random(), force=True)
    poisoned(cold, shop.parent / "both", Random())
    for out in (other, attacked_folder, shop.parent / "both"):
        with pytest.raises(InputError, match=r"holds a prepared data set that `seqrec withhold` did not write"):
            withhold(shop, out)
    assert len(Log.open(other).users) == 60
    withhold(shop, cold, seed=1)
    assert Log.open(cold).manifest["withheld"]["seed"] == 1


@pytest.mark.parametrize("bucket", list(Bucket), ids=lambda bucket: bucket.name)
def test_targets_come_from_their_bucket_of_clean_training_counts(shop, bucket):
    log = poisoned(shop, shop.parent / bucket.name, Random(), targets=bucket)
    counts = LeaveOneOut().split(Log.open(shop)).train.item_counts(Log.open(shop))
    median, upper, top = np.percentile(counts, [50, 75, 95])
    low, high = {
        "tail": (0, median),
        "lower_torso": (median, upper),
        "upper_torso": (upper, top),
        "head": (top, np.inf),
    }[bucket.name]
    pushed = counts[log.manifest["poison"]["target_rows"]]
    assert len(pushed) == 5
    assert ((pushed >= low) & (pushed < high)).all()


def test_what_cannot_be_poisoned_is_refused_with_the_remedy(shop, attacked):
    out = shop.parent / "refused"
    with pytest.raises(InputError, match="clean data set"):
        poisoned(shop.parent / "attacked", out, Random())
    with pytest.raises(InputError, match=r"0\.005 to 0\.05"):
        poisoned(shop, out, Random(), budget=0.5)
    with pytest.raises(InputError, match="--n_targets"):
        poisoned(shop, out, Random(), targets=Bucket.head, n_targets=50)
    assert not out.exists()


def test_the_command_takes_an_attack_by_name_with_its_settings(shop, capsys):
    out = shop.parent / "named"
    given = ["poison", "--data", str(shop), "--attack", "Bandwagon", "--attack.popular", "0.2", "--budget", "0.02"]
    assert main([*given, "--targets", "lower_torso", "--out", str(out)]) == 0
    assert "8 fake users of the attack Bandwagon beside 400 genuine ones push item-" in " ".join(
        capsys.readouterr().out.split()
    )
    made = json.loads((out / "manifest.json").read_text())["poison"]
    assert made["settings"] == {"slots": 5, "popular": 0.2}
    assert made["bucket"] == "lower_torso"
    assert main(["poison", "--data", str(shop), "--attack", "Bandwagn", "--out", str(out)]) == 2


@pytest.mark.parametrize("protocol", [RatioByUser(), GlobalTimeSplit(test_days=40.0, validation_days=40.0)])
def test_poisoned_data_are_for_the_protocol_whose_training_part_the_attacker_knew(attacked, shop, protocol):
    where = str(shop.parent / "attacked")
    with pytest.raises(InputError, match=r"holds fake users, .* Set data.protocol to LeaveOneOut"):
        _ = SequenceDataModule(where, protocol=protocol).split
    assert SequenceDataModule(where, protocol=LeaveOneOut(drops_cold_items=True)).split.passport["fake_users"] == 20

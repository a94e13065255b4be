"""What papers claim: the file keeps to its form, says where each figure stands, and never enters a table."""

from pathlib import Path

import pytest
import yaml
from made_runs import a_run

from seqrec.board.reported import read_claims
from seqrec.board.results import read, tables_of
from seqrec.data.errors import InputError
from seqrec.leaderboard import leaderboard

REPORTED = Path(__file__).parents[2] / "experiments" / "reported.yaml"


def test_the_file_keeps_to_its_form_and_holds_the_models_that_matter():
    claims = read_claims(REPORTED)
    names = " ".join(claim.model for claim in claims)
    for model in ("SASRec", "eSASRec", "Mamba4Rec", "SIGMA", "SRA-CL base", "CAPE", "HSTU", "BERT4Rec", "gSASRec"):
        assert model in names
    assert "HMamba" in yaml.safe_load(REPORTED.read_text())["unread"]
    assert not any("HMamba" in claim.model for claim in claims)
    assert len({(claim.model, claim.data, claim.copy, claim.source) for claim in claims}) == len(claims)
    for claim in claims:
        assert len(claim.source) > 10
        assert claim.verified is False or claim.kind != "thread"


def test_figures_are_those_of_their_sources():
    found = {(claim.model, claim.data): claim for claim in read_claims(REPORTED) if "blondered" in claim.source}
    assert found["eSASRec", "amazon-beauty"].metrics == {"recall@10": 0.0928, "ndcg@10": 0.0523}
    assert found["eSASRec", "amazon-beauty"].verified
    assert not found["TIGER", "amazon-beauty"].verified


CLAIM = {
    "model": "M", "data": "beauty", "copy": "all", "metrics": {"ndcg@10": 0.5}, "protocol": "p", "source": "somewhere",
    "kind": "paper", "verified": True,
}  # fmt: skip
PROTOCOL = {"split": "LeaveOneOut", "seen_is_excluded": False, "cold_targets": None, "candidates": "all items"}


def written(path: Path, **changed) -> Path:
    claim = {name: value for name, value in (CLAIM | changed).items() if value != "-"}
    path.write_text(yaml.safe_dump({"protocols": {"p": PROTOCOL}, "claims": [claim]}))
    return path


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"source": "-"}, "lacks source"),
        ({"source": " "}, "give a text"),
        ({"sorce": "x"}, "has the unknown field sorce"),
        ({"protocol": "q"}, "names the protocol 'q'"),
        ({"metrics": {}}, "has no metrics"),
        ({"metrics": {"ndcg@10": 50.0}}, "lies between 0 and 1"),
        ({"metrics": {"hit@10": 0.5}}, "is one of ours"),
        ({"kind": "rumour"}, "kind must be one of"),
        ({"verified": "perhaps"}, "verified true or false"),
        ({"users": "many"}, "give a whole number"),
        ({"items": 0}, "give a whole number"),
        ({"ours": "sigma"}, "list the runs that follow its settings"),
    ],
)
def test_a_claim_that_does_not_keep_to_the_form_is_refused(tmp_path, changed, words):
    with pytest.raises(InputError, match="Claim 1 of"):
        read_claims(written(tmp_path / "reported.yaml", **changed))
    with pytest.raises(InputError, match=words):
        read_claims(written(tmp_path / "reported.yaml", **changed))


def test_a_claim_says_how_it_differs_and_stands_beside_the_table_only(tmp_path):
    run = a_run(tmp_path, "run", 0.05)
    path = written(tmp_path / "reported.yaml", model="Wonder", metrics={"ndcg@10": 0.987})
    (claim,) = read_claims(path)
    (table,) = tables_of(read([run]))
    assert claim.differences(table)[:2] == ["seen items: ranked", "cold targets not stated"]
    assert claim.contradictions(table) == ["seen items: ranked"]
    leaderboard(run, tmp_path / "page", reported=path)
    before, after = (tmp_path / "page.md").read_text().split("### What others report on beauty")
    assert "Wonder" not in before
    assert "| Wonder | all | 0.9870 |" in after
    assert "Not measured here and not comparable." in after


def test_a_claim_on_another_copy_of_the_data_is_held_against_none(tmp_path):
    counted = {"seen_is_excluded": False, "users": {"train": 40, "test": 30}, "items": 9}
    a_run(tmp_path / "runs", "wonder-beauty-seed1", passport=counted)
    (table,) = tables_of(read([tmp_path / "runs"]))
    beside = {"here": {"users": 40, "items": 9}, "elsewhere": {"users": 41, "items": 9}, "larger": {"items": 1200}}
    wrong = {"here": [], "elsewhere": ["users: 41"], "larger": ["items: 1,200"]}
    for name, counts in beside.items():
        path = written(tmp_path / f"{name}.yaml", ours=["wonder-beauty"], **counts)
        (claim,) = read_claims(path)
        assert claim.contradictions(table) == wrong[name]
        leaderboard(tmp_path / "runs", tmp_path / name, reported=path)
        assert ("Published, and ours" in (tmp_path / f"{name}.md").read_text()) is not wrong[name]
    assert claim.data_there == "1,200 items, all"


def test_what_was_published_stands_beside_the_runs_that_follow_it_with_the_difference_and_why(tmp_path):
    ranked = {"seen_is_excluded": False}
    for seed, ndcg in ((1, 0.04), (2, 0.06)):
        a_run(tmp_path / "runs", f"wonder-beauty-seed{seed}", ndcg, seed, passport=ranked)
    a_run(tmp_path / "runs", "other-seed1", 0.09, dim=32, passport=ranked)
    a_run(tmp_path / "runs" / "another protocol", "wonder-beauty-seed1", 0.07)
    path = written(
        tmp_path / "reported.yaml", model="Wonder", note="of a rerun", ours=["wonder-beauty"],
        metrics={"ndcg@10": 0.04, "ndcg@200": 0.3, "recall@10": 0.2},
    )  # fmt: skip
    leaderboard(tmp_path / "runs", tmp_path / "page", reported=path)
    _, said = (tmp_path / "page.md").read_text().split("### Published, and ours with its settings")  # of one protocol
    said = said.split("###")[0]
    lines = [line for line in said.splitlines() if line.startswith("| Wonder")]
    assert len(lines) == 2
    assert (
        "| SASRec (wonder-beauty) | ndcg@10 | 0.0400 | 0.0500 ± 0.0141 | +0.0100 (+25.0%) | cold targets not stated;"
        in lines[0]
    )
    assert "recall@10 | 0.2000 | 0.1000" in lines[1]
    assert all("of a rerun" in line and "other" not in line for line in lines)
    assert "Published, and ours with its settings" in (tmp_path / "page.html").read_text()
    bare = written(tmp_path / "bare.yaml", model="Wonder")
    leaderboard(tmp_path / "runs", tmp_path / "bare", reported=bare)
    assert "Published, and ours" not in (tmp_path / "bare.md").read_text()


def test_runs_that_claims_name_are_configs_of_this_repository():
    configs = {path.stem for path in (REPORTED.parents[1] / "configs" / "parity").glob("*.yaml")}
    plugins = {path.stem for path in (REPORTED.parents[1] / "configs" / "plugin").glob("*.yaml")}
    named = {name for claim in read_claims(REPORTED) for name in claim.ours}
    assert named
    for name in named:
        config, *added = name.split("+")
        assert config in configs
        assert plugins.issuperset(added)

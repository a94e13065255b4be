"""What a search proposes, and what makes it a search of its own."""

from collections.abc import Callable

import yaml

from seqrec.studies import jobs, searching


def proposed(desk, monkeypatch, name: str, worth: Callable[[float], float]) -> list[float]:
    """The learning rates of eight trials, if each is worth what we say and nothing is trained."""
    study = yaml.safe_load(desk.study.read_text())
    study["name"], study["search"]["trials"] = name, 8
    desk.study.write_text(yaml.safe_dump(study))

    def train(folder, arguments, watchers):
        (rate,) = [word.partition("=")[2] for word in arguments if word.startswith("--model.learning_rate=")]
        return {"epochs": 1, "wall_seconds": 1.0, "validation": {"val/ndcg@10": worth(float(rate)), "epoch": 0}}

    monkeypatch.setattr(searching, "train", train)
    job = desk.job("sasrec", None)
    searching.search(job)
    return [trial["params"]["model.learning_rate"] for trial in job.outcome["trials"]]


def test_a_small_search_goes_by_what_its_trials_were_worth(own_desk, monkeypatch):
    low = proposed(own_desk, monkeypatch, "low", lambda rate: 1 - rate)
    high = proposed(own_desk, monkeypatch, "high", lambda rate: rate)
    assert len(low) == len(high) == 8
    assert low[:2] == high[:2]  # nothing is known yet
    assert sum(low[2:]) < sum(high[2:])


def test_a_search_is_repeated_when_the_code_of_searches_changes_and_a_final_run_is_not(own_desk, tmp_path, monkeypatch):
    """The package is a copy in which one module is changed."""
    package = tmp_path / "package"
    (package / "studies").mkdir(parents=True)
    for module in ("__init__", "studies/searching", "studies/worker", "training"):
        (package / f"{module}.py").write_text("")
    monkeypatch.setattr(jobs.seqrec, "__file__", str(package / "__init__.py"))
    monkeypatch.setattr(jobs, "code_fingerprint", jobs.code_fingerprint.__wrapped__)  # without its cache

    def codes() -> list[str]:
        return [own_desk.job("popularity", 1).fingerprint["code"], own_desk.job("sasrec", None).fingerprint["code"]]

    final, search = codes()
    (package / "studies" / "worker.py").write_text("changed")
    assert codes() == [final, search]
    (package / "studies" / "searching.py").write_text("changed")
    assert codes()[0] == final
    assert codes()[1] != search
    (package / "training.py").write_text("changed")
    assert codes()[0] != final

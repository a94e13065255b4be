"""What a config names is known by its content, not by its name alone."""

import hashlib

from seqrec.data.folders import digest_of_files, digests_of_named


def test_files_and_folders_that_a_config_names_are_known_by_their_content(tmp_path):
    file, folder = tmp_path / "vectors.parquet", tmp_path / "embedded"
    file.write_bytes(b"one")
    folder.mkdir()
    (folder / "part").write_bytes(b"two")
    (tmp_path / "prepared").mkdir()
    config = {
        "data": {"prepared": str(tmp_path / "prepared")},
        "model": {"parts": [{"vectors": str(file)}, {"vectors": str(folder)}], "loss": "seqrec.objectives.softmax"},
        "data.prepared": str(tmp_path / "prepared"),
        "other": str(tmp_path / "is not there"),
        "number": 3,
    }
    config["also"] = {"vectors": str(tmp_path / "{data}.parquet")}
    (tmp_path / "shop.parquet").write_bytes(b"three")
    before = digests_of_named(config, "shop")
    assert set(before) == {str(file), str(folder), str(tmp_path / "shop.parquet")}
    file.write_bytes(b"eno")
    after = digests_of_named(config, "shop")
    assert after[str(file)] != before[str(file)]
    assert after[str(folder)] == before[str(folder)]


def test_what_has_not_changed_is_not_read_again(tmp_path, monkeypatch):
    file, read = tmp_path / "vectors.parquet", []
    file.write_bytes(b"one")
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda content, name: read.append(content) or digest(content, name))
    assert digest_of_files(file) == digest_of_files(file)
    assert len(read) == 1

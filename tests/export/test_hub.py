"""A bundle goes to a model hub and comes back the same, through the hub's own client and a real connection."""

import base64
import hashlib
import json
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import polars as pl
import pytest

from seqrec.catalog import Catalog
from seqrec.cli import main
from seqrec.export.bundle import build_recommender, write_bundle
from seqrec.export.changes import block_items
from seqrec.export.manifest import read_fields, write_manifest
from seqrec.export.retriever import Retriever

pytest.importorskip("faiss")
pytest.importorskip("huggingface_hub")

RECIPE = {
    "class_path": "seqrec.recommenders.sequential.SequentialRecommender",
    "init_args": {
        "embedding": {"class_path": "seqrec.embeddings.ids.IdEmbedding", "init_args": {"dim": 8}},
        "backbone": {"class_path": "seqrec.backbones.gru4rec.GRU4Rec", "init_args": {"dim": 8}},
    },
}
LARGE = (".safetensors", ".faiss", ".pt2", ".onnx", ".parquet")


class Hub(ThreadingHTTPServer):
    """As much of a model hub as its client asks for: repositories in memory, each with its newest files alone."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Desk)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.uploads: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def commit_of(self, repo):
        parts = sorted((name, hashlib.sha256(content).hexdigest()) for name, content in self.repositories[repo].items())
        return hashlib.sha1(repr(parts).encode()).hexdigest()


class Desk(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, content=b"", status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_POST(self):
        path, content = urlsplit(self.path).path, self.body()
        if path == "/api/repos/create":
            asked = json.loads(content)
            repo = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            self.server.repositories.setdefault(repo, {".gitattributes": b"* text\n"})
            self.server.private[repo] = asked.get("private", asked.get("visibility") == "private")
            return self.answer({"url": f"{self.server.address}/{repo}", "id": repo, "name": repo})
        if path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/(.+)/preupload/main", path):
            files = json.loads(content)["files"]
            modes = [
                {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith(LARGE) else "regular"}
                for each in files
            ]
            return self.answer({"files": [{**each, "shouldIgnore": False} for each in modes]})
        if found := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            wanted = json.loads(content)["objects"]
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.server.address}/upload/{each['oid']}", "header": {}}}}
                for each in wanted
            ]
            return self.answer({"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")
        if found := re.fullmatch(r"/api/models/(.+)/commit/main", path):
            files = self.server.repositories[found[1]]
            for line in map(json.loads, content.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    files[value["path"]] = self.server.uploads[value["oid"]]
                elif line["key"] == "deletedFile":
                    del files[value["path"]]
            sha = self.server.commit_of(found[1])
            address = f"{self.server.address}/{found[1]}/commit/{sha}"
            return self.answer({"commitUrl": address, "commitOid": sha, "success": True})
        return self.answer({"error": "not found"}, 404)

    def do_PUT(self):
        content = self.body()
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(content).hexdigest() == oid
        self.server.uploads[oid] = content
        self.answer()

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            repo = found[1]
            if repo not in self.server.repositories:
                return self.answer({"error": "Repository not found"}, 401, X_Error_Code="RepoNotFound")
            files = self.server.repositories[repo]
            if found[2] == "tree":
                listed = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
                return self.answer(listed)
            siblings = [{"rfilename": name} for name in files]
            return self.answer({"id": repo, "sha": self.server.commit_of(repo), "siblings": siblings, "private": False})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            repo, name = found[1], found[3]
            content = self.server.repositories.get(repo, {}).get(name)
            if content is None:
                return self.answer({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            mark = hashlib.sha256(content).hexdigest()
            return self.answer(content, ETag=f'"{mark}"', X_Repo_Commit=self.server.commit_of(repo))
        return self.answer({"error": "not found"}, 404)

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch, tmp_path):
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", "nobody's")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def bundle(folder, n_items=20):
    catalog = Catalog(pl.DataFrame({"item_id": [f"i{row}" for row in range(n_items)], "count": [1] * n_items}))
    write_bundle(build_recommender(RECIPE, catalog), folder, recipe=RECIPE, config={}, max_length=10)
    return folder


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_bundle_comes_back_as_it_went(hub, tmp_path, capsys):
    mine, there = bundle(tmp_path / "mine"), f"--endpoint={hub.address}"
    assert main(["push", f"--bundle={mine}", "--repo=someone/shop", "--private", there]) == 0
    assert f"{hub.address}/someone/shop/commit/" in capsys.readouterr().out
    assert hub.private["someone/shop"]
    assert {name: each for name, each in hub.repositories["someone/shop"].items() if name != ".gitattributes"} == (
        content_of(mine)
    )
    assert main(["pull", "--repo=someone/shop", f"--out={tmp_path / 'theirs'}", there]) == 0
    assert content_of(tmp_path / "theirs") == content_of(mine)
    assert Retriever.load(tmp_path / "theirs").recommend(["i1"], 5) == Retriever.load(mine).recommend(["i1"], 5)


def test_what_is_blocked_here_stays_so_whatever_comes(hub, tmp_path):
    mine, there = bundle(tmp_path / "mine"), f"--endpoint={hub.address}"
    block_items(mine, "i2")
    assert main(["push", f"--bundle={mine}", "--repo=someone/shop", there]) == 0
    theirs = bundle(tmp_path / "theirs")
    block_items(theirs, "i3")
    assert main(["pull", "--repo=someone/shop", f"--out={theirs}", there]) == 0
    assert Retriever.load(theirs).blocked == {"i2", "i3"}


def test_a_second_push_leaves_nothing_of_the_first(hub, tmp_path):
    there = f"--endpoint={hub.address}"
    mine = bundle(tmp_path / "mine")
    assert main(["push", f"--bundle={mine}", "--repo=someone/shop", there]) == 0
    hub.repositories["someone/shop"]["users.safetensors"] = b"of the first"
    assert main(["push", f"--bundle={bundle(mine, 25)}", "--repo=someone/shop", there]) == 0
    assert "users.safetensors" not in hub.repositories["someone/shop"]
    assert main(["pull", "--repo=someone/shop", f"--out={tmp_path / 'theirs'}", there]) == 0
    assert len(Retriever.load(tmp_path / "theirs").catalog) == 25


def test_folders_that_others_put_there_stay_there(hub, tmp_path):
    mine, there = bundle(tmp_path / "mine"), f"--endpoint={hub.address}"
    assert main(["push", f"--bundle={mine}", "--repo=someone/shop", there]) == 0
    hub.repositories["someone/shop"]["pictures/more/shop.png"] = b"a picture"
    assert main(["pull", "--repo=someone/shop", f"--out={tmp_path / 'theirs'}", there]) == 0
    assert content_of(tmp_path / "theirs") == content_of(mine)


def test_a_hub_that_cannot_be_reached_is_named(hub, tmp_path, capsys):
    mine = bundle(tmp_path / "mine")
    with socket.socket() as nobody:  # a port that nobody listens at
        nobody.bind(("127.0.0.1", 0))
        there = f"--endpoint=http://127.0.0.1:{nobody.getsockname()[1]}"
        for command in (["push", f"--bundle={mine}"], ["pull", f"--out={tmp_path / 'theirs'}"]):
            assert main([*command, "--repo=someone/shop", there]) == 2
            assert "The hub did not answer for 'someone/shop'" in capsys.readouterr().err


def test_what_was_changed_on_the_way_does_not_arrive(hub, tmp_path, capsys):
    there, theirs = f"--endpoint={hub.address}", tmp_path / "theirs"
    mine = bundle(tmp_path / "mine")
    assert main(["push", f"--bundle={mine}", "--repo=someone/shop", there]) == 0
    files = hub.repositories["someone/shop"]
    files["encoder.yaml"] = files["encoder.yaml"].replace(b"8", b"9", 1)
    assert main(["pull", "--repo=someone/shop", f"--out={theirs}", there]) == 2
    assert "encoder.yaml differs from what was exported" in capsys.readouterr().err
    assert not theirs.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", ".mine.lock", ".theirs.lock"}


def test_a_bundle_brings_no_code(hub, tmp_path, capsys):
    there, theirs = f"--endpoint={hub.address}", tmp_path / "theirs"
    mine = bundle(tmp_path / "mine")
    assert main(["push", f"--bundle={mine}", "--repo=someone/shop", there]) == 0
    fields = read_fields(mine)
    (mine / "evil.py").write_text("print('of the bundle')")
    write_manifest(mine, fields, [*fields["files"], "evil.py"])
    hub.repositories["someone/shop"] |= content_of(mine)
    assert main(["pull", "--repo=someone/shop", f"--out={theirs}", there]) == 2
    assert "names evil.py, which no bundle has" in capsys.readouterr().err
    assert not theirs.exists()


def test_a_broken_bundle_is_not_pushed_and_a_missing_repository_is_named(hub, tmp_path, capsys):
    there = f"--endpoint={hub.address}"
    mine = bundle(tmp_path / "mine")
    (mine / "encoder.yaml").write_text("changed")
    assert main(["push", f"--bundle={mine}", "--repo=someone/shop", there]) == 2
    assert "encoder.yaml differs" in capsys.readouterr().err
    assert hub.repositories == {}
    assert main(["pull", "--repo=someone/nothing", f"--out={tmp_path / 'theirs'}", there]) == 2
    assert "The hub did not answer for 'someone/nothing'" in capsys.readouterr().err
    assert not (tmp_path / "theirs").exists()

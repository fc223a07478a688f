"""The loopback Hub with clients in processes of their own: `datasets`, Xet and others."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, HfApi

from tests.hub.server import LoopbackHub, client_environment

ID = "user/set"

LOAD = """
import json
from datasets import load_dataset
whole = load_dataset("user/set", revision="v1.0.0")["train"]
streamed = load_dataset("user/set", revision="v1.0.0", streaming=True)["train"]
print(json.dumps([list(whole["key"]), [row["key"] for row in streamed]]))
"""

XET = """
import sys
from huggingface_hub import CommitOperationAdd, HfApi
files = {"data/a.parquet": sys.argv[1], "data/b.parquet": b"b" * 3000, "README.md": b"# A set"}
operations = [CommitOperationAdd(path, data) for path, data in files.items()]
api = HfApi()
api.create_repo("user/set", repo_type="dataset")
api.preupload_lfs_files("user/set", operations, repo_type="dataset")
print(api.create_commit("user/set", operations, commit_message="v1", repo_type="dataset").oid)
"""


def run(code: str, *arguments: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_datasets_loads_a_tag_whole_and_streaming(tmp_path: Path) -> None:
    with LoopbackHub(tmp_path / "hub") as hub:
        api = HfApi(endpoint=hub.endpoint, token="any")
        api.create_repo(ID, repo_type="dataset")
        for version, keys in (("v1.0.0", [3, 1, 4]), ("v1.1.0", [1, 5, 9])):
            pq.write_table(pa.table({"key": keys}), tmp_path / "a.parquet")
            file = CommitOperationAdd("data/train-00000.parquet", tmp_path / "a.parquet")
            api.create_commit(ID, [file], commit_message=version, repo_type="dataset")
            api.create_tag(ID, tag=version, repo_type="dataset")

        printed = run(LOAD, env=client_environment(hub, tmp_path / "home"))

        assert json.loads(printed) == [[3, 1, 4], [3, 1, 4]]


def test_files_sent_through_xet_are_served_like_any_other(tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "a.parquet").write_bytes(data)
    with LoopbackHub(tmp_path / "hub", token="secret") as hub:
        environment = client_environment(hub, tmp_path / "home", token="secret", xet=True)
        printed = run(XET, str(tmp_path / "a.parquet"), env=environment)
        api = HfApi(endpoint=hub.endpoint, token="secret")
        copy = Path(api.snapshot_download(ID, repo_type="dataset", cache_dir=tmp_path / "cache"))

        assert ("GET", f"/api/datasets/{ID}/xet-write-token/main") in hub.requests
        assert "PUT" not in {method for method, _ in hub.requests}
        assert copy.name == printed.strip()
        assert (copy / "data/a.parquet").read_bytes() == data
        assert (copy / "data/b.parquet").read_bytes() == b"b" * 3000


def test_the_hub_command_serves_until_it_is_interrupted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.hub", str(tmp_path / "hub")]
    served = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert served.stdout is not None
    with served.stdout as lines:
        try:
            found = (re.search(r"export HF_ENDPOINT=(\S+)", line) for line in lines)
            endpoint = next(match[1] for match in found if match)
            api = HfApi(endpoint=endpoint, token="any")
            api.create_repo(ID, repo_type="dataset")
            assert api.list_repo_files(ID, repo_type="dataset") == [".gitattributes"]
        finally:
            served.send_signal(signal.SIGINT)
            code = served.wait()

    assert endpoint.startswith("http://127.0.0.1:")
    assert code == 0

"""Tables are whole or absent, the same bytes every time, and say what is wrong with them."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cgankd.shardset.errors import CorruptShard
from cgankd.shardset.tables import (
    numbered_tables,
    read_metadata,
    read_numbered,
    read_table,
    table_name,
    write_table,
)

TABLE = pa.table({"key": [1, 2, 3], "name": ["a", None, "c"]})


def test_table_and_metadata_survive_the_disk(tmp_path):
    """Columns, nulls and the JSON beside them come back; a part of the columns too."""
    path = tmp_path / "t.parquet"
    write_table(path, TABLE, {"rho": 0.9, "per_label": [1, None]})

    assert TABLE.equals(read_table(path))
    assert TABLE.select(["name"]).equals(read_table(path, ["name"]))
    assert read_metadata(path) == {"rho": 0.9, "per_label": [1, None]}


def test_a_stage_s_tables_need_no_pandas(tmp_path):
    """A process that writes and reads a table has not imported it, and still can."""
    script = (
        "import sys, pathlib, numpy as np, pyarrow as pa\n"
        "from cgankd.shardset.tables import read_table, write_table, without_pandas\n"
        "without_pandas()\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "write_table(path, pa.table({'key': np.arange(3), 'name': ['a', 'b', None]}))\n"
        "table = read_table(path)\n"
        "assert table['key'].to_numpy().tolist() == [0, 1, 2]\n"
        "assert table['name'].to_pylist() == ['a', 'b', None]\n"
        "assert 'pandas' not in sys.modules\n"
        "assert table.to_pandas()['key'].tolist() == [0, 1, 2]\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "t.parquet")], check=True)


def test_the_same_table_gives_the_same_bytes(tmp_path):
    """Hashes of tables mean something."""
    for name in ("a", "b"):
        write_table(tmp_path / name, TABLE, {"x": 1, "y": 2} if name == "a" else {"y": 2, "x": 1})

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_row_groups_have_the_size_asked_for_and_a_page_index(tmp_path):
    """A Hub viewer can read a page without the rest."""
    path = tmp_path / "t.parquet"
    write_table(path, TABLE, row_group_rows=2)

    file = pq.read_metadata(path)
    assert [file.row_group(group).num_rows for group in range(2)] == [2, 1]
    assert file.row_group(0).column(0).has_offset_index
    assert read_metadata(path) == {}


def test_broken_tables_are_named(tmp_path):
    """Cut, missing, or without the column asked for: one line with the path."""
    path = tmp_path / "t.parquet"
    with pytest.raises(CorruptShard, match=r"t\.parquet is missing"):
        read_table(path)
    write_table(path, TABLE)
    with pytest.raises(CorruptShard, match="no column 'label', only key, name"):
        read_table(path, ["label"])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptShard, match="cut or not Parquet"):
        read_table(path)
    with pytest.raises(CorruptShard, match="cut or not Parquet"):
        read_metadata(path)


def test_numbered_tables_are_joined_in_order_and_gaps_found(tmp_path):
    """Order is that of the numbers; other files are left alone; a gap is named."""
    for index in (2, 0, 1):
        write_table(tmp_path / table_name(index), pa.table({"key": [index]}))
    write_table(tmp_path / "neighbours.parquet", TABLE)

    assert read_numbered(tmp_path)["key"].to_pylist() == [0, 1, 2]
    (tmp_path / table_name(1)).unlink()
    with pytest.raises(CorruptShard, match=r"000001\.parquet is missing but 000002"):
        numbered_tables(tmp_path)
    with pytest.raises(CorruptShard, match="holds no tables"):
        read_numbered(tmp_path / "nowhere")


def test_tables_of_other_versions_are_not_joined(tmp_path):
    """A column that only one table has is an error, not a null."""
    write_table(tmp_path / table_name(0), TABLE)
    write_table(tmp_path / table_name(1), TABLE.select(["key"]))

    with pytest.raises(CorruptShard, match=r"000001\.parquet has other columns than 000000"):
        read_numbered(tmp_path)

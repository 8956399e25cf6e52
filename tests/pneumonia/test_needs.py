import shutil

import pytest
from workspaces import make, make_pool, make_shards, reference

from pneumonia.artifacts import MANIFEST
from pneumonia.needs import find_needs
from pneumonia.workspace import Workspace

MAIN, BOTH = frozenset({"main"}), frozenset({"main", "other"})


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def test_needed_is_what_a_link_names_and_by_which_runs(workspace):
    first, second = make(workspace, "labels", "one"), make(workspace, "labels", "two")
    make(workspace, "labels", "of nobody")
    workspace.link("main", "labels", first)
    workspace.link("other", "labels", first)
    workspace.link("other", "training-resnet18", second)
    needs = find_needs(workspace)
    assert needs.runs == {first: BOTH, second: frozenset({"other"})}
    assert needs.doubts == ()
    assert find_needs(workspace, dropped=["other"]).runs == {first: MAIN}


def test_a_shard_of_which_one_row_is_used_is_needed_and_another_is_not(workspace):
    used, unused = make_pool(workspace, "a", ["1", "2"]), make_pool(workspace, "b", ["3"])
    table = make_shards(workspace, "table", [used])
    workspace.link("main", "shards", table)
    runs = find_needs(workspace).runs
    assert runs == {table: MAIN, used: MAIN}
    assert unused not in runs


def test_a_shard_is_needed_for_a_refused_file_alone_if_it_was_converted_alike(workspace):
    used = make_pool(workspace, "a", ["1"], configuration={"image_size": 32})
    refused = make_pool(workspace, "b", [], ["2"], configuration={"image_size": 32})
    make_pool(workspace, "b at 64", [], ["2"], configuration={"image_size": 64})
    make_pool(workspace, "c", [], ["3"], configuration={"image_size": 32})
    settings = {"image_size": 32, "max_quarantined": 0.5}
    table = make_shards(workspace, "table", [used], ["2"], settings)
    workspace.link("main", "shards", table)
    assert find_needs(workspace).runs.keys() == {table, used, refused}


@pytest.mark.parametrize("damage", ["gone", "manifest", "table"])
def test_where_a_needed_table_cannot_be_read_every_shard_is_needed_and_that_is_told(
    workspace, damage
):
    shards = [make_pool(workspace, name, [name]) for name in "ab"]
    table = make_shards(workspace, "table", shards[:1])
    workspace.link("main", "shards", table)
    folder = workspace.path(table)
    if damage == "gone":
        shutil.rmtree(folder)
    elif damage == "manifest":
        (folder / MANIFEST).write_text("{}", "utf-8")
    else:
        (folder / "images.parquet").write_bytes(b"torn")
    needs = find_needs(workspace)
    assert needs.runs == {table: MAIN, shards[0]: MAIN, shards[1]: MAIN}
    [doubt] = needs.doubts
    assert f"{table}, which main needs, is not whole" in doubt


def test_a_link_to_what_has_never_been_is_a_doubt(workspace):
    workspace.link("main", "labels", reference("labels", "one"))
    [doubt] = find_needs(workspace).doubts
    assert doubt.endswith("is not whole: it is missing")

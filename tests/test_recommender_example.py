"""The recommender's example reaches what it should, and reads real files."""

import gzip
import runpy
from pathlib import Path

import pytest

PATH = str(Path(__file__).parents[1] / "examples" / "recommender.py")


@pytest.mark.slow
@pytest.mark.examples
def test_graphs_beat_factorisation_on_generated_clicks(tmp_path):
    found = runpy.run_path(PATH)["main"](out=tmp_path)
    recall = {name: found[name]["recall@20"] for name in ("MF", "NGCF", "LightGCN")}
    assert min(recall["NGCF"], recall["LightGCN"]) >= 1.3 * recall["MF"]


@pytest.mark.examples
def test_both_kinds_of_real_files_are_read(tmp_path):
    with gzip.open(tmp_path / "data1.txt.gz", "wt") as file:
        file.write("1\t1\t9\n1\t2\t3.2e+05\n2\t3\t5\n")
    (tmp_path / "test1.txt").write_text("1\t3\t9\n")
    (tmp_path / "train.txt").write_text("0 0 1\n1 2\n2\n")
    (tmp_path / "test.txt").write_text("0 2\n")
    main = runpy.run_path(PATH)["main"]
    for data in ("lastfm", "amazon-book"):
        found = main(steps=2, out=tmp_path / "out", data=data, folder=tmp_path)
        # User 0 clicked on items 0 and 1, so item 2 comes first.
        assert found["LightGCN"]["recall@20"] == 1.0
    with pytest.raises(SystemExit, match=r"expected data1.txt or data1.txt.gz in .*--folder names"):
        main(data="lastfm", folder=tmp_path / "missing")

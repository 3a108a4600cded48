"""The table, the raw results, and where the table is published."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.rows import Row
from benchmarks.table import BEGIN, END, Results, publish, table

_ROWS = [
    Row("commands", "bare", "/s", (1000.0, 1200.0)),
    Row("commands", "unary", "/s", (700.0, 600.0), "bare", (0.7, 0.5), target=0.6, of_ratio=True),
    Row("ssh", "ssh", "/s", note="there is no sshd"),
    Row("scale", "memory", "MB", (260.0,), target=250, target_is="at most"),
]


def test_the_table_shows_medians_spans_ratios_and_targets() -> None:
    assert table(_ROWS).splitlines()[2:] == [
        "| commands | bare | 1,100/s (1,000 to 1,200) |  |  |  |  |",
        "|  | unary | 650/s (600 to 700) | bare | 0.60 (0.50 to 0.70) | at least 0.6 as ratio | reached |",
        "| ssh | ssh |  |  |  |  | there is no sshd |",
        "| scale | memory | 260 MB |  |  | at most 250 MB | **missed** |",
    ]


def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    results = Results({"cores": "2"}, True, _ROWS)
    results.save(tmp_path / "results.json")
    loaded = Results.load(tmp_path / "results.json")
    assert loaded == results
    assert "A quick run" in loaded.markdown()
    assert "cores: 2" in loaded.markdown()


def test_publishing_replaces_what_is_between_the_markers_alone(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    publish("new", path)
    publish("newer", path)
    assert path.read_text(encoding="utf-8") == f"before\n{BEGIN}\nnewer\n{END}\nafter\n"


def test_a_file_without_markers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text("nothing here\n", encoding="utf-8")
    with pytest.raises(ValueError, match="expected the lines"):
        publish("new", path)
    assert path.read_text(encoding="utf-8") == "nothing here\n"

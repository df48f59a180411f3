"""Outputs are whole or not there."""

from pathlib import Path

import pytest

from stages.files import replacing


def test_replacing_is_all_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out" / "metrics.json"
    with replacing(target) as part:
        part.write_text("old")
    with pytest.raises(IsADirectoryError), replacing(target) as part:  # noqa: PT012 (the block has to fail half-way)
        part.write_text("half")
        tmp_path.read_bytes()
    assert target.read_text() == "old"
    target.with_name(".metrics.json.part").write_text("left by a killed process")
    with replacing(target) as part:
        part.write_text("new")
    assert [path.name for path in target.parent.iterdir()] == ["metrics.json"]
    assert target.read_text() == "new"

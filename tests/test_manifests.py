"""Where manifests are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from uwmlib import manifests
from uwmlib.errors import UwmError

ROOT = Path(__file__).resolve().parents[1]


def test_a_checkout_reads_its_own_manifests():
    path = manifests.manifest_path("paper_values", "table1.csv")
    assert path == ROOT / "data_manifests" / "paper_values" / "table1.csv"
    assert path.is_file()


def test_the_installed_copy_comes_first(tmp_path, monkeypatch):
    package = tmp_path / "uwmlib"
    for folder in (package / "data_manifests", tmp_path / "data_manifests"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(manifests, "PACKAGE", package)
    assert manifests.manifests_dir() == package / "data_manifests"
    (package / "data_manifests").rmdir()
    assert manifests.manifests_dir() == tmp_path / "data_manifests"
    (tmp_path / "data_manifests").rmdir()
    with pytest.raises(UwmError, match="install uwm-book again"):
        manifests.manifests_dir()


def test_a_missing_manifest_is_named():
    with pytest.raises(UwmError, match="'paper_values/table0.csv'"):
        manifests.manifest_path("paper_values", "table0.csv")

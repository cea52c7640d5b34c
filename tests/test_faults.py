"""A short campaign of faults (tests/faults.py): every kind, and flipped bits in files of every sort."""

from __future__ import annotations

import json
import shutil
import sys

import faults
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, mounts small disks")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory, cache):
    """What nobody disturbed; the calls share the compiled programs of the other tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield faults.prepare(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("kind", faults.KINDS)
def test_numbers_keep_their_bits_or_are_refused_by_name(kind, campaign, tmp_path) -> None:
    for number in range(8 if kind.startswith("flip") else 1):
        outcome = faults.trial(campaign, kind, seed=0, number=number, place=tmp_path / str(number))
        if outcome.startswith("skipped"):
            pytest.skip(outcome)
        assert outcome in ("same", "refused")


def test_the_campaign_finds_a_planted_fault(campaign, tmp_path, monkeypatch) -> None:
    """A reader that believes what it reads: each way of looking has to see it."""
    from dlm import sealed

    monkeypatch.setattr(sealed, "read", lambda path: json.loads(path.read_text()))
    shutil.copytree(campaign.finished, tmp_path / "runs")
    folder = next(path.parent for path in (tmp_path / "runs").glob("*/*/result.json"))
    text = (folder / "result.json").read_text()
    (folder / "result.json").write_text(text.replace('"seed": ', '"seed": 1'))
    with pytest.raises(faults.Wrong, match="row"):
        faults._reported(campaign, tmp_path / "runs", folder)

"""The torture run (tests/torture.py) in its short form: every fault once, a few dozen jobs, the same account."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torture import FAULTS, NOTES, Plan, Report, torture


@pytest.fixture
async def report(tmp_path: Path) -> Report:
    """Of a run of some 20 s."""
    plan = Plan(
        seed=1,
        folder=tmp_path,
        chaos_s=0,
        calm_s=0,
        chaos_faults=tuple(name for name in FAULTS if name != "browser stopped"),
        # In a process of the service that lasts long enough to notice it.
        calm_faults=("browser stopped",),
        rounds=("end",),
        outstanding=10,
        grace_s=1,
        settle_s=0.5,
        uncompared=("memory", "threads"),
        late_captures=0,
        fault_gap_s=(0.2, 0.5),
        client_gap_s=(0.2, 0.5),
        hostile_timeouts_ms=(500,),
        megabytes=200,
        # A machine that also runs other tests may be as late.
        cancel_s=5,
        # It grows until all code paths have run once, which takes minutes.
        memory_counts=False,
        # The other tests' browsers have their entries there.
        shared_folders_count=False,
    )
    return await torture(plan)


async def test_nothing_is_lost_and_nothing_leaks(report: Report) -> None:
    assert report.violations == []
    assert {fault.name for fault in report.run.faults} == set(FAULTS)
    assert set(NOTES) <= set(report.run.notes)
    assert {"done", "cancelled", "timeout"} <= {record.outcome for record in report.run.records}

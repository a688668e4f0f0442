import csv
import io
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.cost.anomalies import Detector, Judgement, main
from services.cost.surprise import HISTORY_MAX_ROWS, WARM_UP_ROWS, History

HOUR_S = 3_600
Row = tuple[float, float]


def judged(rows: list[Row]) -> list[Judgement]:
    detector = Detector()
    return [detector.judge(at_s, value) for at_s, value in rows]


def weeks(count: int, *, seed: int = 1, noise_share: float = 0.1) -> list[Row]:
    """Hours of working days and quiet weekends, with noise."""
    noise = random.Random(seed)
    rows = []
    for hour in range(count * 168):
        usual = (10.0 if hour // 24 % 7 < 5 else 4.0) * (2 if 8 <= hour % 24 < 18 else 1)
        rows.append((hour * HOUR_S * 1.0, usual * (1 + noise_share * noise.gauss(0, 1))))
    return rows


series = st.lists(
    st.tuples(st.integers(1, 20_000), st.floats(0, 1e6).map(lambda value: round(value, 2))), min_size=1, max_size=120
)


def timed(steps: list[tuple[int, float]]) -> list[Row]:
    """Irregular rows from gaps in seconds and values."""
    at_s, rows = 0.0, []
    for gap_s, value in steps:
        at_s += gap_s
        rows.append((at_s, value))
    return rows


@given(series, series)
def test_rows_that_follow_never_change_a_judgement(
    past: list[tuple[int, float]], future: list[tuple[int, float]]
) -> None:
    rows = timed(past + future)
    assert judged(rows)[: len(past)] == judged(rows[: len(past)])


@given(series)
def test_scores_are_shares_and_bands_hold_what_is_expected(steps: list[tuple[int, float]]) -> None:
    for judgement in judged(timed(steps)):
        assert 0 <= judgement.score <= 1
        assert judgement.lower <= judgement.expected <= judgement.upper


@given(series, st.sampled_from([2.0**-30, 0.5, 4.0, 2.0**40]))
def test_the_unit_does_not_matter(steps: list[tuple[int, float]], factor: float) -> None:
    rows = timed(steps)
    scaled = judged([(at_s, value * factor) for at_s, value in rows])
    for one, other in zip(judged(rows), scaled, strict=True):
        assert (other.score, other.upper) == (one.score, one.upper * factor)


@pytest.mark.parametrize("value", [0.0, 45.0, -1e-9, 0.1])
def test_a_constant_is_never_an_anomaly(value: float) -> None:
    last = judged([(row * 300.0, value) for row in range(3_000)])
    assert all(judgement.score == 0 for judgement in last)
    assert (last[-1].lower, last[-1].upper) == (value, value)


def test_the_first_change_of_a_constant_is_one() -> None:
    rows = [(row * 300.0, 45.0) for row in range(1_000)]
    assert judged([*rows, (300_000.0, 46.0)])[-1].anomaly


def test_a_spike_scores_at_its_onset_and_is_told_once() -> None:
    rows = weeks(6)
    for hour in range(900, 906):
        rows[hour] = (rows[hour][0], rows[hour][1] + 60)
    found = judged(rows)
    assert found[900].score > 0.6
    assert found[900].upper < rows[900][1]
    assert [hour for hour in range(880, 950) if found[hour].anomaly] == [900]


def test_a_weekday_on_a_weekend_is_found_because_weeks_are_known() -> None:
    rows = weeks(7, noise_share=0.05)
    saturday_noon = 6 * 168 + 5 * 24 + 12
    rows[saturday_noon] = (rows[saturday_noon][0], 20.0)
    judgement = judged(rows)[saturday_noon]
    assert judgement.anomaly
    assert judgement.expected == pytest.approx(8, rel=0.2)
    assert judgement.upper < 20


def test_a_silence_is_found() -> None:
    rows = weeks(6)
    rows[900] = (rows[900][0], 0.0)
    assert judged(rows)[900].anomaly


def test_a_slow_drift_is_found() -> None:
    noise = random.Random(3)
    rows = [(hour * 3_600.0, 100 + noise.gauss(0, 2)) for hour in range(1_000)]
    rows += [(hour * 3_600.0, 100 + (hour - 1_000) * 0.08 + noise.gauss(0, 2)) for hour in range(1_000, 1_250)]
    assert any(judgement.anomaly for judgement in judged(rows)[1_000:])


def test_missing_rows_are_no_anomaly() -> None:
    noise = random.Random(5)
    rows = [row for row in weeks(8) if noise.random() > 0.1 and not 600 < row[0] / HOUR_S < 700]
    found = judged(rows)
    assert sum(judgement.anomaly for judgement in found) <= 4


def test_a_small_season_is_judged_as_it_always_was() -> None:
    rows = weeks(5, seed=9)
    rows[800] = (rows[800][0], 70.0)
    found = judged(rows)
    assert [round(judgement.score, 3) for judgement in found[798:802]] == GOLDEN_SCORES
    assert round(found[800].lower, 2) == GOLDEN_BAND[0]
    assert round(found[800].upper, 2) == GOLDEN_BAND[1]


GOLDEN_SCORES = [0.0, 0.0, 0.691, 0.0]
GOLDEN_BAND = (1.58, 13.39)


@settings(max_examples=20)
@given(st.lists(st.floats(-1e9, 1e9), min_size=WARM_UP_ROWS, max_size=60))
def test_surprise_falls_with_the_share_of_values_that_were_as_large(values: list[float]) -> None:
    history = History()
    for value in values:
        history.add(value)
    surprises = [history.surprise(value) for value in sorted(values)]
    assert surprises == sorted(surprises)
    assert history.surprise(max(values)) == pytest.approx(
        math.log10((len(values) + 1) / (values.count(max(values)) + 1))
    )
    assert history.quantile(0) == min(values)
    assert history.quantile(1) == max(values)


def test_a_history_forgets_the_oldest_values() -> None:
    history = History()
    for value in range(HISTORY_MAX_ROWS + 10):
        history.add(float(value))
    assert history.quantile(0) == 10
    assert History().surprise(1.0) == 0


def run(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main([str(path)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_a_file_is_scored_row_by_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "series.csv"
    lines = [f"2026-11-{1 + row // 24:02d} {row % 24:02d}:00:00,{row % 24}" for row in range(480)]
    path.write_text(
        "timestamp,value\n" + "\n".join([*lines[:400], lines[400].split(",")[0] + ",99", *lines[401:]]) + "\n"
    )
    code, out, err = run(path, capsys)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err, len(rows)) == (0, "", 480)
    assert list(rows[0]) == ["timestamp", "value", "score", "lower", "upper", "anomaly"]
    assert rows[400]["timestamp"] == "2026-11-17 16:00:00"
    assert [row["timestamp"] for row in rows[48:] if row["anomaly"] == "1"] == ["2026-11-17 16:00:00"]
    assert float(rows[400]["upper"]) < 99


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "missing: timestamp, value"),
        ("time,value\n1,2\n", "missing: timestamp"),
        ("timestamp,value\n", "it has no rows"),
        ("timestamp,value\n2026-11-01,x\n", "line 2: the value 'x' is not a number"),
        ("timestamp,value\n2026-11-01,nan\n", "line 2: the value 'nan' is not a finite number"),
        ("timestamp,value\n2026-11-01,1e999\n", "not a finite number"),
        ("timestamp,value\n2026-11-01,\n", "line 2: the value '' is not a number"),
        ("timestamp,value\nnoon,1\n", "line 2: 'noon' is no time"),
        ("timestamp,value\nnan,1\n", "line 2: 'nan' is no time"),
        ("timestamp,value\n2026-11-01\n", "line 2: it has 1 columns"),
        ("timestamp,value\n2026-11-02,1\n2026-11-01,1\n", "line 3: 2026-11-01 is before the rows above it"),
        ("timestamp,value\n7200,1\n3599,1\n", "line 3: 3599 is before the rows above it"),
        ('timestamp,value\n"5,1\n', "columns"),
    ],
)
def test_a_file_that_is_no_series_gets_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    code, out, err = run(path, capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"{path}: ")
    assert message in err
    assert err.count("\n") == 1


def test_an_hour_that_a_clock_shows_twice_is_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "autumn.csv"
    path.write_text(
        "timestamp,value\n2026-10-25 02:30,1\n2026-10-25 02:59,2\n2026-10-25 02:00,3\n\n2026-10-25 03:00,4\n"
    )
    code, out, _ = run(path, capsys)
    assert (code, len(out.splitlines())) == (0, 5)


def test_files_that_cannot_be_read_are_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none.csv", capsys)[2].endswith("it cannot be read: No such file or directory\n")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    assert "it is not UTF-8 text" in run(tmp_path / "binary.csv", capsys)[2]
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "usage" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "timestamp, value, score" in capsys.readouterr().out

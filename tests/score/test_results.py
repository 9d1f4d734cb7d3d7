import json
from dataclasses import replace

import pytest

from litee.errors import InputError
from litee.rundir import Receipt
from litee.score.results import (
    Result,
    is_stale,
    new_result,
    read_result,
    render_results,
    write_result,
)


@pytest.fixture
def result():
    return replace(
        new_result(
            "demo",
            "litee demo --seed 0",
            Receipt(seconds=12.3, tokens=10, peak_rss_mb=500, device="2 | 4 cores"),
            {"seconds": 12.3, "log_loss": 0.91123, "accuracy": 0.58, "floor_log_loss": 1.07},
            intervals={"log_loss": (0.897, 0.925)},
            tables={"probe": [{"layer": 4, "log loss": 1.0213}, {"layer": 20, "log loss": 0.96}]},
            notes="The ties are hard.",
        ),
        date="2026-11-21",
    )


def test_round_trip_and_page(result, tmp_path):
    path = write_result(tmp_path, result)
    assert path == tmp_path / "demo.json"
    assert json.loads(path.read_text())["intervals"] == {"log_loss": [0.897, 0.925]}
    assert read_result(path) == result
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| log_loss | 0.9112 | 0.897 to 0.925 |" in page
    assert "| 4 | 1.021 |" in page and "`litee demo --seed 0`" in page
    assert "2026-11-21; 12 s on" in page and "The ties are hard." in page
    assert "Missing" not in page


def test_page_gets_stale(result, tmp_path):
    assert is_stale(tmp_path)
    path = write_result(tmp_path, result)
    assert not is_stale(tmp_path)
    path.write_text(path.read_text().replace("0.58", "0.99"))
    assert is_stale(tmp_path)


def test_files_are_sorted_and_lacking_metrics_are_named(result, tmp_path):
    write_result(tmp_path, result)
    write_result(tmp_path, replace(result, name="hardening", metrics={"faults": 3}, intervals={}))
    page = render_results(tmp_path)
    assert page.index("## demo") < page.index("## hardening")
    assert "**Missing:** corrupted_loaded, fuzz_inputs, crashes." in page


def test_empty_folder(tmp_path):
    assert "No study has finished yet." in render_results(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Demo 1"}, "small letters"),
        ({"name": "../demo"}, "small letters"),
        ({"command": " "}, "command is empty"),
        ({"date": "21.11.2026"}, "isoformat"),
        ({"metrics": {"log_loss": float("nan")}}, "finite number"),
        ({"metrics": {"log_loss": "low"}}, "finite number"),
        ({"metrics": {"log_loss": True}}, "finite number"),
        ({"intervals": {"nothing": (0.0, 1.0)}}, "no metric of that name"),
        ({"intervals": {"log_loss": (1.0, 0.0)}}, "low <= high"),
        ({"receipt": {"seconds": 1}}, "receipt lacks peak_rss_mb, seed"),
    ],
)
def test_schema_is_checked(result, change, message):
    with pytest.raises(ValueError, match=message):
        replace(result, **change)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"name": "demo"}', "null"],
)
def test_broken_files_name_place_and_fix(text, tmp_path):
    (tmp_path / "demo.json").write_text(text)
    with pytest.raises(InputError, match="fix: run the command") as error:
        render_results(tmp_path)
    assert "demo.json" in error.value.place


def test_renamed_file_is_refused(result, tmp_path):
    write_result(tmp_path, result).rename(tmp_path / "other.json")
    with pytest.raises(InputError, match="holds the result 'demo'"):
        read_result(tmp_path / "other.json")


def test_wrong_types_inside_a_file(result, tmp_path):
    path = write_result(tmp_path, result)
    record = json.loads(path.read_text()) | {"intervals": {"log_loss": 3}}
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"demo\.json"):
        read_result(path)


def test_result_is_what_its_fields_say():
    receipt = Receipt().to_json()
    assert Result("x", "c", "2026-01-01", receipt, {}).missing_metrics == ()


def test_many_figures_become_a_grid_of_the_best(result, tmp_path):
    few = {f"m{k}.{f}": k / 100 for k in range(40) for f in ("odd", "decisive_accuracy")}
    few |= {"people.decisive_accuracy": 0.75, "length.decisive_accuracy": 0.01}
    ends = {"m39.decisive_accuracy": (-0.1, 0.5)}
    write_result(tmp_path, replace(result, metrics=few, intervals=ends, tables={}))
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "|--" not in line]
    assert rows[:2] == ["| | decisive_accuracy |", "| m39 | 0.39 [-0.1, 0.5] |"]
    assert rows[-3:] == ["| m27 | 0.27 |", "| length | 0.01 |", "| people | 0.75 |"]
    assert f"{82 - 15} more figures are in [demo.json](demo.json)." in page


def test_of_losses_the_smallest_come_first_and_the_base_arm_stays(result, tmp_path):
    arms = {f"arm{k}.{f}": 1 + k / 100 for k in range(40) for f in ("log_loss", "ece")}
    arms |= {"base.log_loss": 1.3, "base.ece": 0.1}
    write_result(tmp_path, replace(result, metrics=arms, intervals={}, tables={}))
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and "|--" not in line]
    assert rows[:3] == ["| | log_loss | ece |", "| arm0 | 1 | 1 |", "| arm1 | 1.01 | 1.01 |"]
    assert rows[-2:] == ["| arm13 | 1.13 | 1.13 |", "| base | 1.3 | 0.1 |"]


def test_a_number_in_a_name_does_not_break_it(result, tmp_path):
    kept = {f"{s}.probe-q{k}.5-0.5b_log_loss": k for s in ("one", "two") for k in range(9)}
    kept |= {f"{n}.ece": 0.1 for n in ("5", "5m.arm")}
    write_result(tmp_path, replace(result, metrics=kept, intervals={}, tables={}))
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    names = next(line for line in page.splitlines() if line.startswith("| | one |"))
    assert names == "| | one | two | 5 | 5m.arm |"
    assert "| probe-q8.5-0.5b_log_loss | 8 | 8 |  |  |" in page


def test_few_names_with_many_figures_are_columns(result, tmp_path):
    grid = {f"{s}.f{k}": k for s in ("one", "two") for k in range(15)}
    write_result(tmp_path, replace(result, metrics=grid, intervals={}, tables={}))
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| | one | two |" in page and "| f14 | 14 | 14 |" in page and "more figures" not in page


def test_headlines_and_required_figures_come_before_others(result, tmp_path):
    metrics = {**{f"other_{k}": k for k in range(30)}, **result.metrics}
    write_result(tmp_path, replace(result, metrics=metrics))
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| other_10 | 10 |" in page and "| other_11 |" not in page
    assert "| floor_log_loss | 1.07 |" in page and "19 more figures" in page


def test_tables_are_folded_and_long_ones_named(result, tmp_path):
    tables = {"a & b": [{"k": 1}, {"k": 2}], "long": [{"k": k} for k in range(21)], "empty": []}
    write_result(tmp_path, replace(result, tables=tables))
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (
        "<details>\n<summary>a &amp; b</summary>\n\n| k |\n|---|\n| 1 |\n| 2 |\n\n</details>"
        in page
    )
    assert "Tables in [demo.json](demo.json): long." in page

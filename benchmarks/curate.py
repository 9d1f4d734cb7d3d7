"""Time and memory of curating many demonstrations.

    python benchmarks/curate.py --rows 100000 --out results/curate.json

The demonstrations are made up: prompts of 8 to 40 words and answers of 60 to 500 words out of 400
vocabularies, every fifth a repeat of an earlier prompt with one word changed. Each number of rows
is curated in a process of its own, once at a tenth and once at all of them, since memory must not
grow faster than the rows.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from litee.rundir import Receipt, cpu_name, versions
from litee.score.results import new_result, write_result

_TOPICS = 400
_MAIN = "from litee.cli import main; main()"


def write_demonstrations(path: Path, rows: int) -> None:
    """Made-up demonstrations of about 2,000 characters, on 400 topics of 60 words each."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghilmnoprstuv"))
    words = ["".join(rng.choice(letters, rng.integers(3, 10))) for _ in range(_TOPICS * 60 + 2000)]
    vocabulary = np.array(words, dtype=object)
    prompts: list[list[str]] = []
    with path.open("w", encoding="utf-8") as handle:
        for row in range(rows):
            topic = int(rng.integers(_TOPICS))
            own = vocabulary[topic * 60 : topic * 60 + 60]
            if row % 5 == 4:
                prompt = list(prompts[int(rng.integers(len(prompts)))])
                prompt[int(rng.integers(len(prompt)))] = str(rng.choice(own))
            else:
                prompt = [str(w) for w in rng.choice(own, rng.integers(8, 40))]
                if len(prompts) < 20_000:
                    prompts.append(prompt)
            count = int(rng.integers(60, 500))
            shared = vocabulary[-2000:]
            answer = [str(w) for w in rng.choice(np.concatenate([own, shared[:300]]), count)]
            messages = [
                {"role": "user", "content": " ".join(prompt) + "?"},
                {"role": "assistant", "content": " ".join(answer) + "."},
            ]
            source = f"source{topic % 7}"
            line = {"id": f"d{row}", "messages": messages, "source": source}
            handle.write(json.dumps(line) + "\n")


def curate_once(rows: int, n: int, folder: Path) -> dict[str, float]:
    demos, out = folder / f"demos{rows}.jsonl", folder / f"out{rows}" / "chosen.jsonl"
    against = folder / "evaluation.txt"
    write_demonstrations(demos, rows)
    against.write_text("\n".join(f"What is the best way to do thing {k}?" for k in range(300)))
    command = [sys.executable, "-c", _MAIN, "curate", str(demos), "--n", str(n), "--json"]
    command += ["--out", str(out), "--against", str(against), "--max-per-source", str(n // 5)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    summary = json.loads(done.stdout)
    found = summary["receipt"]
    return {
        "seconds": found["seconds"],
        "peak_rss_mb": found["peak_rss_mb"],
        "usable": summary["usable"],
        "input_mb": round(demos.stat().st_size / 1e6, 1),
        "chosen_distance": summary["comparison"]["chosen"]["distance"],
        "random_distance": summary["comparison"]["random"]["distance"],
        "chosen_repeats": summary["comparison"]["chosen"]["repeats"],
        "random_repeats": summary["comparison"]["random"]["repeats"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path("results/curate.json"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        small = curate_once(max(options.rows // 10, options.n * 2), options.n, Path(name))
        large = curate_once(options.rows, options.n, Path(name))
    metrics = {"rows": float(options.rows), "n": float(options.n), **large}
    metrics["demonstrations_per_second"] = round(options.rows / large["seconds"], 1)
    metrics["tenth_seconds"] = small["seconds"]
    metrics["tenth_peak_rss_mb"] = small["peak_rss_mb"]
    receipt = Receipt(device=cpu_name(), versions=versions())
    receipt.seconds, receipt.peak_rss_mb = large["seconds"], large["peak_rss_mb"]
    command = shlex.join(["python", *sys.argv])
    notes = "Made-up demonstrations of about 2,000 characters; tfidf vectors, facility location."
    result = new_result(options.out.stem, command, receipt, metrics, notes=notes)
    write_result(options.out.parent, result)
    for key, value in metrics.items():
        print(f"{key}: {value:,}")


if __name__ == "__main__":
    main()

"""GPT-4, a fitted judge, its reward, length and a local language model against MT-Bench's votes.

    python experiments/agreement/mt_bench.py --data ../shared/data --llm-pairs 60

Needs `votes/mt_bench_human.jsonl.gz` and `judge_verdicts/mt_bench_gpt4_pair.jsonl.gz` in DATA, and
the judge of `litee study experiments/mt_bench_transfer_larger.yaml`, or another one as --judge.
Every step leaves a file in WORK and is left out when it is there, so a stopped run goes on; a
language model's verdicts are kept one by one. Writes results/agreement_mt_bench.json. `--pairs N`
tries the first N pairs and writes no results file. `--llm-pairs N` asks the language model about N
pairs drawn at random; the others then have no score from it.
"""

from __future__ import annotations

import argparse
import gzip
import random
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent

TEXT = "length,words,distinct_1,distinct_2,repetition"
#: The local language model: half of the default text, as it runs on a CPU.
LLM_SETTINGS = "model: smollm2-135m-instruct\nmax_text_tokens: 256\ndtype: auto\n"
METRICS = f"gpt4,judge,judge.reward,llm,llm.verdict,{TEXT}"
NOTES = (
    "GPT-4's verdicts are those published with the votes (pair judge, both orders; inconsistent "
    "ones count as ties). The judge was fitted on other sources and has not seen MT-Bench. llm is "
    "the geometric mean of a local model's label probabilities over both orders, in which a taste "
    "for a place cancels; llm.verdict its verdict by LIMA's rule: orders that differ are a tie."
)
DRAWN = (
    " It was asked about {count} of the pairs, drawn at random; the others have no score from it."
)


def step(out: Path, *command: str | Path) -> None:
    """Run a command unless its output is there."""
    if out.exists():
        sys.stderr.write(f"{out} is there\n")
        return
    run(*command)


def run(*command: str | Path) -> None:
    """Run a command, said first; stop when it fails."""
    words = [str(word) for word in command]
    sys.stderr.write(f"$ {shlex.join(words)}\n")
    code = subprocess.run(words, check=False).returncode
    if code:
        sys.exit(code)


def first_pairs(votes: Path, work: Path, count: int) -> Path:
    """The votes file, or its first pairs in a file of their own."""
    if not count:
        return votes
    out = work / f"first-{count}.jsonl.gz"
    with gzip.open(votes, "rt", encoding="utf-8") as lines:
        with gzip.open(out, "wt", encoding="utf-8") as few:
            few.writelines(line for number, line in enumerate(lines) if number < count)
    return out


def drawn_pairs(votes: Path, work: Path, count: int) -> Path:
    """The votes file, or some of its pairs, drawn at random, in a file of their own."""
    if not count:
        return votes
    out = work / f"drawn-{count}.jsonl.gz"
    with gzip.open(votes, "rt", encoding="utf-8") as lines:
        every = list(lines)
    kept = sorted(random.Random(0).sample(range(len(every)), min(count, len(every))))
    with gzip.open(out, "wt", encoding="utf-8") as some:
        some.writelines(every[number] for number in kept)
    return out


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """Parsed options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--judge", type=Path, default=Path("runs/mt_bench_transfer_larger"))
    parser.add_argument("--work", type=Path, default=Path("runs/agreement_mt_bench"))
    parser.add_argument("--llm-config", type=Path, help="Settings of another language model.")
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--llm-pairs", type=int, default=0)
    parser.add_argument("--threads", default="0")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Make the tables, then compare them."""
    options = arguments(given)
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    votes = first_pairs(options.data / "votes/mt_bench_human.jsonl.gz", work, options.pairs)
    verdicts = options.data / "judge_verdicts/mt_bench_gpt4_pair.jsonl.gz"
    gpt4, judge, texts, llm = (
        work / name for name in ("gpt4.csv", "judge.jsonl", "texts.csv", "llm.csv")
    )
    litee = [sys.executable, "-c", "from litee.cli import main; main()"]
    threads = ["--threads", options.threads]
    step(gpt4, sys.executable, HERE / "prepare.py", "mt-bench", verdicts, votes, gpt4)
    step(texts, *litee, "score", votes, "--pairs", "--metrics", TEXT, "--out", texts)
    step(judge, *litee, "predict", options.judge, votes, "--out", judge, *threads)
    settings = options.llm_config or work / "llm.yaml"
    if options.llm_config is None:
        settings.write_text(LLM_SETTINGS, encoding="utf-8")
    asked = ["--pairs", "--metrics", "pairwise", "--llm-config", settings]
    some = drawn_pairs(votes, work, options.llm_pairs)
    step(llm, *litee, "score", some, *asked, "--out", llm, *threads)
    receipts = [word for file in (texts, llm) for word in ("--receipts", f"{file}.receipt.json")]
    title = "MT-Bench: which judge agrees with people?"
    notes = NOTES + DRAWN.format(count=options.llm_pairs) * bool(options.llm_pairs)
    results = [] if options.pairs else ["--result", "agreement_mt_bench", "--notes", notes]
    run(
        *litee, "agree", f"gpt4={gpt4}", f"judge={judge}", f"llm={llm}", texts, "--votes", votes,
        "--metrics", METRICS, "--lower", "repetition", *receipts, "--title", title,
        "--out", work / "page", *results,
    )  # fmt: skip


if __name__ == "__main__":
    main()

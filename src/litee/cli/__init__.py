"""The command line: parses, calls, prints. Nothing here imports torch before a verb needs it."""

from __future__ import annotations

import sys

import typer

from litee.cli import (
    agree,
    audit,
    chat,
    compare,
    curate,
    data,
    demonstrations,
    doctor,
    evaluate,
    export_reward,
    fit,
    generate,
    index,
    plan,
    posts,
    predict,
    raft,
    rank,
    score,
    serve,
    study,
    tune,
    tune_raft,
    tune_rewards,
    vote,
)
from litee.errors import EXIT_INTERRUPTED, EXIT_MODEL, LiteeError

#: Which extra brings a module that the core does without.
_EXTRAS = {
    **dict.fromkeys(
        ("torch", "transformers", "peft", "safetensors", "huggingface_hub", "trl", "datasets"),
        "train",
    ),
    **dict.fromkeys(("bm25s", "pypdf"), "documents"),
    **dict.fromkeys(("praw", "prawcore", "py3langid"), "reddit"),
    **dict.fromkeys(("markdownify", "py7zr"), "dumps"),
    **dict.fromkeys(("bert_score", "nltk", "rouge_score", "sacrebleu", "krippendorff"), "score"),
    **dict.fromkeys(("httpx2", "tenacity"), "score"),
    **dict.fromkeys(
        (
            "fastapi",
            "prometheus_client",
            "uvicorn",
            "sqlalchemy",
            "psycopg",
            "nh3",
            "markdown_it",
            "multipart",
            "pygments",
        ),
        "serve",
    ),
    "ragas": "ragas",
    "bitsandbytes": "cuda",
}

app = typer.Typer(
    name="litee",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn human votes (A better / B better / tie) into a calibrated judge.",
)
app.command()(fit.fit)
app.command()(plan.plan)
app.command()(predict.predict)
app.command()(evaluate.evaluate)
app.add_typer(data.app, name="data")
data.app.command()(demonstrations.demonstrations)
data.app.command()(posts.posts)
app.command()(curate.curate)
app.add_typer(index.app, name="index")
app.add_typer(raft.app, name="raft")
app.command()(score.score)
app.command()(agree.agree)
app.command()(rank.rank)
app.command()(compare.compare)
app.command()(audit.audit)
app.command()(study.study)
app.add_typer(tune.app, name="tune")
for tuning in (tune_raft.raft, tune_rewards.dpo, tune_rewards.grpo, tune_rewards.rloo):
    tune.app.command()(tuning)
app.command()(export_reward.export_reward)
app.command()(generate.generate)
app.command()(chat.chat)
app.command()(serve.serve)
app.command()(vote.vote)
app.command()(doctor.doctor)

#: Verb → how to go on after an interruption.
_HINTS = {
    "fit": "; run the same command with --resume to go on",
    "generate": "; run the same command with --resume to go on",
    "curate": "; run the same command again to go on",
    "study": "; run the same command again to go on",
    "vote": "; the votes are kept; run `litee vote` again to go on",
    "tune": "; run the same command with --resume to go on",
}


def main() -> None:
    """Entry point of the `litee` command.

    Exit codes: 0 done; 2 wrong settings or arguments; 3 unusable input; 4 unusable model;
    5 out of disk, memory or time; 130 interrupted.
    """
    try:
        app()
    except LiteeError as error:
        sys.stderr.write(f"litee: {error}\n")
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        fix = f'pip install "lora-litee[{extra}]"'
        sys.stderr.write(f"litee: this needs {error.name}, which is missing\n  fix: {fix}\n")
        sys.exit(EXIT_MODEL)
    except (KeyboardInterrupt, SystemExit) as stop:
        # typer turns Ctrl-C into a silent exit
        if isinstance(stop, SystemExit) and stop.code != EXIT_INTERRUPTED:
            raise
        hint = _HINTS.get(" ".join(sys.argv[1:2]), "")
        sys.stderr.write(f"litee: interrupted{hint}\n")
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)

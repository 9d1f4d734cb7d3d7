"""Studies of demonstrations: does quality, diversity or quantity matter, on one's own data?

A small model is tuned on every arm's demonstrations, answers the same prompts, and judges that
share no votes compare the answers; where prompts bring rules along, the rules are checked. This is
the ablation of LIMA (Zhou et al., 2023, arXiv 2305.11206, section 5). Knows nothing of command
lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from litee.config import FitSettings
from litee.errors import ConfigError, InputError
from litee.finetune.backbones import find_backbone
from litee.finetune.device import use_threads
from litee.progress import console
from litee.rundir import write_json
from litee.score.comparison import SystemComparison, compare_systems
from litee.score.comparison_page import (
    ComparisonPage,
    choose_samples,
    headline,
    plots,
    write_comparison_page,
)
from litee.score.comparison_pairs import Meetings, meet
from litee.score.demonstration_arms import (
    Answers,
    Chosen,
    Learnt,
    Source,
    answer,
    choose,
    digest_of,
    read_source,
    reasons_in_words,
    tune,
)
from litee.score.demonstration_judges import (
    Asking,
    NamedJudge,
    VotesPart,
    backbones_of,
    check_part,
    divide,
    find_judge,
    fit_part,
)
from litee.score.demonstration_prompts import Asked, read_asked
from litee.score.demonstration_result import Done, Findings, make_result, mark_lines
from litee.score.demonstration_settings import DemonstrationPlan
from litee.score.outcomes import Floats
from litee.score.rules import check_answers
from litee.score.study_fit import find
from litee.score.study_settings import Studied
from litee.score.study_store import SHARED, Store


@dataclass(frozen=True, slots=True)
class _Files:
    """Where a study's input lies: name in the study → file found."""

    prompts: Mapping[str, Path]
    votes: Mapping[str, Path]
    demonstrations: Mapping[str, Path]

    def inputs(self, judges: Sequence[NamedJudge]) -> dict[str, str]:
        """Name of each input → SHA-256; of a folder, one line per file."""
        found: dict[str, str] = {}
        for given, path in {**self.prompts, **self.votes, **self.demonstrations}.items():
            name = path.name if Path(given).is_absolute() else given
            digest = digest_of(path)
            if isinstance(digest, Mapping):
                found |= {f"{name}/{file}": str(one) for file, one in digest.items()}
            else:
                found[name] = str(digest)
        return found | {f"judge {j.name}": j.digest for j in judges if not j.metrics}


def run_demonstrations(
    plan: DemonstrationPlan, *, folder: Path, out: Path, data: Path, command: str
) -> Studied:
    """Run a study of demonstrations, or go on with it.

    Everything is read, and all demonstrations are chosen, before the first judge is fitted and the
    first model tuned.

    Args:
        plan: what to do, checked.
        folder: the study file's folder.
        out: gets the pages; beside it, in `demonstrations`, lies what other studies may use.
        data: folder of the files that are not beside the study.
        command: the command that makes the results again.

    Raises:
        ConfigError: nothing would be measured, or quotas cannot be met.
        InputError: a file is missing or unusable, or too few demonstrations can be used.
        ModelError: a model or judge is missing or cannot be used.
    """
    use_threads(plan.study.threads)
    store = Store(out.parent / SHARED, out)
    files = _find_files(plan, folder, data)
    asked = _asked(plan, files, store)
    finished = {
        name: find_judge(name, given, (folder, data, Path()))
        for name, given in plan.judges.items()
        if isinstance(given, str)
    }
    parts = _parts(plan, files)
    _find_backbones(plan)
    read = _read(plan, files, store)
    chosen = _choose(plan, read, asked, store)
    judges = []
    for name, given in plan.judges.items():
        if isinstance(given, str):
            judges.append(finished[name])
        else:
            _say(f"judge {name}: {parts[name].words}")
            judges.append(fit_part(name, given, parts[name], store, command=command))
    done = _answer(plan, chosen, asked, store)
    compared, seconds = _compare(plan, judges, done, store, out=out, command=command)
    marks = None
    if asked.rules:
        answered = {d.arm.name: d.answers.file for d in done}
        marks = check_answers(answered, asked.rules, seed=plan.study.seed)
    findings = Findings(
        plan.study, plan.against, done, judges, compared, marks, asked, read, seconds
    )
    made = make_result(findings, inputs=files.inputs(judges), command=command)
    drawn = [plot for one in compared.values() for plot in plots(one) if plot is not None]
    lines = [headline(one) for one in compared.values()]
    return Studied(made, {}, tuple(drawn), (*lines, *mark_lines(findings)))


def _find_files(plan: DemonstrationPlan, folder: Path, data: Path) -> _Files:
    study = plan.study
    return _Files(
        {study.prompts: find(study.prompts, folder, data, what="prompts file")},
        {name: find(name, folder, data) for name in study.votes},
        {name: find(name, folder, data, what="demonstrations") for name in plan.reading},
    )


def _asked(plan: DemonstrationPlan, files: _Files, store: Store) -> Asked:
    study = plan.study
    system = plan.arms[0].answers.system
    asked = read_asked(
        files.prompts[study.prompts],
        turns=study.turns,
        every=study.every,
        system=system,
        store=store,
    )
    if not plan.judges and not asked.rules:
        raise ConfigError(
            "no judge is named, and the prompts have no rules: nothing would be compared",
            place=study.name,
            fix="name judges, or give the prompts `malice` or `must`",
        )
    _say(f"{len(asked.prompts):,} prompts, {len(asked.rules):,} of them with a rule")
    if asked.left_out:
        _say(f"prompts left out: {reasons_in_words(asked.left_out)}")
    return asked


def _parts(plan: DemonstrationPlan, files: _Files) -> dict[str, VotesPart]:
    """Judge → the votes it learns from; all are checked."""
    fitted = {n: given for n, given in plan.judges.items() if isinstance(given, FitSettings)}
    found = divide(list(files.votes.values()), len(fitted), seed=plan.study.seed)
    parts = dict(zip(fitted, found, strict=True))
    for name, settings in fitted.items():
        check_part(parts[name], settings, f"{plan.study.name}, judge {name}")
    return parts


def _find_backbones(plan: DemonstrationPlan) -> None:
    """Refuse a model that is missing, of an arm or of a judge."""
    names = [arm.tuning.backbone for arm in plan.arms]
    for given in plan.judges.values():
        names += backbones_of(given) if isinstance(given, FitSettings) else ()
    for name in dict.fromkeys(names):
        find_backbone(name)


def _read(plan: DemonstrationPlan, files: _Files, store: Store) -> dict[str, Source]:
    read = {}
    for name, path in files.demonstrations.items():
        read[name] = read_source(path, plan.reading[name], store)
        _say(f"{name}: {read[name].words}")
    return read


def _choose(
    plan: DemonstrationPlan, read: Mapping[str, Source], asked: Asked, store: Store
) -> dict[str, Chosen]:
    chosen = {}
    for arm in plan.arms:
        if not arm.demonstrations:
            continue
        own = [read[name].file for name in arm.demonstrations]
        try:
            found = choose(arm, own, asked.file, store)
        except (ConfigError, InputError) as error:  # names files of the store
            place = f"{plan.study.name}, arm {arm.name} ({', '.join(arm.demonstrations)})"
            raise type(error)(error.problem, place=place, fix=error.fix) from error
        chosen[arm.name] = found
        shares = ", ".join(f"{count:,} of {name}" for name, count in found.sources.items())
        refused = f"; not used: {reasons_in_words(found.refused)}" if found.refused else ""
        _say(f"arm {arm.name}: {shares}{refused}")
    return chosen


def _answer(
    plan: DemonstrationPlan, chosen: Mapping[str, Chosen], asked: Asked, store: Store
) -> tuple[Done, ...]:
    """Tune and ask one arm after the other."""
    done = []
    for arm in plan.arms:
        learnt: Learnt | None = None
        if arm.name in chosen:
            _say(f"arm {arm.name}: tuning")
            learnt = tune(arm, chosen[arm.name], store)
        answers: Answers = answer(arm, learnt, asked.prompts, store)
        _say(
            f"arm {arm.name}: {answers.stop_rate:.1%} of the answers ended by the model, "
            f"{answers.characters:,.0f} characters on average"
        )
        done.append(Done(arm, chosen.get(arm.name), learnt, answers))
    return tuple(done)


def _compare(
    plan: DemonstrationPlan,
    judges: Sequence[NamedJudge],
    done: Sequence[Done],
    store: Store,
    *,
    out: Path,
    command: str,
) -> tuple[dict[str, SystemComparison], float]:
    """Arm → its comparison with the arm that all are compared with; seconds of judging."""
    if not judges:
        return {}, 0.0
    files = {d.arm.name: d.answers.file for d in done}
    others = [name for name in files if name != plan.against]
    base = files[plan.against]
    met = {name: meet(files[name], base, (name, plan.against)) for name in others}
    use_threads(plan.study.threads)  # an arm's tuning may have had settings of its own
    told: dict[str, dict[str, Floats]] = {name: {} for name in others}
    seconds = 0.0
    for judge in judges:  # one is in memory at a time
        asking = Asking(judge, store)
        for name in others:
            _say(f"arm {name} against {plan.against}: asking {judge.name}")
            found = asking.verdicts(met[name].pairs, (files[name], base))
            told[name][judge.name] = found.probabilities
            seconds += found.seconds
    compared = {}
    for name in others:
        compared[name] = _compared(
            met[name], told[name], out / name, seed=plan.study.seed, command=command
        )
    return compared, seconds


def _compared(
    met: Meetings, told: Mapping[str, Floats], folder: Path, *, seed: int, command: str
) -> SystemComparison:
    """Figures of a comparison; its page and `comparison.json` go into the folder."""
    found = compare_systems(met.pairs, told, names=met.names, groups=met.groups, seed=seed)
    write_json(folder / "comparison.json", {**found.to_json(), "command": command})
    samples = choose_samples(met.pairs, next(iter(told.values())))
    page = ComparisonPage(found, samples, met.dropped, command)
    write_comparison_page(page, folder / "comparison.html")
    return found


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)

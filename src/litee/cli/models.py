"""Opens what `litee score` needs beside files: judging language models, judges, encoders.

Chooses between a local model and an endpoint; knows nothing of answers and scores.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from litee.config import load_settings
from litee.errors import ConfigError
from litee.score.llm_judge_settings import LlmJudgeSettings

if TYPE_CHECKING:
    from litee.predict.labels import LabelModel
    from litee.score.llm_judge_engine import CachedJudge, JudgeEngine, VerdictStore
    from litee.score.metric_names import Chosen
    from litee.score.retrieval_writers import StoredWriter, Writer
    from litee.score.texts import TextMetric


def llm_settings(config: Path | None, model: str, url: str) -> LlmJudgeSettings:
    """Settings from a file and from --llm and --llm-url.

    Raises:
        ConfigError: a setting is unknown or wrong.
    """
    given = {"model": model or None, "base_url": url or None}
    return load_settings(LlmJudgeSettings, config, given)


def local_model(settings: LlmJudgeSettings, name: str = "") -> LabelModel:
    """A local model at full depth: the one named, else that of the settings.

    Raises:
        ModelError: it cannot be loaded.
    """
    from litee.finetune.device import choose_device, choose_dtype
    from litee.predict.labels import LabelModel

    device = choose_device(settings.device)
    return LabelModel(
        name or settings.model,
        dtype=choose_dtype(settings.dtype, device),
        device=device.type,
        max_text_tokens=settings.max_text_tokens,
    )


def open_judge(settings: LlmJudgeSettings) -> CachedJudge:
    """The model that judges, its verdicts kept on disk.

    Raises:
        ConfigError: no model is named.
        ModelError: it cannot be loaded.
    """
    _need_model(settings)
    from litee.score.llm_judge_engine import CachedJudge

    return CachedJudge(_engine(settings), _store(settings))


def _need_model(settings: LlmJudgeSettings) -> None:
    if not settings.model:
        fix = "name one: --llm smollm2-135m-instruct, or --llm NAME --llm-url http://host/v1"
        raise ConfigError("these metrics need a language model that judges", fix=fix)


def _store(settings: LlmJudgeSettings) -> VerdictStore | None:
    from litee.finetune.backbones import cache_folder
    from litee.score.llm_judge_engine import VerdictStore

    return VerdictStore(cache_folder() / "verdicts" / "v1.sqlite") if settings.store else None


def _engine(settings: LlmJudgeSettings) -> JudgeEngine:
    if settings.base_url:
        from litee.score.endpoint_judge import open_endpoint

        return open_endpoint(settings)
    return local_model(settings)


def single_metrics(
    chosen: Chosen, settings: LlmJudgeSettings, *, judge: str, perplexity_model: str
) -> list[TextMetric]:
    """Perplexity and reward, as far as they are among the columns.

    Raises:
        ConfigError: a model or judge is not named.
        ModelError: it cannot be loaded.
    """
    made: list[TextMetric] = []
    if "perplexity" in chosen.columns:
        from litee.score.perplexity import Perplexity

        made.append(Perplexity(local_model(settings, perplexity_model)))
    if "reward" in chosen.columns:
        from litee.predict.judge import Judge
        from litee.score.reward import Reward

        if not judge:
            fix = "name a folder made by litee fit: --judge DIR"
            raise ConfigError("reward needs a judge", fix=fix)
        made.append(Reward(Judge.from_pretrained(judge)))
    return made


def retrieval_metrics(
    columns: tuple[str, ...], settings: LlmJudgeSettings, encoder: str
) -> tuple[TextMetric, StoredWriter]:
    """The metrics of the ragas library, and the model that writes for them.

    Raises:
        ConfigError: no model is named.
        ModelError: it cannot be loaded.
    """
    _need_model(settings)
    from litee.score.neural import SentenceEncoder
    from litee.score.retrieval_metrics import Retrieval
    from litee.score.retrieval_writers import StoredWriter

    writer = StoredWriter(_writer(settings), _store(settings))
    return Retrieval(columns, writer, lambda: SentenceEncoder(encoder)), writer


def _writer(settings: LlmJudgeSettings) -> Writer:
    if settings.base_url:
        from litee.score.endpoint import Endpoint
        from litee.score.retrieval_writers import EndpointWriter

        return EndpointWriter(Endpoint(settings))
    from litee.score.retrieval_local import LocalWriter

    return LocalWriter(settings)

"""Which figures of a results file are shown first, and in what words.

The README shows only these, results/README.md begins with them. Knows nothing of files and pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatch

#: Result → metric (a name or a pattern) → words. What stands before the dot of a metric that a
#: pattern finds is put before the words.
HEADLINES: Mapping[str, Mapping[str, str]] = {
    "agreement_dstc9": {
        "bertscore_r.decisive_accuracy": "decisive pairs: BERTScore recall",
        "chrf.decisive_accuracy": "chrF",
        "rouge1.decisive_accuracy": "ROUGE-1",
        "length.decisive_accuracy": "length",
        "people.decisive_accuracy": "one rater, against the two others",
    },
    "agreement_hanna": {
        "BERTScore Recall.spearman_item": "Spearman with the mean rating: BERTScore recall",
        "chrF.spearman_item": "chrF",
        "ROUGE-1 F-Score.spearman_item": "ROUGE-1",
        "people.spearman_item": "one rater with the other two",
    },
    "agreement_mt_bench": {
        "gpt4.pairwise_accuracy": "three-way: GPT-4",
        "judge.pairwise_accuracy": "our judge",
        "llm.pairwise_accuracy": "SmolLM2-135M",
        "length.pairwise_accuracy": "length",
        "people.pairwise_accuracy": "two people",
    },
    "ablations": {
        "base.source_log_loss": "log loss, mean of the sources: all members",
        "only-smollm2.source_log_loss": "SmolLM2 alone",
        "only-gemma.source_log_loss": "Gemma 3 alone",
        "only-qwen.source_log_loss": "Qwen 2.5 Coder alone",
        "three-backbones.source_log_loss": "all three backbones",
        "only-statistics.source_log_loss": "text statistics alone",
        "no-lengths.source_log_loss": "lengths not read",
        "weight-pair.source_log_loss": "pairs instead of prompts weighted equally",
    },
    "annotators": {
        "base.log_loss": "LLMFAO's crowd: log loss, votes counted equally",
        "agreement.log_loss": "by their annotators' agreement",
        "agreement.log_loss_difference": "difference",
    },
    "agreement_travel": {
        "bertscore_f1.spearman_item": "Spearman with GPT-4's yes-rates: BERTScore F1",
        "similarity.spearman_item": "similarity",
        "rouge1.spearman_item": "ROUGE-1",
        "length.spearman_item": "length",
        "faithfulness_ragas.spearman_item": "Ragas faithfulness",
    },
    "best_of_n": {
        "win_rate": "best of 8 against one sample, asked of an independent judge",
        "win_rate_length_controlled": "at equal length",
        "judge.reward_8": "deviations gained in the eyes of the judge that chose",
        "independent.reward_8": "in those of the independent one",
    },
    "budgets": {
        "2m.ensemble.log_loss": "2 minutes: log loss, text statistics are all that fits",
        "5m.ensemble.log_loss": "5 minutes: two small backbones, one of which fits",
        "5m.larger.log_loss": "a larger one",
        "10m.ensemble.log_loss": "10 minutes: two",
        "10m.larger.log_loss": "one",
        "10m.larger.log_loss_difference": "one less two",
        "60m.ensemble.log_loss": "an hour: two",
        "60m.larger.log_loss": "one",
        "60m.larger.log_loss_difference": "one less two",
    },
    "curate": {
        "seconds": "seconds for 100,000 demonstrations",
        "peak_rss_mb": "peak memory, MB",
        "tenth_peak_rss_mb": "for 10,000",
    },
    "demo": {
        "log_loss": "log loss",
        "floor_log_loss": "best floor",
        "accuracy": "accuracy",
        "seconds": "seconds",
    },
    "distillation": {
        "base.log_loss": "PandaLM, finished judges on held-out prompts: log loss of one backbone",
        "ensemble.log_loss": "two",
        "ensemble-half.log_loss": "one that learnt from the two",
        "gpt35-half.log_loss": "from GPT-3.5",
        "average.log_loss": "branches averaged into one",
        "average.seconds_per_1000_pairs": "seconds for 1,000 pairs",
        "base.seconds_per_1000_pairs": "not averaged",
    },
    "dpo": {
        "win_rate": "win rate over the untuned model, asked of an independent judge",
        "win_rate_length_controlled": "at equal length",
        "reward.win_rate": "asked of the judge that rewarded",
        "seconds": "seconds of tuning",
        "sampling_seconds": "of sampling",
    },
    "encoding": {
        "base.source_log_loss": "two sources, one backbone: log loss of answers apart",
        "joint.source_log_loss": "of one sequence",
        "tree-and-joint.source_log_loss": "of both",
        "tokens-128.source_log_loss": "128 tokens",
        "depth-30.source_log_loss": "all layers",
    },
    "engine_cpu": {
        "train_speedup_pairjudge": "training, times faster than pairjudge",
        "predict_speedup_pairjudge": "prediction, times faster",
        "ensemble5_train_ratio": "training five members costs, times one",
        "ensemble5_predict_ratio": "predicting with five, times one",
    },
    "grpo": {
        "win_rate": "win rate over the untuned model, asked of an independent judge",
        "win_rate_length_controlled": "at equal length",
        "reward.win_rate": "asked of the judge that rewarded",
        "seconds": "seconds of tuning",
    },
    "in_source": {"*.log_loss": "log loss"},
    "lima_diversity": {
        "win_rate": "demonstrations of two sources against one: win rate",
        "win_rate_length_controlled": "at equal length",
    },
    "lima_format": {
        "format.form_kept": "thirteen demonstrations of keeping to a form: answers that do",
        "seeds.form_kept": "without them",
        "difference.form_kept": "difference",
    },
    "lima_multiturn": {
        "win_rate": "thirty dialogues among the demonstrations against none: win rate",
        "win_rate_length_controlled": "at equal length",
    },
    "lima_preferred": {
        "win_rate": "answers that people preferred as demonstrations: win rate over the base model",
        "win_rate_length_controlled": "at equal length",
        "stop_rate": "answers that end by themselves",
    },
    "lima_quality": {
        "win_rate": "chosen demonstrations against random ones: win rate",
        "win_rate_length_controlled": "at equal length",
    },
    "lima_quantity": {
        "win_rate": "twice as many demonstrations, as many steps: win rate",
        "win_rate_length_controlled": "at equal length",
    },
    "lima_safety": {
        "safety.refused_explicit": "thirteen demonstrations of refusing: plainly harmful, refused",
        "seeds.refused_explicit": "without them",
        "safety.refused_implicit": "hiddenly harmful, refused",
        "safety.refused_none": "harmless, refused",
    },
    "lima_sft": {
        "win_rate": "win rate over the base model, asked of an independent judge",
        "win_rate_length_controlled": "at equal length",
        "llm.win_rate": "asked of a local language model",
        "stop_rate": "answers that end by themselves",
        "seconds": "seconds of tuning",
    },
    "lima_strong": {
        "win_rate": "strong systems' answers as demonstrations: win rate over the base model",
        "win_rate_length_controlled": "at equal length",
        "llm.win_rate": "asked of a local language model",
        "stop_rate": "answers that end by themselves",
        "seconds": "seconds of tuning",
    },
    "lima_strong_wide": {
        "win_rate": "the same, 248 prompts: win rate over the base model",
        "win_rate_length_controlled": "at equal length",
        "llm.win_rate": "asked of a local language model",
        "stop_rate": "answers that end by themselves",
        "seconds": "seconds of tuning",
    },
    "learning_curve": {
        "*.source_log_loss": "pairs: log loss, mean of the sources",
        "4342.floor_source_log_loss": "best floor",
    },
    "lora_litee": {
        "log_loss": "MT-Bench: log loss",
        "accuracy": "accuracy",
        "bound_log_loss": "with MT-Bench's own votes: log loss",
        "bound_accuracy": "accuracy",
        "larger_less_ensemble": "10 minutes on PandaLM: one larger backbone less two small ones",
        "litee_log_loss": "1,000 votes: log loss",
        "pairjudge_log_loss": "pairjudge's",
        "pairjudge_time_ratio": "whose training takes, times ours",
    },
    "lengths": {
        "no-lengths.source_log_loss": "whole sources held out, mean log loss: one set of weights",
        "together.source_log_loss": "lengths read, one set",
        "base.source_log_loss": "tastes for length and ties of their own",
        "base.log_loss_difference": "difference",
        "larger.source_log_loss": "one backbone of 0.5B instead of two small ones",
        "three.source_log_loss": "all three",
    },
    "levers": {
        "no-lora.log_loss": "PandaLM, one backbone: log loss of its probe",
        "base.log_loss": "with LoRA on two layers",
        "layers-4.log_loss": "on four",
        "epochs-3.log_loss": "three passes",
        "batches-of-one-rate-1e-3.log_loss": "a step per batch at 1e-3",
    },
    "attention_pooling": {
        "base.log_loss": "PandaLM, one backbone: log loss, means of states",
        "attention.log_loss": "means weighted by attention",
        "attention.log_loss_difference": "difference",
    },
    "modes": {
        "base.log_loss": "PandaLM: log loss of the chat model, asked as it is",
        "chat-few-shot.log_loss": "after solved examples",
        "chat-tuned-verdict.log_loss": "tuned to answer",
        "chat-tuned-head.log_loss": "tuned under a head",
        "base-zero-shot.log_loss": "base model: asked",
        "base-few-shot.log_loss": "after solved examples",
        "base-tuned-verdict.log_loss": "tuned to answer",
        "base-tuned-head.log_loss": "tuned under a head",
    },
    "depths": {
        "base.source_log_loss": "log loss, mean of the sources: one depth per backbone",
        "shallower.source_log_loss": "a shallower one",
        "several.source_log_loss": "two per backbone",
        "several-hard-labels.source_log_loss": "two, from the majority's verdict",
    },
    "prompt_seen": {
        "base.source_log_loss": "two sources, one backbone: log loss with the prompt",
        "hidden.source_log_loss": "without",
        "hidden.log_loss_difference": "difference over all votes",
    },
    "mt_bench_bound": {
        "mt_bench_human.log_loss": "with the test source's own votes: log loss",
        "mt_bench_human.accuracy": "accuracy",
        "mt_bench_human.ece": "ECE",
        "mt_bench_human.system_names_log_loss": "the systems' names alone: log loss",
        "mt_bench_human.system_names_accuracy": "accuracy",
    },
    "mt_bench_transfer": {
        "log_loss": "log loss",
        "prior_log_loss": "constant prediction",
        "statistics_log_loss": "text statistics",
        "accuracy": "accuracy",
        "gpt4_accuracy": "GPT-4's accuracy",
    },
    "mt_bench_transfer_larger": {
        "log_loss": "one backbone of 0.5B, sources with tastes of their own: log loss",
        "prior_log_loss": "constant prediction",
        "accuracy": "accuracy",
        "ece": "ECE",
    },
    "mt_bench_transfer_lengths": {
        "log_loss": "two small backbones, sources with tastes of their own: log loss",
        "accuracy": "accuracy",
        "ece": "ECE",
    },
    "mt_bench_transfer_together": {
        "log_loss": "two small backbones, the same settings without such tastes: log loss",
        "accuracy": "accuracy",
        "ece": "ECE",
    },
    "mt_bench_transfer_three": {
        "log_loss": "three backbones, sources with tastes of their own: log loss",
        "accuracy": "accuracy",
        "ece": "ECE",
    },
    "mt_bench_transfer_apart": {
        "log_loss": "with a head per source and equal weights: log loss",
        "statistics_log_loss": "text statistics",
        "accuracy": "accuracy",
        "ece": "ECE",
    },
    "mt_bench_transfer_depths": {
        "log_loss": "with two depths per backbone: log loss",
        "accuracy": "accuracy",
        "ece": "ECE",
    },
    "mt_bench_transfer_effects": {
        "log_loss": "with deviations of the sources' own: log loss",
        "prior_log_loss": "constant prediction",
        "accuracy": "accuracy",
        "ece": "ECE",
    },
    "mt_bench_transfer_lora": {
        "log_loss": "with LoRA on two layers: log loss",
        "accuracy": "accuracy",
        "ece": "ECE",
    },
    "ranking": {
        "mt_bench_human.speedup_evalica": "1,000 resamples, times faster than evalica: MT-Bench",
        "guanaco_vicuna80.speedup_evalica": "guanaco",
        "llmfao.speedup_evalica": "llmfao",
        "pandalm.speedup_evalica": "pandalm",
    },
    "retrieval": {
        "hybrid.recall_at_5": "recall@5, both joined",
        "embeddings.recall_at_5": "by meaning",
        "bm25.recall_at_5": "by words",
        "index_seconds": "seconds to index 100,000 chunks",
    },
    "serve": {
        "votes_lost": "votes lost of 20,000",
        "votes_doubled": "doubled",
        "p95_ms": "95 % acknowledged within, ms: SQLite",
        "postgres_p95_ms": "PostgreSQL",
        "kill_votes_lost": "votes lost in 200 kills",
        "server_errors": "server errors in 10,000 hostile requests",
    },
    "text_metrics": {
        "answers_per_second": "answers a second through all text metrics",
        "peak_rss_growth_mb": "MB that 100,000 answers take more than 1,000",
    },
    "sources": {
        "base.source_log_loss": "whole sources held out, mean log loss: one head for all others",
        "apart.source_log_loss": "a head for each",
        "effects.source_log_loss": "deviations of their own",
        "only-statistics.source_log_loss": "text statistics alone: one head",
        "only-statistics-apart.source_log_loss": "a head for each source",
        "only-endings.source_log_loss": "of how answers end only",
    },
    "travel": {
        "smollm2.raft_less_base.retrieved.token_f1": "token F1 with retrieved documents, SmolLM2: "
        "RAFT over base",
        "smollm2.raft_less_lora.retrieved.token_f1": "RAFT over LoRA without documents in training",
        "smollm2.raft_dpo_less_raft.retrieved.token_f1": "a small DPO over RAFT",
        "smollm2.raft.k8_less_k0.token_f1": "RAFT with eight distractors over none",
        "gemma.raft_less_base.retrieved.token_f1": "Gemma 3: RAFT over base",
        "gemma.raft_less_lora.retrieved.token_f1": "over LoRA",
    },
    "travel_metrics": {
        "max_abs_error_rouge1": "largest deviation from the published table: ROUGE-1",
        "max_abs_error_rougeL": "ROUGE-L",
        "max_abs_error_bleu": "BLEU",
        "max_abs_error_bertscore_f1": "BERTScore",
        "max_abs_error_dot_golden": "similarity",
    },
}


def headlines(name: str, metrics: Mapping[str, float]) -> dict[str, str]:
    """Metric → words for what is shown of a result, in order.

    Without an entry in `HEADLINES`: people and the three metrics with the best accuracy on pairs,
    else log loss and accuracy, else the first four.

    Args:
        name: of the result.
        metrics: that it has.

    >>> headlines("in_source", {"pandalm.log_loss": 0.7, "pandalm.accuracy": 0.6})
    {'pandalm.log_loss': 'pandalm log loss'}
    >>> headlines("other", {"log_loss": 0.7, "seconds": 3})
    {'log_loss': 'log loss'}
    """
    known = HEADLINES.get(name, {})
    found = {
        metric: f"{metric.partition('.')[0]} {words}" if "*" in pattern else words
        for pattern, words in known.items()
        for metric in metrics
        if fnmatch(metric, pattern)
    }
    if found:
        return found
    best = _best(metrics)
    if best:
        return best
    usual = [metric for metric in ("log_loss", "accuracy") if metric in metrics]
    return {metric: metric.replace("_", " ") for metric in usual or list(metrics)[:4]}


def _best(metrics: Mapping[str, float]) -> dict[str, str]:
    """Accuracy on pairs of people and the three best metrics; empty without such figures."""
    found = {
        name: value
        for name, value in metrics.items()
        if name.endswith(".pairwise_accuracy") and not name.startswith(("people.", "chance."))
    }
    best = sorted(found, key=lambda name: -found[name])[:3]
    people = [name for name in ("people.pairwise_accuracy",) if name in metrics]
    shown = [*people, *best] if best else []
    return {name: f"{name.partition('.')[0]}, accuracy on pairs" for name in shown}

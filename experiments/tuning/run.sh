#!/usr/bin/env bash
# One tuning experiment from data to results file; run it again to go on where it stopped.
#
#   bash experiments/tuning/run.sh judges | sft_smollm2 | sft_gemma | dpo | grpo
#
# DATA (default ../shared/data) holds the votes and demonstrations; RUNS (default runs/tuning) takes
# the runs. `judges` must come first: one judge to tune with, one of other votes and another
# backbone to test with.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=experiments/tuning
data=${DATA:-../shared/data}
runs=${RUNS:-runs/tuning}
what=${1:?judges, sft_smollm2, sft_gemma, dpo or grpo}
litee=${LITEE:-litee}
python=${PYTHON:-python}
mkdir -p "$runs"

if [[ $what == judges ]]; then
  $litee fit "$data/votes/pandalm.jsonl.gz" "$data/votes/llmfao.jsonl.gz" --out "$runs/judge" \
    --backbone smollm2-135m-instruct --members statistics,probe --depth 20 --max-tokens 512 --resume
  $litee fit "$data/votes/guanaco_vicuna80.jsonl.gz" "$data/votes/lfqa_experts.jsonl.gz" \
    --out "$runs/independent" --backbone gemma-3-270m --members statistics,probe --depth 12 \
    --max-tokens 512 --resume
  exit
fi

[[ -f $runs/prompts/test.jsonl ]] || $python $here/prompts.py "$data" "$runs/prompts"
base=$(sed -n 's/^backbone: //p' "$here/$what.yaml")
case $what in
  sft_*)
    [[ -f $runs/demonstrations.jsonl ]] || $litee data demonstrations \
      "$data/demonstrations/self_instruct_seed_tasks.jsonl.gz" --out "$runs/demonstrations.jsonl"
    $litee tune sft "$runs/demonstrations.jsonl" --config "$here/$what.yaml" \
      --judge "$runs/judge" --out "$runs/$what" --resume ;;
  dpo)
    $litee tune dpo --prompts "$runs/prompts/train.jsonl" --judge "$runs/judge" \
      --config $here/dpo.yaml --out "$runs/dpo" --resume ;;
  grpo)
    $litee tune grpo "$runs/prompts/train.jsonl" --judge "$runs/judge" \
      --independent "$runs/independent" --config $here/grpo.yaml --out "$runs/grpo" --resume ;;
  *)
    echo "unknown experiment: $what" >&2
    exit 2 ;;
esac

against=$runs/$what/against_base
mkdir -p "$against"
$litee generate "$runs/prompts/test.jsonl" --backbone "$base" --name base --max-new-tokens 256 \
  --out "$against/base.jsonl" --resume
$litee generate "$runs/prompts/test.jsonl" --backbone "$base" --adapter "$runs/$what/adapter" \
  --name tuned --max-new-tokens 256 --out "$against/tuned.jsonl" --resume
$litee compare "$against/tuned.jsonl" "$against/base.jsonl" --out "$against"
$litee score "$against/pairs.jsonl" --pairs --metrics pairwise --llm smollm2-135m-instruct \
  --out "$against/llm.csv"
$litee compare "$against/tuned.jsonl" "$against/base.jsonl" --out "$against" \
  --judge "independent=$runs/independent" --judge "reward=$runs/judge" \
  --verdicts "llm=$against/llm.csv"
name=$what
[[ $what == sft_smollm2 ]] && name=lima_sft
[[ $what == sft_gemma ]] && name=lima_sft_gemma
$python $here/record.py "$name" "$runs/$what" "$against"

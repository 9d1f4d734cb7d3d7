#!/usr/bin/env bash
# The travel comparison of one base model, from knowledge base to answers; run it again to go on.
#
#   bash experiments/travel/run.sh smollm2-135m-instruct | gemma-3-270m
#
# DATA (default ../shared/data/travel) holds DSTC11; RUNS (default runs/travel) takes the runs.
# TRAIN_ROWS, TEST_TURNS, RANKED set the sizes. `bash experiments/travel/record.sh` then scores all
# answers that are there and writes results/travel.json.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=experiments/travel
data=${DATA:-../shared/data/travel}/dstc11
runs=${RUNS:-runs/travel}
base=${1:?smollm2-135m-instruct or gemma-3-270m}
litee=${LITEE:-litee}
python=${PYTHON:-python}
rows=$runs/rows
part=$runs/subset
own=$runs/$(basename "$base")
mkdir -p "$own"

[[ -f $rows/report.json ]] || $litee raft build "$data/knowledge.json.gz" \
  --labels "$data/val_labels.json.gz" --logs "$data/val_logs.json.gz" \
  --config $here/rows.yaml --embeddings --out "$rows" --resume
[[ -f $part/test.curve.jsonl ]] || $python $here/subset.py "$rows" "$part" \
  --train "${TRAIN_ROWS:-240}" --validation 16 --test "${TEST_TURNS:-60}" --ranked "${RANKED:-48}"
[[ -d $own/raft ]] || $litee raft check "$part/train.jsonl" "$part/train.plain.jsonl" \
  "$part/ranked.rows.jsonl" --test "$part/test.main.jsonl"

tune() { # method, rows
  [[ -f $own/$1/receipt.json ]] || $litee tune sft "$part/$2.jsonl" \
    --dev "$part/validation${2#train}.jsonl" --backbone "$base" --config $here/sft.yaml \
    --out "$own/$1" --resume
}

answer() { # method, test file, most tokens, further options of litee generate
  local method=$1 test=$2 most=$3 out=$own/$1.$2
  shift 3
  [[ -f $out.jsonl ]] || $litee generate "$part/test.$test.jsonl" --preset greedy --dtype bfloat16 \
    --max-batch 32 --max-new-tokens "$most" --name "$method" --out "$out.jsonl" --resume "$@"
  [[ -f $out.clean.jsonl ]] || $litee raft answers "$out.jsonl" --test "$part/test.$test.jsonl" \
    --out "$out.clean.jsonl"
}

three() { # test file: the base model, its plainly tuned form, its RAFT form
  answer base "$1" 80 --backbone "$base" --system "$(cat $here/instruction.txt)"
  answer plain "$1" 80 --backbone "$base" --adapter "$own/plain/adapter"
  answer raft "$1" 144 --backbone "$base" --adapter "$own/raft/adapter"
}

tune raft train
tune plain train.plain
three main
three curve

# preferences: the RAFT model's own samples, ranked by what people answered
[[ -d $own/merged ]] || $litee tune merge "$own/raft" --out "$own/merged"
[[ -f $own/samples.jsonl ]] || $litee generate "$part/ranked.jsonl" --backbone "$own/merged" \
  --dtype bfloat16 --preset plain --temperature 0.9 --top-p 0.95 --samples 4 --max-batch 32 \
  --max-new-tokens 144 --name sampled --out "$own/samples.jsonl" --resume
[[ -f $own/pairs.jsonl ]] || $python $here/rank.py "$own/samples.jsonl" "$part/ranked.jsonl" \
  "$own/pairs.jsonl"
[[ -f $own/dpo/receipt.json ]] || $litee tune dpo "$own/pairs.jsonl" --backbone "$own/merged" \
  --config $here/dpo.yaml --out "$own/dpo" --resume
answer dpo main 144 --backbone "$own/merged" --adapter "$own/dpo/adapter"

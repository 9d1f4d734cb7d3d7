#!/usr/bin/env bash
# Scores all answers of the travel comparison and writes results/travel.json and its figures.
#
#   bash experiments/travel/record.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
runs=${RUNS:-runs/travel}
litee=${LITEE:-litee}
python=${PYTHON:-python}
for own in "$runs"/*/; do
  compgen -G "$own*.clean.jsonl" > /dev/null || continue
  cat "$runs"/subset/first.*.jsonl "$own"*.clean.jsonl > "$own/answers.all"
  if ! cmp -s "$own/answers.all" "$own/scored.all"; then
    mv "$own/answers.all" "$own/answers.jsonl"
    $litee score "$own/answers.jsonl" --metrics text,similarity,similarity_prompt,bertscore \
      --out "$own/scores.csv"
    cp "$own/answers.jsonl" "$own/scored.all"
  fi
done
$python experiments/travel/record.py "$runs"

#!/usr/bin/env bash
# Tuning experiments from data to results files; run it again to go on where it stopped.
#
#   bash experiments/tuning/run.sh best_of_n | sft_gemma | sft_smollm2 | quality | dpo | grpo | all
#
# DATA (default ../shared/data) holds votes and demonstrations; RUNS (default runs/tuning) takes the
# runs; THREADS (default 2) compute threads. Before all of them come two judges that share neither
# votes nor backbone: the votes of four sources are halved by prompt, one half trains the judge that
# rewards, the other the judge that is asked. LITEE and PYTHON name the programs.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=experiments/tuning
data=${DATA:-../shared/data}
runs=${RUNS:-runs/tuning}
threads=${THREADS:-2}
what=${1:?best_of_n, sft_gemma, sft_smollm2, quality, dpo, grpo or all}
litee=${LITEE:-litee}
python=${PYTHON:-python}
export OMP_NUM_THREADS=$threads TOKENIZERS_PARALLELISM=false
mkdir -p "$runs"

if [[ $what == all ]]; then
  for one in best_of_n sft_gemma dpo quality grpo sft_smollm2; do bash "$0" "$one"; done
  exit
fi
mkdir -p "$runs/$what"
trap 'times > "$runs/$what/times"; tail -n 1 "$runs/$what/times" >> "$runs/$what/cpu.txt"' EXIT # of this session

[[ -d $runs/votes ]] || $litee data split "$data"/votes/{pandalm,guanaco_vicuna80,llmfao,lfqa_experts}.jsonl.gz \
  --test 0.5 --out "$runs/votes"
[[ -f $runs/judge/receipt.json ]] || $litee fit "$runs/votes/train.jsonl" --out "$runs/judge" --resume \
  --backbone smollm2-135m-instruct --members probe --depth 24 --threads "$threads"
[[ -f $runs/independent/receipt.json ]] || $litee fit "$runs/votes/test.jsonl" --out "$runs/independent" \
  --backbone gemma-3-270m --members probe --depth 10 --threads "$threads" --resume
[[ -f $runs/prompts/test.jsonl ]] || $python $here/prompts.py "$data" "$runs/prompts"

# answer NAME BACKBONE [OPTIONS]: the test prompts' answers of a system
answer() {
  local file=$runs/answers/$1.jsonl
  mkdir -p "$runs/answers"
  [[ -f $file ]] || $litee generate "$runs/prompts/test.jsonl" --backbone "$2" --name "$1" --max-new-tokens 160 \
    --threads "$threads" --out "$file" --resume "${@:3}"
}

# compared FIRST SECOND FOLDER: by the independent judge, the rewarding one and a language model
compared() {
  local first=$runs/answers/$1.jsonl second=$runs/answers/$2.jsonl
  mkdir -p "$3"
  $litee compare "$first" "$second" --out "$3" --names "$1,$2"
  $litee score "$3/pairs.jsonl" --pairs --metrics pairwise --llm smollm2-135m-instruct --out "$3/llm.csv"
  $litee compare "$first" "$second" --out "$3" --names "$1,$2" --judge "independent=$runs/independent" \
    --judge "reward=$runs/judge" --verdicts "llm=$3/llm.csv"
}

# sft NAME DEMONSTRATIONS CONFIG [OPTIONS]: a run of its own
sft() {
  $litee tune sft "$2" --config "$here/$3.yaml" --out "$runs/$1/run" --threads "$threads" --resume "${@:4}"
}

seeds=$runs/seeds.jsonl
[[ -f $seeds ]] || $litee data demonstrations "$data/demonstrations/self_instruct_seed_tasks.jsonl.gz" --out "$seeds"
base=$(sed -n 's/^backbone: //p' "$here/$what.yaml" 2>/dev/null || true)
case $what in
  best_of_n)
    $python benchmarks/best_of_n.py "$runs/prompts/train.jsonl" --judge "$runs/judge" \
      --independent "$runs/independent" --limit 80 --samples "${SAMPLES:-32}" --max-new-tokens "${TOKENS:-96}" \
      --temperature 0.9 --top-p 0.95 --repetition-penalty 1.1 --dtype bfloat16 --threads "$threads" \
      --work "$runs/best_of_n"
    exit ;;
  sft_*)
    sft "$what" "$seeds" "$what" --judge "$runs/judge" ;;
  quality) # as many demonstrations, chosen or random, as many steps
    base=gemma-3-270m
    [[ -f $runs/travel.jsonl ]] || $litee data demonstrations "$data/travel/dstc11" --out "$runs/travel.jsonl"
    for strategy in facility random; do
      chosen=$runs/quality/$strategy.jsonl
      [[ -f $chosen ]] || $litee curate "$seeds" "$runs/travel.jsonl" --n 96 --strategy $strategy --out "$chosen" \
        --against "$runs/prompts/test.jsonl" --max-chars 1200
      sft "quality/$strategy" "$chosen" quality
      answer "$strategy" $base --adapter "$runs/quality/$strategy/run/adapter"
    done
    compared facility random "$runs/quality/compared"
    $python $here/record.py lima_quality "$runs/quality/facility/run" "$runs/quality/compared" \
      "$runs/answers/facility.jsonl" "$runs/quality/cpu.txt"
    exit ;;
  dpo) # on the model's own samples, the judge's best against its worst
    [[ -f $runs/dpo/samples.jsonl ]] || $litee generate "$runs/prompts/train.jsonl" --backbone "$base" \
      --best-of 4 --judge "$runs/judge" --all --preset plain --temperature 0.9 --top-p 0.95 --max-new-tokens 96 \
      --dtype bfloat16 --max-batch 64 --threads "$threads" --name sampled --out "$runs/dpo/samples.jsonl" --resume
    $litee tune dpo --answers "$runs/dpo/samples.jsonl" --config $here/dpo.yaml \
      --out "$runs/dpo/run" --threads "$threads" --resume ;;
  grpo)
    $litee tune grpo "$runs/prompts/train.jsonl" --judge "$runs/judge" --independent "$runs/independent" \
      --config $here/grpo.yaml --out "$runs/grpo/run" --threads "$threads" --resume ;;
  *)
    echo "unknown experiment: $what" >&2
    exit 2 ;;
esac

answer "$base" "$base"
answer "$what" "$base" --adapter "$runs/$what/run/adapter"
compared "$what" "$base" "$runs/$what/compared"
name=$what
[[ $what == sft_gemma ]] && name=lima_sft
[[ $what == sft_smollm2 ]] && name=lima_sft_smollm2
$python $here/record.py "$name" "$runs/$what/run" "$runs/$what/compared" "$runs/answers/$what.jsonl" "$runs/$what/cpu.txt"

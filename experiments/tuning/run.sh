#!/usr/bin/env bash
# Tuning experiments from data to results files; run it again to go on where it stopped.
#
#   bash experiments/tuning/run.sh EXPERIMENT
#
# EXPERIMENT is best_of_n, sft_gemma, sft_preferred, sft_strong, sft_smollm2, dpo, grpo or all, which also runs the studies
# of demonstrations, experiments/lima_*.yaml (`litee study FILE` runs one of them).
#
# DATA (default ../shared/data) holds votes and demonstrations; RUNS (default runs/tuning) takes the
# runs; THREADS (default 2) compute threads. Before all of them come two judges that share neither
# votes nor backbone: the votes of four sources are halved by prompt, one half trains the judge that
# rewards, the other the judge that is asked. ANSWERS (default 1) is how often every system answers a prompt;
# PROMPTS (default test) which prompts those with long answers get: test, or wide, with the seed tasks.
# LITEE and PYTHON name the programs.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=experiments/tuning
data=${DATA:-../shared/data}
runs=${RUNS:-runs/tuning}
threads=${THREADS:-2}
what=${1:?an experiment, as named above, or all}
litee=${LITEE:-litee}
python=${PYTHON:-python}
export OMP_NUM_THREADS=$threads TOKENIZERS_PARALLELISM=false
mkdir -p "$runs"

if [[ $what == all ]]; then
  for one in best_of_n sft_gemma sft_preferred sft_strong dpo grpo sft_smollm2; do bash "$0" "$one"; done
  for study in experiments/lima_*.yaml; do $litee study "$study" --data "$data"; done
  exit
fi
mkdir -p "$runs/$what"
trap 'times > "$runs/$what/times"; tail -n 1 "$runs/$what/times" >> "$runs/$what/cpu.txt"' EXIT # of this session

[[ -d $runs/votes ]] || $litee data split "$data"/votes/{pandalm,guanaco_vicuna80,llmfao,lfqa_experts}.jsonl.gz \
  --test 0.5 --out "$runs/votes"
[[ -f $runs/judge/receipt.json ]] || $litee fit "$runs/votes/train.jsonl" --out "$runs/judge" --resume \
  --backbone smollm2-135m-instruct --members probe --no-answer-length --calibration temperature --depth 24 --threads "$threads"
[[ -f $runs/independent/receipt.json ]] || $litee fit "$runs/votes/test.jsonl" --out "$runs/independent" \
  --backbone gemma-3-270m --members probe --no-answer-length --calibration temperature --depth 10 --threads "$threads" --resume
[[ -f $runs/prompts/wide.jsonl ]] || $python $here/prompts.py "$data" "$runs/prompts"

# answer NAME BACKBONE [OPTIONS]: a system's answers to the test prompts, long ones when its name ends so
answer() {
  local file=$runs/answers/$1.jsonl prompts=$runs/prompts/test.jsonl samples=${ANSWERS:-1} length=160 many=()
  [[ $1 != *.long ]] || { length=512 prompts=$runs/prompts/${PROMPTS:-test}.jsonl; }
  [[ $samples == 1 && $length -lt 512 ]] || many=(--dtype auto --max-batch 80)
  mkdir -p "$runs/answers"
  [[ -f $file ]] || $litee generate "$prompts" --backbone "$2" --name "$1" --max-new-tokens "$length" \
    --samples "$samples" --threads "$threads" --out "$file" --resume "${many[@]}" "${@:3}"
}

# compared FIRST SECOND FOLDER: by the independent judge and the rewarding one
compared() {
  $litee compare "$runs/answers/$1.jsonl" "$runs/answers/$2.jsonl" --out "$3" --names "$1,$2" \
    --judge "independent=$runs/independent" --judge "reward=$runs/judge" "${@:4}"
}

# asked FIRST SECOND FOLDER: as compared, and a language model is asked too
asked() {
  $litee compare "$runs/answers/$1.jsonl" "$runs/answers/$2.jsonl" --out "$3" --names "$1,$2"
  $litee score "$3/pairs.jsonl" --pairs --metrics pairwise --llm smollm2-135m-instruct --out "$3/llm.csv"
  compared "$1" "$2" "$3" --verdicts "llm=$3/llm.csv"
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
      --independent "$runs/independent" --limit 160 --samples "${SAMPLES:-32}" --max-new-tokens "${TOKENS:-96}" \
      --temperature 0.9 --top-p 0.95 --repetition-penalty 1.1 --dtype bfloat16 --threads "$threads" \
      --work "$runs/best_of_n"
    exit ;;
  sft_preferred) # on what people preferred, of the votes that the independent judge has not seen
    preferred=$runs/preferred.jsonl
    [[ -f $preferred ]] || $litee data demonstrations "$runs/votes/train.jsonl" --format votes \
      --config $here/preferred.yaml --out "$preferred"
    mkdir -p "$runs/chosen"
    [[ -f $runs/chosen/preferred.jsonl ]] || $litee curate "$preferred" --n 100 --quality score \
      --min-chars 150 --max-chars 900 --against "$runs/prompts/test.jsonl" --out "$runs/chosen/preferred.jsonl"
    sft "$what" "$runs/chosen/preferred.jsonl" "$what" --judge "$runs/judge" ;;
  sft_strong) # on long answers of strong systems; both sides may answer as long
    strong=$runs/strong.jsonl
    [[ -f $strong ]] || $litee data demonstrations "$runs/votes/train.jsonl" --format votes \
      --config $here/strong.yaml --out "$strong"
    mkdir -p "$runs/chosen"
    [[ -f $runs/chosen/strong.jsonl ]] || $litee curate "$strong" --config $here/strong_chosen.yaml \
      --against "$runs/prompts/wide.jsonl" --out "$runs/chosen/strong.jsonl"
    sft "$what" "$runs/chosen/strong.jsonl" "$what"
    for name in "$what" "$base"; do
      adapter=()
      [[ $name == "$what" ]] && adapter=(--adapter "$runs/$what/run/adapter")
      answer "$name.long" "$base" "${adapter[@]}"
    done
    asked "$what.long" "$base.long" "$runs/$what/compared"
    recorded=lima_strong
    [[ ${PROMPTS:-test} == test ]] || recorded=lima_strong_$PROMPTS
    $python $here/record.py "$recorded" "$runs/$what/run" "$runs/$what/compared" "$runs/answers/$what.long.jsonl" "$runs/$what/cpu.txt"
    exit ;;
  sft_*)
    sft "$what" "$seeds" "$what" --judge "$runs/judge" ;;
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
asked "$what" "$base" "$runs/$what/compared"
name=$what
[[ $what == sft_gemma ]] && name=lima_sft
[[ $what == sft_preferred ]] && name=lima_preferred
[[ $what == sft_smollm2 ]] && name=lima_sft_smollm2
$python $here/record.py "$name" "$runs/$what/run" "$runs/$what/compared" "$runs/answers/$what.jsonl" "$runs/$what/cpu.txt"

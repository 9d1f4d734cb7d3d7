#!/usr/bin/env bash
# One command for a machine with an NVIDIA GPU: measures, goes on where it was stopped, and writes
# results/engine_gpu.json. Needs a CUDA build of torch and: pip install "lora-litee[cuda]".
# Without a GPU it says so and exits with 5. To try it anywhere:
#   bash benchmarks/gpu.sh --tiny --device cpu --rows /tmp/rows --out /tmp/gpu
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
[ -x "$python" ] || python=python3
exec "$python" -m benchmarks.gpu "$@"

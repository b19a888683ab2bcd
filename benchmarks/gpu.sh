#!/usr/bin/env bash
# gpu.sh OUT [SECONDS]: what minutes on a lent GPU are worth, most important first; ends by itself.
#
# Every step writes into OUT as soon as it has something, so that a cut loses nothing: log.txt (one file,
# since few may come back), the tracked weights of `tiny` with their measures (weights.py), and small.tar.gz
# (tables and figures of the scale `small`, as far as they got). Each step has a share of the SECONDS (default
# 540) and is stopped at its end.
#
# Tried without a GPU: GPU_DEVICE=cpu GPU_SCALE=smoke GPU_CLIPS=24 benchmarks/gpu.sh /tmp/out 600
set -uo pipefail
out=${1:?usage: gpu.sh OUT [SECONDS]} total=${2:-540}
device=${GPU_DEVICE:-cuda} scale=${GPU_SCALE:-small}
cd "$(dirname "$0")/.." && mkdir -p "$out" && out=$(cd "$out" && pwd)
begun=$(date +%s)
left() { echo $((total - $(date +%s) + begun)); }
export OMP_WAIT_POLICY=PASSIVE GEOMEM_GPU_TESTS=$device PYTHONUNBUFFERED=1
say() { echo "[$(($(date +%s) - begun)) s] $*"; }
# step NAME SECONDS COMMAND...: never longer than what is left
step() {
  local name=$1 seconds=$2; shift 2
  local rest; rest=$(left); [ "$seconds" -gt "$rest" ] && seconds=$rest
  [ "$seconds" -lt 5 ] && { say "$name: no time left"; return 1; }
  say "$name: at most $seconds s"
  timeout --kill-after=10 "$seconds" "$@"
  local code=$?; say "$name: exit $code"; return $code
}

python3 -c 'import torch; print("card:", torch.cuda.get_device_name() if torch.cuda.is_available() else "none")'

# Clips and features of the tracked weights are made meanwhile: the cores have nothing else to do.
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
{ python3 benchmarks/weights.py render "$work" ${GPU_CLIPS:+--clips "$GPU_CLIPS" --windows 256} &&
  python3 benchmarks/weights.py cache "$work" --processes $(($(nproc) * 3 / 4)); } >> "$out/log.txt" 2>&1 &
preparing=$!

step tests $((total / 5)) python3 -m pytest -q -m gpu -p no:cacheprovider \
  tests/gpu tests/unit/test_scenes_render.py 2>&1 | tee -a "$out/log.txt" | tail -n 5

{ step networks $((total / 8)) python3 benchmarks/networks.py --scale "$scale" --device "$device"
  step renderer $((total / 10)) python3 benchmarks/render.py --device "$device"; } \
  2>&1 | tee -a "$out/log.txt"

# The tracked weights: what time is left is theirs.
if wait $preparing; then
  for part in base memory; do
    share=$(($(left) - 5)); [ $part = base ] && share=$(($(left) * 2 / 5))
    step $part "$share" python3 benchmarks/weights.py $part "$work" "$out" $((share - 5)) --device "$device" \
      2>&1 | tee -a "$out/log.txt" | tail -n 5
  done
fi

# The scale's tables, as far as they get; what is finished is packed.
if command -v snakemake > /dev/null && [ "$(left)" -gt 30 ]; then
  step "scale $scale" $(($(left) - 20)) snakemake --quiet rules --keep-going --config "scale=$scale" only=main \
    >> "$out/log.txt" 2>&1
  tar -czf "$out/small.tar.gz" --exclude checkpoints --exclude rollouts "results/$scale" 2> /dev/null
fi
say "done; in $out: $(cd "$out" && ls | tr '\n' ' ')"

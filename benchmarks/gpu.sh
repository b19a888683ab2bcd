#!/usr/bin/env bash
# gpu.sh OUT [SECONDS]: what minutes on a lent GPU are worth, most important first; ends by itself.
#
# Every step writes into OUT as soon as it has something, so that a cut loses nothing: tests.txt,
# benchmarks.txt, teacher.safetensors + teacher.json (the tracked teacher, trained longer), and
# small.tar.gz (tables and figures of the scale `small`, as far as they got). Each step has a share
# of the SECONDS (default 540) and is stopped at its end.
#
# Tried without a GPU: GPU_DEVICE=cpu GPU_SCALE=smoke GPU_STEPS=20 benchmarks/gpu.sh /tmp/out 600
set -uo pipefail
out=${1:?usage: gpu.sh OUT [SECONDS]} total=${2:-540}
device=${GPU_DEVICE:-cuda} scale=${GPU_SCALE:-small} most=${GPU_STEPS:-20000}
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

step tests $((total / 5)) python3 -m pytest -q -m gpu -p no:cacheprovider tests > "$out/tests.txt" 2>&1
tail -n 3 "$out/tests.txt"

{ step networks $((total / 8)) python3 benchmarks/networks.py --scale "$scale" --device "$device"
  step renderer $((total / 10)) python3 benchmarks/render.py --device "$device"; } \
  > "$out/benchmarks.txt" 2>&1
cat "$out/benchmarks.txt"

# The tracked teacher: twice the frames a step, and as many steps as the time allows.
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cp -r config "$work/config"
teach_scale=tiny; [ "$scale" = smoke ] && teach_scale=smoke
train() { # train SECONDS STEPS OUTPUT
  python3 - "$work/config/scales/$teach_scale.yaml" "$2" <<'PY'
import sys, yaml
path, steps = sys.argv[1], int(sys.argv[2])
content = yaml.safe_load(open(path))
training = content["teacher"]["training"]
training |= {"steps": steps, "batch_frames": 72, "cooldown_steps": max(1, int(0.3 * steps))}
content["teacher"]["sha256"] = ""  # of the tracked one
open(path, "w").write(yaml.safe_dump(content, sort_keys=False))
PY
  step "teacher of $2 steps" "$1" python3 -m geomem.teacher train "$3" --device "$device" \
    --root "$work" --scale "$teach_scale" --clips "$work/teacher" --state "$work/state"
}
clips() { # clips SPLIT FOLDER SHARDS: rendered side by side
  local pids=()
  for ((i = 0; i < $3; i++)); do
    python3 -m geomem.clips make "$work/$2/shard-$(printf %03d "$i")" --root "$work" \
      --scale "$teach_scale" --split "$1" --number "$i" & pids+=($!)
  done
  wait "${pids[@]}"
}
told() { # told EXPRESSION: of the scale's settings
  python3 -c "from geomem.config import load_config as load; s = load(scale='$teach_scale').settings; print($1)"
}
shards() { told "s.splits['$1'].shards"; }
split=$(told s.teacher.train_split)
clips "$split" teacher "$(shards "$split")" && clips validation validation "$(shards validation)" && {
  before=$(date +%s%N)
  probe=$((most < 100 ? most : 100))
  train $((total / 8)) $probe "$work/probe.safetensors" > "$work/probe.txt" 2>&1
  each=$((($(date +%s%N) - before) / 1000000 / probe)) # milliseconds a step, start included
  rm -rf "$work/state"
  steps=$(($(left) * 1000 * 45 / 100 / (each > 0 ? each : 1)))
  [ $steps -gt "$most" ] && steps=$most
  say "$each ms a step: $steps steps"
  [ $steps -ge 10 ] && train "$(left)" $steps "$work/vggt.safetensors" >> "$work/probe.txt" 2>&1 \
    && cp "$work/vggt.safetensors" "$out/teacher.safetensors" \
    && step "teacher's errors" 60 python3 -m geomem.teacher evaluate "$out/teacher.json" \
      --root "$work" --scale "$teach_scale" --clips "$work/validation" --device "$device" \
      --weights "$out/teacher.safetensors" >> "$work/probe.txt" 2>&1
  tail -n 3 "$work/probe.txt"
}

# The scale's tables, as far as they get; what is finished is packed.
if command -v snakemake > /dev/null && [ "$(left)" -gt 30 ]; then
  step "scale $scale" $(($(left) - 20)) snakemake --quiet rules --keep-going --config "scale=$scale" only=main \
    > "$out/workflow.txt" 2>&1
  tar -czf "$out/small.tar.gz" --exclude checkpoints --exclude rollouts "results/$scale" 2> /dev/null
fi
say "done; in $out: $(cd "$out" && ls | tr '\n' ' ')"

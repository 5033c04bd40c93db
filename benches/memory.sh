#!/usr/bin/env bash
# The resident memory of the release binary over a hundred million simulated rows, checkpoints and a
# Parquet archive included. TIDEMILL names another binary. Usage: benches/memory.sh [ROWS] [ARGUMENTS OF tidemill run...]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
target="${CARGO_TARGET_DIR:-$HOME/.cache/tidemill/target}"
rows="${1:-100000000}"
shift || true
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp "$here/memory.yaml" "$work/"
"${TIDEMILL:-$target/release/tidemill}" run "$work/memory.yaml" --set rows="$rows" --progress off "$@" &
job=$!
begin=$(date +%s.%N)
peak=0
# VmHWM is the highest resident size so far; it goes with the process, so it is read while it runs.
while now="$(awk '/VmHWM/ { print $2 }' "/proc/$job/status" 2>/dev/null)" && [ -n "$now" ]; do
  peak="$now"
  sleep 0.1
done
wait "$job"
end=$(date +%s.%N)
awk -v rows="$rows" -v peak="$peak" -v a="$begin" -v b="$end" -v load="$(cut -d' ' -f1 /proc/loadavg)" 'BEGIN {
  printf "%d rows in %.1f s: %.2f M rows/s, at most %.0f MiB resident (target < 1024), load %s\n", rows, b - a, rows / (b - a) / 1e6, peak / 1024, load
}'

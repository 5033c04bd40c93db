#!/usr/bin/env bash
# Makes a Python environment of the comparisons, once, under the cache folder; prints its python.
#   setup.sh            DuckDB, Polars, Bytewax
#   setup.sh nautilus   NautilusTrader, which wants versions of its own
set -euo pipefail
kind="${1:-peers}"
venv="${XDG_CACHE_HOME:-$HOME/.cache}/tidemill/$kind"
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  case "$kind" in
    nautilus) "$venv/bin/pip" -q install "nautilus_trader==1.221.0" >&2 ;;
    *)
      "$venv/bin/pip" -q install "polars==2.1.0" "duckdb==2.0.0" "pyarrow==26.0.1" >&2
      # Has wheels for some versions of Python only: without it that row of the table is missing.
      "$venv/bin/pip" -q install "bytewax==0.21.1" >&2 || echo "no bytewax for $(python3 --version)" >&2
      ;;
  esac
fi
echo "$venv/bin/python"

#!/usr/bin/env bash
# Makes the Python environment of the comparisons, once, under the cache folder; prints its python.
set -euo pipefail
venv="${XDG_CACHE_HOME:-$HOME/.cache}/tidemill/peers"
if [ ! -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" -q install "polars==2.1.0" "duckdb==2.0.0" "pyarrow==26.0.1" >&2
  # Has wheels for some versions of Python only: without it that row of the table is missing.
  "$venv/bin/pip" -q install "bytewax==0.21.1" >&2 || echo "no bytewax for $(python3 --version)" >&2
fi
echo "$venv/bin/python"

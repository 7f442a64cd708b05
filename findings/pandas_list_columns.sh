#!/usr/bin/env bash
# pandas 3.1.1 (pyarrow 24.0.0): a column of lists that has been through parquet is written to CSV
# without commas, and the usual way to read such cells joins all captions of an image to one.
#
# Expected: to_csv writes a column of lists alike before and after to_parquet and read_parquet, or
# ast.literal_eval, which reads the first, refuses the second.
# Seen: read_parquet gives NumPy arrays in the place of lists; to_csv prints them as ['a' 'b'];
# to Python, texts side by side are one text: two captions become "a manthe same man", no error.
# This script fails when the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
  pandas==3.1.1 pyarrow==24.0.0
cd "$folder"
venv/bin/python - <<'END_PYTHON'
import ast

import pandas as pd
import pyarrow

print("pandas", pd.__version__, "pyarrow", pyarrow.__version__)
table = pd.DataFrame({"image": ["0001.jpg"], "captions": [["a man", "the same man"]]})
table.to_csv("before.csv", index=False)
table.to_parquet("table.parquet")
pd.read_parquet("table.parquet").to_csv("after.csv", index=False)
found = {}
for name in ("before", "after"):
    cell = pd.read_csv(f"{name}.csv")["captions"][0]
    found[name] = ast.literal_eval(cell)
    print(f"{name} parquet: the cell is {cell}, and literal_eval reads {found[name]}")
assert found["before"] == ["a man", "the same man"], "the behaviour has changed"
assert found["after"] == ["a manthe same man"], "the behaviour has changed"
END_PYTHON

#!/usr/bin/env bash
# grain 0.2.18: IndexSampler with ShardOptions(drop_remainder=False) still
# loses records when the number of records is no multiple of the number of shards.
#
# Expected: with drop_remainder=False the shards together read every record once, as the option's
# name says.
# Seen: 7 records on 2 shards are read as [0, 1, 2] and [4, 5, 6]: record 3 belongs to the first
# shard, but no loader reads it. Evaluation that is sharded so silently scores fewer rows.
# This script fails when the behaviour changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check grain==0.2.18
"$folder/venv/bin/python" - <<'END_PYTHON'
from importlib.metadata import version

import grain
from grain.sharding import ShardOptions


class Numbers:
    def __len__(self):
        return 7

    def __getitem__(self, index):
        return index


def read(shard, shards):
    options = ShardOptions(shard_index=shard, shard_count=shards, drop_remainder=False)
    sampler = grain.samplers.IndexSampler(
        num_records=7, shard_options=options, shuffle=False, num_epochs=1, seed=0
    )
    loader = grain.DataLoader(data_source=Numbers(), sampler=sampler, worker_count=0)
    return [int(number) for number in loader]


print("grain", version("grain"))
for shards in (1, 2, 3):
    rows = [read(shard, shards) for shard in range(shards)]
    for shard, numbers in enumerate(rows):
        print(f"shard {shard} of {shards}: read {numbers}")
    lost = sorted(set(range(7)).difference(*rows))
    print(f"  lost: {lost}")
    assert lost == {1: [], 2: [3], 3: [2]}[shards], "the behaviour has changed"
END_PYTHON

#!/usr/bin/env bash
# A token that a Stable Diffusion has learned ("<s0>") is matched as it is spelled by the
# CLIPTokenizer of transformers 4, and in any case by that of transformers 5: the same prompt, "<S0>
# a", has other token ids, so that a model draws other images after an upgrade. Nothing tells it.
#
# Seen with transformers 4.57.6: {"<s0> a": learned, "<S0> a": spelled out};
#      with transformers 5.23.0: both learned.
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/ids.py" <<'PYTHON'
import json
import sys

import transformers

folder = sys.argv[1]
printable = [*range(33, 127), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
letters = [chr(b) for b in printable]
letters += [chr(256 + n) for n in range(256 - len(letters))]
words = letters + [letter + "</w>" for letter in letters]
words += ["<|startoftext|>", "<|endoftext|>"]
with open(f"{folder}/vocab.json", "w") as file:
    json.dump({word: n for n, word in enumerate(words)}, file)
with open(f"{folder}/merges.txt", "w") as file:
    file.write("#version: 0.2\n")
config = {"tokenizer_class": "CLIPTokenizer", "bos_token": words[-2]}
config |= {"eos_token": words[-1], "unk_token": words[-1], "pad_token": words[-1]}
with open(f"{folder}/tokenizer_config.json", "w") as file:
    json.dump(config, file)
tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
tokenizer.add_tokens(["<s0>"])
tokenizer.save_pretrained(f"{folder}/saved")
tokenizer = transformers.CLIPTokenizer.from_pretrained(f"{folder}/saved")
learned = tokenizer.convert_tokens_to_ids("<s0>")
assert learned == 514, learned
found = {text: learned in tokenizer(text).input_ids for text in ("<s0> a", "<S0> a")}
print(transformers.__version__, found)
expected = {"<s0> a": True, "<S0> a": transformers.__version__.startswith("5.")}
sys.exit(found != expected)
PYTHON
for version in 4.57.6 5.23.0; do
  python3 -m venv "$folder/$version"
  "$folder/$version/bin/pip" install --quiet "transformers==$version"
  mkdir "$folder/words-$version"
  "$folder/$version/bin/python" "$folder/ids.py" "$folder/words-$version"
done

"""CLIP's merges file, out of the open_clip_torch wheel; fetched once, kept in the user's cache."""

import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

from jaxtbpr.core import tokenizer

MEMBER = "open_clip/bpe_simple_vocab_16e6.txt.gz"


def merges_path() -> pathlib.Path:
    """The local file; CLIP_MERGES names one where there is no package index."""
    if given := os.environ.get("CLIP_MERGES"):
        return pathlib.Path(given)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    kept = cache / "jaxtbpr" / "tests" / "bpe_simple_vocab_16e6.txt.gz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            subprocess.run([*fetch, "--dest", scratch, "open_clip_torch==3.3.0"], check=True)
            (wheel,) = pathlib.Path(scratch).glob("*.whl")
            data = zipfile.ZipFile(wheel).read(MEMBER)
            part = pathlib.Path(scratch) / "part"
            part.write_bytes(data)
            part.replace(kept)
    return kept


def clip_tokenizer():
    """CLIP's tokenizer, by the product's own loader."""
    return tokenizer.load(merges_path())

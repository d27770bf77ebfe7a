"""Features in few files: one of each layer, of which readers fetch the range of one feature, and their index.

`index.json.gz` is {"L": {"filename": "layer_L.bin", "offsets": [...]}} with one offset more than features; from an
offset there are four bytes, little-endian, with the length of the gzip that follows, of the feature's JSON.
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

INDEX = "index.json.gz"
_LEVEL = 6  # the highest is 1 % smaller, in twice the time


def layer_file(layer: int) -> str:
    """The name of the file with a layer's features."""
    return f"layer_{layer}.bin"


def write_features(file: Path, features: Iterable[Mapping[str, Any]]) -> list[int]:
    """Write features one after the other, each as it comes; returns where each begins, and the end of the last."""
    offsets = [0]
    with file.open("wb") as packed:
        for feature in features:
            content = gzip.compress(orjson.dumps(feature), _LEVEL, mtime=0)
            packed.write(struct.pack("<I", len(content)) + content)
            offsets.append(offsets[-1] + 4 + len(content))
    return offsets


def write_feature_index(folder: Path, offsets: Mapping[int, list[int]]) -> None:
    """Write the index of features, by layer."""
    index = {str(layer): {"filename": layer_file(layer), "offsets": offsets[layer]} for layer in sorted(offsets)}
    (folder / INDEX).write_bytes(gzip.compress(orjson.dumps(index), _LEVEL, mtime=0))

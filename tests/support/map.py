"""The data of the map, read back."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np


def read_map(path: Path) -> dict[str, Any]:
    match = re.fullmatch(r"Atlas\.map\((.*)\);\n", path.read_text(encoding="utf-8"), re.DOTALL)
    assert match
    found: dict[str, Any] = json.loads(match[1])
    return found


def unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<u2")

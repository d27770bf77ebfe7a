"""Names the benchmarks: `python -m tests.benchmarks`."""

import ast
from pathlib import Path

if __name__ == "__main__":
    for file in sorted(Path(__file__).parent.glob("*.py")):
        title = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]
        if not file.stem.startswith("__"):
            print(f"{file.stem:16} {title}")

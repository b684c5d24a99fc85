"""Prints the lines of each package: growth needs a reason, and a file over 300 lines needs one of its own."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
LONG = 300

for package in ("reference", "kernels", "harness", "tuner", "tests"):
    files = [
        path
        for path in sorted((ROOT / package).rglob("*"))
        if path.suffix in {".py", ".cl", ".clh", ".c", ".h", ".def"}
    ]
    lines = {path: len(path.read_text().splitlines()) for path in files}
    long = [f"{path.relative_to(ROOT)} {count}" for path, count in lines.items() if count > LONG]
    print(f"{package:10} {len(files):3} files {sum(lines.values()):6} lines", *(f"[{item}]" for item in long))

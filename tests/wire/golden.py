"""Golden data that xia-core made (copies of the shared vectors), and how tests get at them."""

import json
from pathlib import Path
from typing import Any

VECTORS = Path(__file__).parent / "vectors"
CORPUS = Path(__file__).parent / "corpus"

XIP_TYPE = bytes.fromhex("c0de")
XARP_TYPE = bytes.fromhex("9990")


def load(name: str) -> Any:
    """Return the JSON of a vector file."""
    return json.loads((VECTORS / name).read_text())


FRAMES: dict[str, bytes] = {entry["name"]: bytes.fromhex(entry["frame"]) for entry in load("frames.json")}
XIP_FRAMES = {name: frame for name, frame in FRAMES.items() if frame[12:14] == XIP_TYPE}
DAGS: list[dict[str, Any]] = [entry for entry in load("dag_vectors.json") if "error" not in entry]
BAD_DAGS: list[dict[str, Any]] = [entry for entry in load("dag_vectors.json") if "error" in entry]


def corpus() -> dict[str, bytes]:
    """Return the hostile payloads kept as hex, by file name."""
    return {path.stem: bytes.fromhex(path.read_text()) for path in sorted(CORPUS.glob("*.hex"))}

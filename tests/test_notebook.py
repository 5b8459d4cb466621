"""The notebook's cells run, one after the other, and give what they show.

They run in this process, which has torch already; nbmake would start a kernel, and see no values.
"""

import json
from pathlib import Path
from typing import Any

CELLS = json.loads(
    (Path(__file__).parent.parent / "notebooks" / "tour.ipynb").read_text(encoding="utf-8")
)["cells"]


def test_the_tour_runs() -> None:
    names: dict[str, Any] = {}
    for number, cell in enumerate(CELLS):
        assert not cell.get("outputs")  # made by whoever runs it
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    losses = names["losses"]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert names["colours"][-1] < names["colours"][0]
    assert len(names["ships"]) == 2
    assert 1 < names["bound"].total < 3
    assert [step.t for step in names["chain"]] == [1000, 800, 600, 400, 200, 0]
    assert names["found"]["fd"] < 2
    assert len(names["tuned"]) == 4
    assert names["steps"][-1].t == 0

"""Draws docs/pictures/actors.svg: the actors of a run and what travels between them.

`python docs/make_drawing.py` writes it; a test keeps it current. The numbers say the order within a batch.
"""

from html import escape
from pathlib import Path

TARGET = Path(__file__).resolve().parent / "pictures" / "actors.svg"
WIDTH, HEIGHT = 1080, 640
BOXES = {  # x, y, width, height, title, lines, colour
    "orchestrator": (
        420,
        256,
        240,
        128,
        "orchestrator",
        ("the loop, supervision,", "run directory;", "moves references only"),
        "#5b5f97",
    ),
    "rollout": (
        30,
        40,
        270,
        110,
        "rollout-0 … n",
        ("one vLLM engine each;", "top-K log-probs while sampling"),
        "#2a7f8e",
    ),
    "env": (
        780,
        40,
        270,
        110,
        "env-0 … n",
        ("environments in warm sandboxes,", "on CPU nodes; the pool grows"),
        "#3c8d5a",
    ),
    "teacher": (
        780,
        490,
        270,
        110,
        "teacher-0 … n",
        ("the same network, slowly following,", "reads the prompt in hindsight"),
        "#b07d2b",
    ),
    "learner": (
        30,
        490,
        270,
        110,
        "learner-rank0 … n",
        ("FSDP2 or DeepSpeed;", "owns the teacher's average"),
        "#a4506c",
    ),
}
ARROWS = (  # from, to, label, where the label stands, anchor
    ((420, 290), (190, 150), "1 prompts", (262, 232), "end"),
    ((260, 150), (480, 256), "2 attempts, as references", (392, 196), "start"),
    ((600, 256), (820, 150), "3 replies", (668, 196), "end"),
    ((890, 150), (660, 290), "4 verdict: reward and words", (804, 232), "start"),
    ((660, 350), (890, 490), "5 hindsight prompts", (804, 420), "start"),
    ((820, 490), (600, 384), "6 log-probs of the same tokens", (684, 452), "end"),
    ((420, 350), (190, 490), "7 batch", (286, 410), "end"),
    ((70, 490), (70, 150), "8 policy", (80, 326), "start"),
    ((300, 560), (780, 560), "8 the teacher's weights, once a batch", (540, 550), "middle"),
)


def box(x: int, y: int, width: int, height: int, title: str, lines: tuple[str, ...], colour: str) -> str:
    rows = "".join(
        f'<text x="{x + width / 2}" y="{y + 56 + 20 * row}" class="small" text-anchor="middle">{escape(line)}</text>'
        for row, line in enumerate(lines)
    )
    return (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" fill="white" stroke="{colour}" '
        f'stroke-width="2.5"/><text x="{x + width / 2}" y="{y + 30}" class="title" text-anchor="middle" '
        f'fill="{colour}">{escape(title)}</text>'
        f"{rows}"
    )


def arrow(start: tuple[int, int], end: tuple[int, int], label: str, at: tuple[int, int], anchor: str) -> str:
    return (
        f'<line x1="{start[0]}" y1="{start[1]}" x2="{end[0]}" y2="{end[1]}" stroke="#555" stroke-width="1.6" '
        f'marker-end="url(#tip)"/><text x="{at[0]}" y="{at[1]}" class="label" text-anchor="{anchor}">'
        f"{escape(label)}</text>"
    )


def drawing() -> str:
    """The whole picture as SVG, without fonts or links from elsewhere."""
    style = (
        "text{font-family:Helvetica,Arial,sans-serif}"
        ".title{font-size:18px;font-weight:bold}.small{font-size:14px;fill:#333}"
        ".label{font-size:13px;fill:#222}"
    )
    tip = (
        '<marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0L10 5L0 10z" fill="#555"/></marker>'
    )
    parts = [arrow(*each) for each in ARROWS] + [box(*each) for each in BOXES.values()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">'
        f'<style>{style}</style><defs>{tip}</defs><rect width="100%" height="100%" fill="#fbfbfd"/>'
        f"{''.join(parts)}</svg>\n"
    )


if __name__ == "__main__":
    TARGET.write_text(drawing())

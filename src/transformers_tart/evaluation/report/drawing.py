"""What the plots share: colors, markers, axes and files. matplotlib is imported where it is used."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers_tart.files import explain_full_disk


if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Paul Tol's "muted" scheme and black: ten colors that color-blind readers tell apart
COLORS = (
    "#000000",
    "#CC6677",
    "#332288",
    "#117733",
    "#DDAA33",
    "#88CCEE",
    "#AA4499",
    "#44AA99",
    "#999933",
    "#882255",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", "--", ":")
LEGEND_WIDTH, LEGEND_ROW = 2.4, 0.2  # inches
DIAGONAL: dict[str, Any] = {"color": "#777777", "linewidth": 0.8, "linestyle": (0, (4, 3))}
BARS: dict[str, Any] = {"color": "#cccccc"}
MARGIN = 1.35  # about the smallest and the largest k
UPRIGHT = 5  # more sizes than this are written aslant
LINEAR_RATIO = 3  # of the largest seconds to the smallest: up to it ticks as on a linear axis are more
# ticks of each power of ten, up to a ratio
SECONDS_TICKS = ((20, (1, 1.5, 2, 3, 5, 7)), (5000, (1, 2, 5)), (math.inf, (1,)))
SETTINGS: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.dpi": 130,
    "text.parse_math": False,  # names hold dollar signs
    "svg.hashsalt": "transformers-tart",  # the same numbers give the same bytes
}


@dataclass(frozen=True)
class Look:
    """Color, marker and line of a method, and whether it stands before the others."""

    color: str
    marker: str
    linestyle: str
    in_front: bool

    @property
    def line(self) -> dict[str, Any]:
        """Options of a line."""
        return {
            "color": self.color,
            "marker": self.marker,
            "linestyle": self.linestyle,
            "linewidth": 2.0 if self.in_front else 1.0,
            "markersize": 4.5 if self.in_front else 3.6,
            "zorder": 4 if self.in_front else 3,
        }


def require_matplotlib() -> None:
    """
    Raises:
        ImportError: Without matplotlib; the message says what to install.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as err:
        raise ImportError('Plots need matplotlib: pip install "transformers-tart[plots]".') from err


def choose_looks(methods: Sequence[str], reference: str) -> dict[str, Look]:
    """A look for each method; the reference is black and in front."""
    ordered = [reference, *(method for method in methods if method != reference)]
    return {
        method: Look(
            COLORS[i % len(COLORS)],
            MARKERS[i % len(MARKERS)],
            LINES[i // len(COLORS) % len(LINES)],
            method == reference,
        )
        for i, method in enumerate(ordered)
    }


@contextmanager
def plotting() -> Iterator[None]:
    """The settings of all plots, for a while."""
    require_matplotlib()
    import matplotlib

    with matplotlib.rc_context(SETTINGS):
        yield


def shorten(name: str, longest: int) -> str:
    """A name on one line, cut off in its middle where it is too long."""
    name = " ".join(name.split())
    if len(name) <= longest:
        return name
    kept = longest - 1
    return name[: kept - kept // 2] + "…" + name[-(kept // 2) :]


def make_panels(
    count: int, columns: int, width: float, height: float, legend_rows: int
) -> tuple["Figure", list["Axes"]]:
    """A figure of equal panels of some inches, row by row, with room for a legend at its right."""
    from matplotlib.figure import Figure

    columns = min(columns, count)
    rows = -(-count // columns)
    size = (columns * width + LEGEND_WIDTH, max(rows * height + 0.3, (legend_rows + 1) * LEGEND_ROW))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    panels = list(grid.flat)
    for unused in panels[count:]:
        unused.remove()
    return figure, panels[:count]


def set_size_axis(axes: "Axes", sizes: Sequence[int]) -> None:
    """An axis of k by powers of two, with ticks at what was measured."""
    axes.set_xscale("log", base=2)
    axes.set_xlim(sizes[0] / MARGIN, sizes[-1] * MARGIN)
    axes.set_xticks(sizes, list(map(str, sizes)), rotation=0 if len(sizes) <= UPRIGHT else 60)
    axes.set_xticks([], minor=True)


def set_seconds_axis(axes: "Axes") -> None:
    """A logarithmic axis with plain numbers."""
    from matplotlib.ticker import AutoLocator, LogLocator, NullFormatter

    axes.set_xscale("log")
    smallest, largest = axes.get_xlim()
    ticks = next(subs for ratio, subs in SECONDS_TICKS if largest <= ratio * smallest)
    few = largest <= LINEAR_RATIO * smallest
    axes.xaxis.set_major_locator(AutoLocator() if few else LogLocator(base=10, subs=ticks))
    axes.xaxis.set_major_formatter(lambda seconds, _: f"{seconds:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def label(figure: "Figure", x: str, y: str) -> None:
    """What all panels of a figure have on their axes."""
    figure.supxlabel(x, fontsize="medium")
    figure.supylabel(y, fontsize="medium")


def add_legend(figure: "Figure", looks: dict[str, Look]) -> None:
    """All methods, at the right of the panels."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=shorten(method, 34), **look.line) for method, look in looks.items()]
    _place_legend(figure, handles)


def add_calibration_legend(figure: "Figure") -> None:
    """What the parts of a calibration panel are."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    line = Line2D([], [], color="#000000", marker="o", markersize=4, label="accuracy")
    diagonal = Line2D([], [], **DIAGONAL, label="accuracy = confidence")
    _place_legend(figure, [line, diagonal, Patch(**BARS, label="share of predictions, %")])


def _place_legend(figure: "Figure", handles: Sequence["Artist"]) -> None:
    figure.legend(handles=handles, loc="outside right upper", handlelength=2.6)


def save(figure: "Figure", folder: Path, name: str) -> Path:
    """Write a figure as PNG and as SVG, and return the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    with explain_full_disk(folder):
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png")
    return folder / f"{name}.png"


__all__ = [
    "BARS",
    "DIAGONAL",
    "Look",
    "add_calibration_legend",
    "add_legend",
    "choose_looks",
    "label",
    "make_panels",
    "plotting",
    "require_matplotlib",
    "save",
    "set_seconds_axis",
    "set_size_axis",
    "shorten",
]

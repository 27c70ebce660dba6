"""What the tests of pictures share."""

from itertools import combinations

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text


def covered_texts(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that overlap when the figure is drawn."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    unseen = set()
    for axes in figure.findobj(Axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            unseen |= {
                label
                for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
                for label in (tick.label1, tick.label2)
                if not low <= tick.get_loc() <= high
            }
    texts = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in unseen]
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer()).shrunk(0.95, 0.7)) for t in texts]
    return [(a, b) for (a, first), (b, second) in combinations(boxes, 2) if first.overlaps(second)]

"""Hypothesis strategies over Peers' own generators. Needs the package `hypothesis`; nothing else here does."""

from hypothesis import strategies as st

from peers.testing.histories import FOCUSED_SHAPES, RANDOM_SHAPES, Shape, make_history
from peers.testing.history import History


def histories(*shapes: Shape) -> st.SearchStrategy[History]:
    """Histories of one of these shapes, by default of any. Hypothesis drives every choice, so failures shrink."""
    return st.builds(
        make_history,
        st.randoms(use_true_random=False, note_method_calls=False),
        st.sampled_from(shapes or (*FOCUSED_SHAPES, *RANDOM_SHAPES)),
    )

"""Native kernels and their pure twins; ``NATIVE`` says which ones run.

``TGRES_PURE=1`` in the environment takes the pure twins even where the extensions are built.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

NATIVE = False

if TYPE_CHECKING:
    from tgres_py.kernels.budget_py import Budget
    from tgres_py.kernels.copy_py import series_rows
    from tgres_py.kernels.names_py import NameTable
    from tgres_py.kernels.ring_py import FLOOR_NONE, RingStore
    from tgres_py.model.nametree import NameTree
    from tgres_py.model.nodes import NodeTable
else:
    if not os.environ.get("TGRES_PURE"):
        try:
            from tgres_py.kernels._copy import series_rows
            from tgres_py.kernels._names import Budget, NameTable
            from tgres_py.kernels._ring import FLOOR_NONE, RingStore
            from tgres_py.kernels._tree import NameTree, NodeTable

            NATIVE = True
        except ImportError:
            pass
    if not NATIVE:
        from tgres_py.kernels.budget_py import Budget
        from tgres_py.kernels.copy_py import series_rows
        from tgres_py.kernels.names_py import NameTable
        from tgres_py.kernels.ring_py import FLOOR_NONE, RingStore
        from tgres_py.model.nametree import NameTree
        from tgres_py.model.nodes import NodeTable

__all__ = [
    "FLOOR_NONE",
    "NATIVE",
    "Budget",
    "NameTable",
    "NameTree",
    "NodeTable",
    "RingStore",
    "series_rows",
]

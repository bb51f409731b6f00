"""Runs to one self-contained HTML page and PNG figures; reads run folders and nothing else.

``plots`` says what can be shown, as plain data; ``analyze``, ``train``, ``figure`` and ``other`` turn rows into it, one
module a kind of run; ``charts`` with ``page`` and ``png`` draw it.
"""

from isthmus.report.write import FORMATS, draw, write_report

__all__ = ["FORMATS", "draw", "write_report"]

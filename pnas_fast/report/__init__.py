"""What a person sees of a search: ``report.html`` and its figures."""

from pnas_fast.report.drawing import draw_cell
from pnas_fast.report.page import write_report
from pnas_fast.report.record import ReportError

__all__ = ["ReportError", "draw_cell", "write_report"]

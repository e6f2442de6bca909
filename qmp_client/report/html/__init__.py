"""The report as one page of HTML that needs nothing else: no network, no second file."""

from qmp_client.report.html.page import render, render_reports

__all__ = ["render", "render_reports"]

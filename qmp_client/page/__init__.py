"""The report as one page of HTML that needs nothing else: no network, no second file."""

from qmp_client.page.page import render
from qmp_client.page.shown import of_report, of_result

__all__ = ["of_report", "of_result", "render"]

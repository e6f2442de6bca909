"""The report: its data, what makes it pass or fail, and how it looks."""

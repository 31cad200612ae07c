"""Layer 6: plots, tables as Markdown, CSV, LaTeX and HTML, and the report page."""

"""Layer 6: figures, tables as Markdown, CSV, LaTeX and HTML, and the report page."""

"""The model card: the author's notes, the Hub's terms, Markdown and the template."""

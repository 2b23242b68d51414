"""MathJax on the pages that have formulas alone: Sphinx also loads it where a page's table of contents leads to some."""


def only_where_needed(app, page, template, context, doctree):
    if 'class="math' not in (context.get("body") or ""):
        scripts = context.get("script_files") or []
        context["script_files"] = [script for script in scripts if app.config.mathjax_path not in str(script.filename)]


def setup(app):
    app.connect("html-page-context", only_where_needed, priority=900)  # after Sphinx has added it
    return {"parallel_read_safe": True, "parallel_write_safe": True}

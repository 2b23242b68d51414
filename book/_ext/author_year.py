"""The list of references without generated keys: a label is author and year, as in the text."""

from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style as Plain
from pybtex.style.labels import BaseLabelStyle


class Labels(BaseLabelStyle):
    """ "Keskar et al. 2017"; a second work of the same authors and year gets a letter."""

    def format_labels(self, sorted_entries):
        seen = {}
        for entry in sorted_entries:
            names = [" ".join(person.prelast_names + person.last_names) for person in entry.persons["author"]]
            who = names[0] + (f" and {names[1]}" if len(names) == 2 else " et al." if len(names) > 2 else "")
            label = f"{who} {entry.fields['year']}"
            seen[label] = seen.get(label, 0) + 1
            yield label + ("" if seen[label] == 1 else "abcdefgh"[seen[label] - 1])


class AuthorYear(Plain):
    """The plain style, sorted by author and year, with these labels."""

    default_sorting_style = "author_year_title"

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.format_labels = Labels().format_labels


def without_list_roles(app, page, template, context, doctree):
    """docutils calls the citations a list whose children are no items of one; they are read well without."""
    body = context.get("body") or ""
    context["body"] = body.replace(' role="list" class="citation-list"', ' class="citation-list"').replace(
        ' role="doc-biblioentry"', ""
    )


def setup(app):
    register_plugin("pybtex.style.formatting", "author_year", AuthorYear)
    app.connect("html-page-context", without_list_roles)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

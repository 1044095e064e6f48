"""A Griffe extension: the package documents arguments and fields in comments, and the reference shows them.

    num: int = 50,  # number of images of each kind

becomes the description of a parameter, or of a dataclass's field.
"""

import ast
import functools
import io
import tokenize

import griffe


@functools.cache
def comments(source: str) -> dict[int, str]:  # line -> the comment at its end
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


class CommentsAsDocs(griffe.Extension):
    def on_class_members(self, *, node, cls, agent, **_) -> None:
        """The fields of a dataclass become one list."""
        if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
            return
        fields = []
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and not statement.target.id.startswith("_"):
                attribute = cls.members.pop(statement.target.id)
                text = comments(agent.code).get(statement.end_lineno, "")
                default = "" if attribute.value is None else f" = {attribute.value}"
                described = {"annotation": f"{attribute.annotation}{default}", "description": text}
                fields.append(griffe.DocstringAttribute(attribute.name, **described))
        add_section(cls, griffe.DocstringSectionAttributes(fields, title="Fields:"), bool(fields))

    def on_function_instance(self, *, node, func, agent, **_) -> None:
        described = []
        for arg, default in arguments(node):
            ends = [part.end_lineno for part in (arg, default) if part is not None]
            text = comments(agent.code).get(max(ends)) if max(ends) != node.lineno else None
            if text:
                annotation = func.parameters[arg.arg].annotation
                described.append(griffe.DocstringParameter(arg.arg, description=text, annotation=annotation))
        add_section(func, griffe.DocstringSectionParameters(described), bool(described))


def add_section(of: griffe.Object, section: griffe.DocstringSection, worth_it: bool) -> None:
    if worth_it:
        of.docstring = of.docstring or griffe.Docstring("", parent=of)
        of.docstring.parsed.append(section)  # Griffe caches the list


def arguments(node: ast.FunctionDef):
    """Each argument with its default, None where it has none."""
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(positional) - len(node.args.defaults)) + node.args.defaults
    yield from zip(positional, defaults, strict=True)
    yield from ((arg, None) for arg in (node.args.vararg,) if arg)
    yield from zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    yield from ((arg, None) for arg in (node.args.kwarg,) if arg)

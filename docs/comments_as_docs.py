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
    def on_attribute_instance(self, *, node, attr, agent, **_) -> None:
        is_field = isinstance(node, ast.AnnAssign) and attr.parent and attr.parent.is_class
        if is_field and attr.docstring is None and (text := comments(agent.code).get(node.end_lineno)):
            attr.docstring = griffe.Docstring(sentence(text), parent=attr)

    def on_function_instance(self, *, node, func, agent, **_) -> None:
        described = []
        for arg, default in arguments(node):
            ends = [part.end_lineno for part in (arg, default) if part is not None]
            text = comments(agent.code).get(max(ends)) if max(ends) != node.lineno else None
            if text:
                annotation = func.parameters[arg.arg].annotation
                described.append(griffe.DocstringParameter(arg.arg, description=text, annotation=annotation))
        if described:
            func.docstring = func.docstring or griffe.Docstring("", parent=func)
            func.docstring.parsed.append(griffe.DocstringSectionParameters(described))  # cached by Griffe


def arguments(node: ast.FunctionDef):
    """Each argument with its default, None where it has none."""
    positional = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(positional) - len(node.args.defaults)) + node.args.defaults
    yield from zip(positional, defaults, strict=True)
    yield from ((arg, None) for arg in (node.args.vararg,) if arg)
    yield from zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    yield from ((arg, None) for arg in (node.args.kwarg,) if arg)


def sentence(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text.endswith(".") else ".")

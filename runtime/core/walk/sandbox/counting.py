"""What counts in a template: put around what is iterated, joined, compared, cut out, repeated or shown."""

from __future__ import annotations

from typing import Any

from jinja2 import nodes, pass_context
from jinja2.runtime import Context
from jinja2.visitor import NodeTransformer

from runtime.core.walk.sandbox.meter import METER, SCALARS, RenderMeter, meter_of

_SHORT = 256
"""Text of a template so long is counted with the step that it stands in."""


@pass_context
def _counted(context: Context, items: Any) -> Any:
    return meter_of(context).counted(items)


@pass_context
def _weighed(context: Context, value: Any) -> Any:
    meter = meter_of(context)
    meter.step()
    return meter.weigh(value)


@pass_context
def _joined(context: Context, parts: list[Any]) -> str:
    meter = meter_of(context)
    meter.step()
    return "".join([str(meter.weigh(part)) for part in parts])


@pass_context
def shown(context: Context, value: Any) -> Any:
    """Count what is put into the text, and return it."""
    kind = type(value)
    if kind in SCALARS:
        return value
    meter: RenderMeter = context.parent[METER]
    if kind is str:
        meter.take(len(value))
        return value
    return meter.weigh(value)


@pass_context
def _sized(context: Context, value: Any) -> Any:
    return meter_of(context).sized(value)


COUNTING_FILTERS = {".counted": _counted, ".weighed": _weighed, ".joined": _joined, ".sized": _sized}
"""What ``Counting`` puts into a template; no template can say these names."""


class Counting(NodeTransformer):
    """Puts what counts into a template: around what is iterated, joined, compared, cut out or repeated."""

    def __init__(self) -> None:
        self._repeated = 0

    def _filtered(self, node: nodes.Node, name: str) -> nodes.Expr:
        return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)

    def _within(self, node: nodes.Node) -> nodes.Node:
        self._repeated += 1
        self.generic_visit(node)
        self._repeated -= 1
        return node

    visit_Macro = visit_CallBlock = visit_FilterBlock = visit_AssignBlock = visit_Block = _within  # noqa: N815

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja2's way
        """Count iterations."""
        self._within(node)
        node.iter = self._filtered(node.iter, ".counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """Count what ``~`` joins."""
        self.generic_visit(node)
        return self._filtered(nodes.List(node.nodes, lineno=node.lineno), ".joined")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        """Count what is compared."""
        self.generic_visit(node)
        for operand in node.ops:
            operand.expr = self._filtered(operand.expr, ".weighed")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        """Count what is cut out."""
        self.generic_visit(node)
        return self._filtered(node, ".sized") if isinstance(node.arg, nodes.Slice) else node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        """Count long text that stands where it may be repeated."""
        long = self._repeated and len(node.data) > _SHORT
        return nodes.Const(node.data, lineno=node.lineno) if long else node

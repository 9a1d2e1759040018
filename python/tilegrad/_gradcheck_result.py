# SPDX-License-Identifier: MIT
"""What a gradient check finds: elements, the result, the error."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GradcheckElement:
    """One element of a gradient, computed in both ways.

    Attributes:
        name: The input or parameter.
        index: Which of its elements.
        analytic: What the backward pass gave.
        numeric: What central differences gave.
        excess: The difference over the tolerance; above 1 the element fails.
    """

    name: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    excess: float

    @property
    def difference(self) -> float:
        """Distance between the two."""
        return abs(self.analytic - self.numeric)

    def __str__(self) -> str:
        at = f"[{', '.join(map(str, self.index))}]" if self.index else ""
        return (
            f"{self.name}{at}: analytic {self.analytic:.9g}, numeric {self.numeric:.9g}, "
            f"difference {self.difference:.3g} ({self.excess:.3g} x tolerance)"
        )


@dataclass(frozen=True)
class GradcheckResult:
    """What `gradcheck` found; true if every element agrees.

    Attributes:
        worst: The element of the largest excess, for each input or parameter that has elements.
        elements: How many elements were compared.
        failures: How many of them differ by more than the tolerance.
    """

    worst: tuple[GradcheckElement, ...]
    elements: int
    failures: int

    def __bool__(self) -> bool:
        return self.failures == 0

    def __str__(self) -> str:
        if self:
            head = f"gradcheck: passed; all {self.elements} elements agree"
        else:
            head = f"gradcheck: failed; {self.failures} of {self.elements} elements differ"
        lines = sorted(self.worst, key=lambda element: -element.excess)
        return "\n".join([head, *(f"  worst of {line}" for line in lines)])


class GradcheckError(AssertionError):
    """A gradient differs from central differences; `result` holds what was found."""

    def __init__(self, result: GradcheckResult) -> None:
        super().__init__(str(result))
        self.result = result

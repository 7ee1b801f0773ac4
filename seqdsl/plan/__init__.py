"""What each form costs, and which one `auto` takes.

`polynomials`  counts as polynomials in the lengths of axes
`operators`    what one term costs: the table of what costs otherwise than its binding says
`counting`     the cost of a system as it stands, in whatever form
`choice`       the cheapest form that is safe

Costs are read off the system: one multiply-add counts as two flops, every tensor is written once and read once, and a loop
over an axis makes that many steps one after another. The choice compares forms at nominal sizes by a roofline with a price
for each sequential step; it decides between forms, and is no prediction. Some forms it takes only where they are safe or
sure to pay, whatever they cost: the `check` of a form's row.

Architecture invariant: knows no code text; backends report nothing back.
"""

from seqdsl.plan.choice import as_chosen, candidates, choose, costs, in_form
from seqdsl.plan.counting import Cost, cost
from seqdsl.plan.polynomials import leading, show

__all__ = ["Cost", "as_chosen", "candidates", "choose", "cost", "costs", "in_form", "leading", "show"]
